"""How fresh answers are, seen from outside: the time from an action to a changed answer."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import grpc

from domain.clock import Clock
from domain.events import Feedback
from protos.headrace.v1 import (
    events_pb2,
    events_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
)
from stream.codec import event_to_message

_GIVE_UP_S = 5.0
_POLL_S = 0.01
_CALL_TIMEOUT_S = 5.0


class FreshnessProbe:
    """Acts on the first item of an answer and asks again until it is no longer recommended."""

    def __init__(self, address: str, clock: Clock, kind: str = "click") -> None:
        channel = grpc.insecure_channel(address)
        self._recommender = recommender_pb2_grpc.RecommenderStub(channel)
        self._events = events_pb2_grpc.EventsStub(channel)
        self._clock = clock
        self._kind = kind

    def seconds(self, user_ids: Sequence[str]) -> list[float | None]:
        """Return, for each user, seconds from Publish to the changed answer; None: not in 5 s.

        Raises:
            grpc.RpcError: a call failed.
        """
        return [self._seconds(user_id) for user_id in user_ids]

    def _seconds(self, user_id: str) -> float | None:
        answer = self._ask(user_id)
        if not answer.items:
            return None
        target = answer.items[0].item_id
        started_s = self._clock.stopwatch_s()
        feedback = Feedback(
            event_id=f"probe-{uuid.uuid4()}",
            time_ms=self._clock.now_ms(),
            user_id=user_id,
            item_id=target,
            kind=self._kind,
            impression_id=answer.impression_id or None,
        )
        request = events_pb2.PublishRequest(events=[event_to_message(feedback)])
        self._events.Publish(request, timeout=_CALL_TIMEOUT_S)
        while self._clock.stopwatch_s() - started_s < _GIVE_UP_S:
            if all(item.item_id != target for item in self._ask(user_id).items):
                return self._clock.stopwatch_s() - started_s
            self._clock.sleep(_POLL_S)
        return None

    def _ask(self, user_id: str) -> recommender_pb2.RecommendResponse:
        request = recommender_pb2.RecommendRequest(user_id=user_id, limit=10)
        response: recommender_pb2.RecommendResponse = self._recommender.Recommend(
            request, timeout=_CALL_TIMEOUT_S
        )
        return response
