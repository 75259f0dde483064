"""What a caller is told, as a gRPC status with details that a client can read."""

from __future__ import annotations

import math

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from serving.failures import Failed

RETRY_AFTER_KEY = "retry-after-ms"
"""Trailing metadata with the milliseconds after which trying again may help, for clients that
cannot read details."""

_DOMAIN = "headrace"


def status_of(failed: Failed) -> status_pb2.Status:
    """Return the google.rpc.Status of a failure.

    Its details are an `ErrorInfo` with the stable reason, for a malformed request a `BadRequest`
    that names the field, and where trying again may help a `RetryInfo`.
    """
    status = status_pb2.Status(code=failed.code.value[0], message=failed.message)
    _add(status, error_details_pb2.ErrorInfo(reason=failed.reason, domain=_DOMAIN))
    if failed.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=failed.field, description=failed.violation
        )
        _add(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if failed.retry_after_s:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(_retry_after_ms(failed))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def retry_after_metadata(failed: Failed) -> tuple[tuple[str, str], ...]:
    """Return what says in the trailing metadata when to try again; nothing if that is no help."""
    if not failed.retry_after_s:
        return ()
    return ((RETRY_AFTER_KEY, str(_retry_after_ms(failed))),)


def _retry_after_ms(failed: Failed) -> int:
    return math.ceil(failed.retry_after_s * 1_000)


def _add(status: status_pb2.Status, message: Message) -> None:
    detail = any_pb2.Any()
    detail.Pack(message)
    status.details.append(detail)
