"""headrace.v1.Events over gRPC."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from functools import partial

import grpc

from domain.clock import Clock
from domain.events import Event
from protos.headrace.v1 import events_pb2, events_pb2_grpc
from serving import convert, convert_answers, request_id
from serving.failures import failed
from serving.interceptors import remaining_s
from serving.publish import Publisher
from serving.publish_stream import Acknowledged, PublishStream

_logger = logging.getLogger(__name__)


class EventsServicer(events_pb2_grpc.EventsServicer):
    """Takes events in."""

    def __init__(self, publisher: Publisher, clock: Clock, draining: threading.Event) -> None:
        self._publisher = publisher
        self._clock = clock
        self._draining = draining

    def Publish(  # noqa: N802 - the name is the service's
        self, request: events_pb2.PublishRequest, context: grpc.ServicerContext
    ) -> events_pb2.PublishResponse:
        """Store events durably, all or none."""
        events = self._events(request)
        self._publisher.publish(events, remaining_s(context))
        return events_pb2.PublishResponse(event_ids=[event.event_id for event in events])

    def PublishStream(  # noqa: N802 - the name is the service's
        self,
        requests: Iterator[events_pb2.PublishStreamRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[events_pb2.PublishStreamResponse]:
        """Store events as they come and acknowledge each request when the log has it."""
        over = threading.Event()
        if not context.add_callback(over.set):
            return
        asks = ((one.number, partial(self._events, one)) for one in requests)
        stream = PublishStream(self._publisher, over, self._draining)
        for acknowledged in stream.acknowledge(asks):
            yield _response(acknowledged)

    def _events(self, request: convert.EventsMessage) -> Sequence[Event]:
        return convert.events_from_request(
            request, self._clock.now_ms(), self._publisher.max_events
        )


def _response(acknowledged: Acknowledged) -> events_pb2.PublishStreamResponse:
    response = events_pb2.PublishStreamResponse(
        number=acknowledged.number, event_ids=acknowledged.event_ids
    )
    if acknowledged.error is not None:
        told = failed(acknowledged.error, request_id.current())
        if told.is_internal:
            _logger.error(
                "request of a stream failed",
                exc_info=acknowledged.error,
                extra={"request": request_id.current(), "number": acknowledged.number},
            )
        response.failure.CopyFrom(convert_answers.failure_message(told))
    return response
