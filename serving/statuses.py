"""Errors as gRPC statuses, with details that a client can read."""

from __future__ import annotations

import math

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from domain.errors import (
    DeadlineExceededError,
    DecodeError,
    InvalidRequestError,
    LogUnavailableError,
    NotReadyError,
    OverloadedError,
    PermissionDeniedError,
    SchemaError,
    UnauthenticatedError,
)
from serving.validate import named_field

RETRY_AFTER_KEY = "retry-after-ms"
"""Trailing metadata with the milliseconds after which trying again may help."""

_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (DecodeError, grpc.StatusCode.INVALID_ARGUMENT),
    (SchemaError, grpc.StatusCode.INVALID_ARGUMENT),
    (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (PermissionDeniedError, grpc.StatusCode.PERMISSION_DENIED),
    (NotReadyError, grpc.StatusCode.UNAVAILABLE),
    (OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (DeadlineExceededError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (LogUnavailableError, grpc.StatusCode.UNAVAILABLE),
)

_MAX_TEXT_BYTES = 500
"""Statuses travel as HTTP/2 headers, of which clients take 8 KiB in all by default. A message may
quote what the caller sent; it goes out percent-encoded (up to three bytes for one), and once more
with field and reason in the details."""


def status_of(error: Exception, call_id: str) -> status_pb2.Status:
    """Return the google.rpc.Status that tells a caller about an error.

    A malformed request names its field in a `google.rpc.BadRequest`; a refused one says in a
    `google.rpc.RetryInfo` when to come again. What the caller can do nothing about becomes INTERNAL
    with the request's id and nothing else.
    """
    for kind, code in _CODES:
        if isinstance(error, kind):
            return _status(code, str(error), error)
    message = f"internal error; the server's log has it under request {call_id}"
    return _status(grpc.StatusCode.INTERNAL, message, None)


def retry_after_metadata(error: Exception) -> tuple[tuple[str, str], ...]:
    """Return what a refused caller finds in the trailing metadata, for clients without details."""
    if isinstance(error, OverloadedError) and error.retry_after_s is not None:
        return ((RETRY_AFTER_KEY, str(math.ceil(error.retry_after_s * 1_000))),)
    return ()


def _status(code: grpc.StatusCode, message: str, error: Exception | None) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=_short(message))
    if isinstance(error, DecodeError | SchemaError):
        error = named_field(str(error))
    if isinstance(error, InvalidRequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_short(error.field), description=_short(error.reason)
        )
        _add_detail(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, OverloadedError) and error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(math.ceil(error.retry_after_s * 1_000))
        _add_detail(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _add_detail(status: status_pb2.Status, message: Message) -> None:
    detail = any_pb2.Any()
    detail.Pack(message)
    status.details.append(detail)


def _short(text: str) -> str:
    """Cut a text to what a header may carry."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= _MAX_TEXT_BYTES:
        return text
    return encoded[: _MAX_TEXT_BYTES - 3].decode(errors="ignore") + "..."
