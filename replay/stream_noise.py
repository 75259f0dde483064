"""What goes wrong on the way into a log: events twice, late, in disorder, and no events at all."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from domain.events import Event, Feedback, Impression, event_key
from replay.scenarios import Noise
from stream.codec import encode

Mark = Literal["clean", "late", "duplicate", "malformed"]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One record on its way into the log, and the truth about it.

    Attributes:
        arrival_ms: when it is written; never before the event happened.
        key: partition key.
        event: None when the record is malformed.
        raw: bytes of a malformed record.
        mark: what was done to it; a duplicate of a late event is a duplicate.
    """

    arrival_ms: int
    key: str
    event: Event | None
    raw: bytes = b""
    mark: Mark = "clean"


def with_noise(
    events: Iterable[Event], noise: Noise, rng: np.random.Generator
) -> Iterator[Arrival]:
    """Return `events` as they arrive, in order of arrival.

    Every event arrives at least once. What arrives at one moment keeps the order it was made in.

    Args:
        events: events in order of event time.
        noise: what goes wrong, and how often.
        rng: drawn from only where something can go wrong.
    """
    waiting: list[tuple[int, int, Arrival]] = []
    made = 0
    for event in events:
        for arrival in _arrivals(event, noise, rng):
            heapq.heappush(waiting, (arrival.arrival_ms, made, arrival))
            made += 1
        # later events arrive no earlier than they happen, so nothing can overtake these
        while waiting and waiting[0][0] <= event.time_ms:
            yield heapq.heappop(waiting)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def _arrivals(event: Event, noise: Noise, rng: np.random.Generator) -> Iterator[Arrival]:
    key = event_key(event)
    arrival_ms = event.time_ms
    if _happens(rng, noise.late_rate) and isinstance(event, Impression | Feedback):
        arrival_ms += noise.late_by_ms + int(rng.integers(noise.late_by_ms + 1))
        yield Arrival(arrival_ms, key, event, mark="late")
    else:
        if noise.disorder_ms:
            arrival_ms += int(rng.integers(noise.disorder_ms + 1))
        yield Arrival(arrival_ms, key, event)
    if _happens(rng, noise.duplicate_rate):
        again_ms = arrival_ms + 1 + int(rng.integers(noise.duplicate_within_ms))
        yield Arrival(again_ms, key, event, mark="duplicate")
    if _happens(rng, noise.malformed_rate):
        make = _MALFORMED[int(rng.integers(len(_MALFORMED)))]
        yield Arrival(arrival_ms, key, None, make(event, rng), "malformed")


def _happens(rng: np.random.Generator, rate: float) -> bool:
    return rate > 0.0 and bool(rng.random() < rate)


def _nothing(event: Event, rng: np.random.Generator) -> bytes:
    return b""


def _garbage(event: Event, rng: np.random.Generator) -> bytes:
    # no Protobuf message begins with this byte: it would be the tag of field 31, wire type 7
    return b"\xff" + rng.bytes(16)


def _cut_short(event: Event, rng: np.random.Generator) -> bytes:
    return encode(event)[:-1]


def _foreign(event: Event, rng: np.random.Generator) -> bytes:
    return b'{"level":"info","message":"this belongs into another topic"}'


def _contradiction(event: Event, rng: np.random.Generator) -> bytes:
    return (
        b'{"type":"feedback","event_id":"no-item","time_ms":1704067200000,"user_id":"u0",'
        b'"item_id":"","kind":"click"}'
    )


_Malformed: TypeAlias = Callable[[Event, np.random.Generator], bytes]
_MALFORMED: tuple[_Malformed, ...] = (_nothing, _garbage, _cut_short, _foreign, _contradiction)
