"""headrace.v1.Events over gRPC."""

from __future__ import annotations

import grpc

from domain.clock import Clock
from protos.headrace.v1 import events_pb2, events_pb2_grpc
from serving import convert
from serving.interceptors import remaining_s
from serving.publish import Publisher


class EventsServicer(events_pb2_grpc.EventsServicer):
    """Takes events in."""

    def __init__(self, publisher: Publisher, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock

    def Publish(  # noqa: N802 - the name is the service's
        self, request: events_pb2.PublishRequest, context: grpc.ServicerContext
    ) -> events_pb2.PublishResponse:
        """Store events durably, all or none."""
        events = convert.events_from_request(
            request, self._clock.now_ms(), self._publisher.max_events
        )
        self._publisher.publish(events, remaining_s(context))
        return events_pb2.PublishResponse(event_ids=[event.event_id for event in events])
