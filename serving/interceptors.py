"""Around every call: a request id, the metrics, and errors as gRPC statuses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from domain.clock import Clock
from domain.errors import (
    DeadlineExceededError,
    DecodeError,
    InvalidRequestError,
    LogUnavailableError,
    NotReadyError,
    OverloadedError,
    SchemaError,
)
from monitoring.metrics import ServingMetrics
from serving import request_id
from serving.validate import named_field

_logger = logging.getLogger(__name__)

_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (DecodeError, grpc.StatusCode.INVALID_ARGUMENT),
    (SchemaError, grpc.StatusCode.INVALID_ARGUMENT),
    (NotReadyError, grpc.StatusCode.UNAVAILABLE),
    (OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (DeadlineExceededError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (LogUnavailableError, grpc.StatusCode.UNAVAILABLE),
)

_MAX_TEXT_BYTES = 500
"""Statuses travel as HTTP/2 headers, of which clients take 8 KiB in all by default. A message may
quote what the caller sent; it goes out percent-encoded (up to three bytes for one), and once more
with field and reason in the details."""

_NO_DEADLINE_S = 86_400.0
"""gRPC reports no deadline as one centuries away; nobody waits a day."""


def remaining_s(context: grpc.ServicerContext) -> float | None:
    """Return the seconds until the caller gives up, None when it set no deadline."""
    remaining = context.time_remaining()
    return None if remaining is None or remaining > _NO_DEADLINE_S else float(remaining)


def status_of(error: Exception, call_id: str) -> status_pb2.Status:
    """Return the google.rpc.Status that tells a caller about an error.

    A malformed request names its field in a `google.rpc.BadRequest`. What the caller can do nothing
    about becomes INTERNAL with the request's id and nothing else.
    """
    for kind, code in _CODES:
        if isinstance(error, kind):
            return _status(code, str(error), error)
    message = f"internal error; the server's log has it under request {call_id}"
    return _status(grpc.StatusCode.INTERNAL, message, None)


def _status(code: grpc.StatusCode, message: str, error: Exception | None) -> status_pb2.Status:
    status = status_pb2.Status(code=code.value[0], message=_short(message))
    if isinstance(error, DecodeError | SchemaError):
        error = named_field(str(error))
    if isinstance(error, InvalidRequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=_short(error.field), description=_short(error.reason)
        )
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        status.details.append(detail)
    return status


def _short(text: str) -> str:
    """Cut a text to what a header may carry."""
    encoded = text.encode()
    if len(encoded) <= _MAX_TEXT_BYTES:
        return text
    return encoded[: _MAX_TEXT_BYTES - 3].decode(errors="ignore") + "..."


_Call = Callable[[Any, grpc.ServicerContext], Any]


class CallInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Wraps the calls of one package's services; health checks and reflection pass untouched."""

    def __init__(self, package: str, clock: Clock, metrics: ServingMetrics) -> None:
        self._prefix = f"/{package}."
        self._clock = clock
        self._metrics = metrics
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the handler of a call, wrapped; handlers never change, so each is wrapped once."""
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = continuation(handler_call_details)
        if handler is None or not method.startswith(self._prefix):
            return handler
        assert handler.unary_unary is not None, f"{method}: only unary calls are wrapped"
        self._wrapped[method] = grpc.unary_unary_rpc_method_handler(
            self._wrap(method.rpartition("/")[2].lower(), handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return self._wrapped[method]

    def _wrap(self, method: str, call: _Call) -> _Call:
        durations = self._metrics.request_seconds.labels(method=method)
        answered = self._metrics.requests.labels(method=method, code="OK")

        def wrapped(request: Any, context: grpc.ServicerContext) -> Any:
            started_s = self._clock.stopwatch_s()
            call_id = _begin(context)
            try:
                response = call(request, context)
            except Exception as error:
                status = status_of(error, call_id)
                if status.code == grpc.StatusCode.INTERNAL.value[0]:
                    _logger.exception("call failed", extra={"request": call_id, "method": method})
            else:
                answered.inc()
                return response
            finally:
                durations.observe(self._clock.stopwatch_s() - started_s)
            grpc_status = rpc_status.to_status(status)
            self._metrics.requests.labels(method=method, code=grpc_status.code.name).inc()
            context.set_trailing_metadata(
                (*grpc_status.trailing_metadata, (request_id.METADATA_KEY, call_id))
            )
            return context.abort(grpc_status.code, grpc_status.details)

        return wrapped


def _begin(context: grpc.ServicerContext) -> str:
    """Start a call: take its id from the caller's metadata or make one, and send it back."""
    given = ""
    for key, value in context.invocation_metadata() or ():
        if key == request_id.METADATA_KEY and isinstance(value, str):
            given = value
    call_id = request_id.begin(given)
    context.set_trailing_metadata(((request_id.METADATA_KEY, call_id),))
    return call_id
