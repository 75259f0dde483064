"""Around every call: a request id, the gate, the metrics, and errors as gRPC statuses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError as WireError
from grpc_status import rpc_status

from domain.clock import Clock
from domain.errors import InvalidRequestError
from monitoring.metrics import ServingMetrics
from monitoring.tracing import Tracing
from serving import cancellation, request_id, trace
from serving.failures import failed
from serving.gate import Gate
from serving.slow_senders import SlowSenders
from serving.statuses import retry_after_metadata, status_of

_logger = logging.getLogger(__name__)

_NO_DEADLINE_S = 86_400.0
"""gRPC reports no deadline as one centuries away; nobody waits a day."""

_HEALTH = "/grpc.health."
"""Asked by load balancers and supervisors, who have no token; it tells nothing else."""

_arrived_s: ContextVar[float] = ContextVar("arrived_s")


def remaining_s(context: grpc.ServicerContext) -> float | None:
    """Return the seconds until the caller gives up, None when it set no deadline."""
    remaining = context.time_remaining()
    return None if remaining is None or remaining > _NO_DEADLINE_S else float(remaining)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallParts:
    """What calls are led through.

    Attributes:
        package: Protobuf package of our services.
        senders: ends calls whose message does not come.
        tracing: makes spans of calls with one answer; None makes none.
    """

    package: str
    gate: Gate
    senders: SlowSenders
    metrics: ServingMetrics
    tracing: Tracing | None = None


class CallInterceptor(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Wraps every call of our services, and of reflection; health checks pass untouched.

    Each method becomes one that reads its messages itself: who may not call is told so before a
    message is read, and a message that does not come, or is none, ends the call in our own words.
    """

    def __init__(self, parts: CallParts, clock: Clock) -> None:
        self._prefix = f"/{parts.package}."
        self._gate = parts.gate
        self._senders = parts.senders
        self._metrics = parts.metrics
        self._tracing = parts.tracing
        self._clock = clock
        self._wrapped: dict[str, grpc.RpcMethodHandler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the handler of a call, wrapped; handlers never change, so each is wrapped once."""
        _arrived_s.set(self._clock.stopwatch_s())  # the call itself begins when a thread is free
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = continuation(handler_call_details)
        if handler is None or method.startswith(_HEALTH):
            return handler
        self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        reader = _Reader(self._gate, self._senders, handler)

        def one_answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with (
                self._around(method, context) as client,
                trace.call(self._tracing, method, context),
            ):
                if not handler.request_streaming:
                    return handler.unary_unary(reader.one(messages, client, context), context)
                with self._gate.stream():
                    return handler.stream_unary(reader.each(messages, client), context)

        def many_answers(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            with self._around(method, context) as client, self._gate.stream():
                if handler.request_streaming:
                    yield from handler.stream_stream(reader.each(messages, client), context)
                else:
                    request = reader.one(messages, client, context)
                    yield from handler.unary_stream(request, context)

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                many_answers, response_serializer=handler.response_serializer
            )
        return grpc.stream_unary_rpc_method_handler(
            one_answer, response_serializer=handler.response_serializer
        )

    @contextmanager
    def _around(self, method: str, context: grpc.ServicerContext) -> Iterator[str]:
        """Let a call in and give its client's name; tell the caller what went wrong inside."""
        call_id = _begin(context)
        cancellation.begin(context.is_active)
        if not method.startswith(self._prefix):  # reflection
            try:
                yield self._gate.admit_reader_of_descriptions(context)
            except Exception as error:  # noqa: BLE001 - told to the caller, and logged if ours
                _end(context, call_id, method, error)
            return
        name = method.rpartition("/")[2].lower()
        started_s = self._clock.stopwatch_s()
        self._metrics.queue_seconds.labels(place="thread").observe(started_s - _arrived_s.get())
        code = grpc.StatusCode.OK
        try:
            yield self._gate.admit(method, context)
        except Exception as error:  # noqa: BLE001 - told to the caller, and logged if ours
            code = _code_of(context, error)
            _end(context, call_id, name, error)
        except GeneratorExit:  # how gRPC drops a stream whose caller has gone
            code = grpc.StatusCode.CANCELLED
            raise
        finally:
            seconds = self._clock.stopwatch_s() - started_s
            self._metrics.request_seconds.labels(method=name).observe(seconds)
            self._metrics.requests.labels(method=name, code=code.name).inc()


class _Reader:
    """Reads the messages of one method's calls."""

    def __init__(self, gate: Gate, senders: SlowSenders, handler: grpc.RpcMethodHandler) -> None:
        self._gate = gate
        self._senders = senders
        self._parse = handler.request_deserializer

    def one(self, messages: Iterator[bytes], client: str, context: grpc.ServicerContext) -> Any:
        """Return the one message of a call; each request of a batch counts as a call."""
        with self._senders.waiting_for(context):
            data = next(messages, None)
        if data is None:
            raise InvalidRequestError("request", "expected one message, got none")
        message = self._parsed(data)
        more = len(getattr(message, "requests", ())) - 1
        if more > 0:
            self._gate.count(client, more)
        return message

    def each(self, messages: Iterator[bytes], client: str) -> Iterator[Any]:
        """Yield the messages of a stream; each counts as a call, the first with the stream."""
        for number, data in enumerate(messages):
            if number:
                self._gate.count(client)
            yield self._parsed(data)

    def _parsed(self, data: bytes) -> Any:
        try:
            return self._parse(data)
        except WireError as error:
            raise InvalidRequestError("request", "not a message of this method") from error


def _begin(context: grpc.ServicerContext) -> str:
    """Start a call: take its id from the caller's metadata or make one, and send it back."""
    given = ""
    for key, value in context.invocation_metadata() or ():
        if key == request_id.METADATA_KEY and isinstance(value, str):
            given = value
    call_id = request_id.begin(given)
    context.set_trailing_metadata(((request_id.METADATA_KEY, call_id),))
    return call_id


def _code_of(context: grpc.ServicerContext, error: Exception) -> grpc.StatusCode:
    """Return how a failed call is counted; a caller that is gone is told nothing any more."""
    if not context.is_active():
        late = context.time_remaining() == 0.0
        return grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
    return failed(error, "").code


def _end(context: grpc.ServicerContext, call_id: str, method: str, error: Exception) -> NoReturn:
    """End a call with the status of an error."""
    if not context.is_active():
        context.abort(grpc.StatusCode.CANCELLED, "the caller is gone")
    told = failed(error, call_id)
    status = rpc_status.to_status(status_of(told))
    if told.is_internal:
        extra = {"request": call_id, "method": method}
        _logger.error("call failed", extra=extra, exc_info=error)
    context.set_trailing_metadata(
        (
            *status.trailing_metadata,
            (request_id.METADATA_KEY, call_id),
            *retry_after_metadata(told),
        )
    )
    context.abort(status.code, status.details)
    raise AssertionError("abort raises")
