"""Freshness from outside: a marker is published, and asked for until answers show it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from domain.clock import Clock
from domain.errors import ConfigError, ServingError
from domain.events import Event, Feedback, ItemUpdate
from protos.headrace.v1 import (
    events_pb2,
    events_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
)
from stream.codec import event_to_message

ITEM, HISTORY, RANK, WEIGHTS = "new item", "own action", "own action, ranked", "weights"
MARKERS = (ITEM, HISTORY, RANK, WEIGHTS)
"""What is looked for: the new item in Retrieve; the item acted on gone from Retrieve; other scores
in Rank after the action; models that have seen the action's event time."""

_CALL_TIMEOUT_S = 10.0
_NUM_RANKED = 20
_ROUNDING = 1e-6
"""Far below what an action does to a score, above what the last bits of one may differ by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """How to look.

    Attributes:
        kind: of feedback; the schema must have a label head for it.
        poll_s: pause between two looks.
        timeout_s: longest wait for one marker.
    """

    kind: str = "click"
    poll_s: float = 0.001
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class _Round:
    """One marker on its way."""

    user_id: str
    bystander_id: str
    item_id: str
    acted_on: str
    ranked: tuple[str, ...]
    time_ms: int
    started_s: float


class FreshnessProbe:
    """Publishes markers through a server, and measures how long they take to show.

    A marker is a new item, or an action of a made-up user. A bystander is made up with her, who
    does nothing: without histories the two are alike, so as soon as the same models rank for them
    differently, the action counts. The items are withdrawn by `clean_up`; the users are forgotten
    by themselves. One after the other, because looking for one would delay the sight of others.
    """

    def __init__(self, channel: grpc.Channel, clock: Clock, config: ProbeConfig) -> None:
        self._events = events_pb2_grpc.EventsStub(channel)
        self._retrieval = retrieval_pb2_grpc.RetrievalStub(channel)
        self._ranking = ranking_pb2_grpc.RankingStub(channel)
        self._clock = clock
        self._config = config
        self._run = uuid.uuid4().hex[:8]
        self._item_ids: list[str] = []
        self._rounds = 0

    def measure(self, marker: str) -> float | None:
        """Publish a marker; return the seconds from its event until it shows, None: not in time.

        Raises:
            ServingError: a call failed, or the server has nothing to recommend.
        """
        with _calls_reported():
            one = self._begin()
            self._send([self._event(marker, one)])
            while self._elapsed_s(one) < self._config.timeout_s:
                if self._shows(marker, one):
                    return self._elapsed_s(one)
                self._clock.sleep(self._config.poll_s)
        return None

    def clean_up(self) -> None:
        """Withdraw the items that were made up.

        Raises:
            ServingError: they could not be withdrawn.
        """
        left = [
            ItemUpdate(
                event_id=f"{item_id}-gone",
                time_ms=self._clock.now_ms(),
                item_id=item_id,
                available=False,
            )
            for item_id in self._item_ids
        ]
        with _calls_reported():
            for first in range(0, len(left), 500):
                self._send(left[first : first + 500])
        self._item_ids.clear()

    def _begin(self) -> _Round:
        name = f"freshness-probe-{self._run}-{self._rounds}"
        self._rounds += 1
        found = self._retrieved(f"{name}-bystander", limit=_NUM_RANKED)
        if not found:
            raise ServingError("the server has nothing to recommend; publish items first")
        return _Round(
            user_id=f"{name}-user",
            bystander_id=f"{name}-bystander",
            item_id=f"{name}-item",
            acted_on=found[0],
            ranked=tuple(found),
            time_ms=self._clock.now_ms(),
            started_s=self._clock.stopwatch_s(),
        )

    def _event(self, marker: str, one: _Round) -> Event:
        if marker == ITEM:
            self._item_ids.append(one.item_id)
            return ItemUpdate(
                event_id=f"{one.item_id}-new", time_ms=one.time_ms, item_id=one.item_id
            )
        return Feedback(
            event_id=f"{one.user_id}-act",
            time_ms=one.time_ms,
            user_id=one.user_id,
            item_id=one.acted_on,
            kind=self._config.kind,
        )

    def _send(self, events: Sequence[Event]) -> None:
        messages = [event_to_message(event) for event in events]
        request = events_pb2.PublishRequest(events=messages)
        self._events.Publish(request, timeout=_CALL_TIMEOUT_S)

    def _elapsed_s(self, one: _Round) -> float:
        return self._clock.stopwatch_s() - one.started_s

    def _shows(self, marker: str, one: _Round) -> bool:
        if marker == ITEM:
            return bool(self._retrieved(one.bystander_id, allow=(one.item_id,)))
        if marker == HISTORY:
            return not self._retrieved(one.user_id, allow=(one.acted_on,), exclude_seen=True)
        if marker == RANK:
            return self._ranked_differently(one)
        request = ranking_pb2.RankRequest(user_id=one.bystander_id, item_ids=one.ranked[:1])
        info = self._ranking.Rank(request, timeout=_CALL_TIMEOUT_S).info
        return bool(self._clock.now_ms() - info.model_age_ms >= one.time_ms)

    def _ranked_differently(self, one: _Round) -> bool:
        """Return whether the user's scores are not the bystander's.

        Scores move with the clock, as counters fade: what the bystander's moved by, around the
        asking of the user's, is no trace of an action.
        """
        before, model = self._ranked(one.bystander_id, one.ranked)
        acted, second = self._ranked(one.user_id, one.ranked)
        after, third = self._ranked(one.bystander_id, one.ranked)
        moved = max(abs(after[item] - before[item]) for item in before)
        apart = max(abs(acted[item] - before[item]) for item in before)
        return model == second == third and apart > 3 * moved + _ROUNDING

    def _retrieved(
        self,
        user_id: str,
        *,
        limit: int = 1,
        allow: Sequence[str] = (),
        exclude_seen: bool = False,
    ) -> list[str]:
        request = retrieval_pb2.RetrieveRequest(user_id=user_id, limit=limit)
        if allow:
            request.filters.allow.values.extend(allow)
        request.filters.exclude_seen = exclude_seen
        answer = self._retrieval.Retrieve(request, timeout=_CALL_TIMEOUT_S)
        return [item.item_id for item in answer.items]

    def _ranked(self, user_id: str, item_ids: Sequence[str]) -> tuple[dict[str, float], str]:
        """Return the score of each item, and the models that gave them."""
        request = ranking_pb2.RankRequest(user_id=user_id, item_ids=item_ids)
        answer = self._ranking.Rank(request, timeout=_CALL_TIMEOUT_S)
        return {item.item_id: item.score for item in answer.items}, answer.info.snapshot_id


def open_channel(address: str, ca: Path | None, token_file: Path | None) -> grpc.Channel:
    """Return a channel to a server, over TLS when its authority is given.

    Raises:
        ConfigError: the address is none, or a token would travel in the open.
        OSError: a file cannot be read.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 65_536):
        raise ConfigError(f"--server: expected HOST:PORT, got {address!r}")
    if ca is None:
        if token_file is not None:
            raise ConfigError("--token-file: needs --ca, a token must not travel in the open")
        return grpc.insecure_channel(address)
    credentials = grpc.ssl_channel_credentials(ca.read_bytes())
    if token_file is not None:
        token = grpc.access_token_call_credentials(token_file.read_text("utf-8").strip())
        credentials = grpc.composite_channel_credentials(credentials, token)
    return grpc.secure_channel(address, credentials)


@contextmanager
def _calls_reported() -> Iterator[None]:
    """Turn a failed call into one line."""
    try:
        yield
    except grpc.RpcError as error:
        code, details = error.code(), error.details()
        raise ServingError(f"{code.name if code else 'UNKNOWN'}: {details}") from error
