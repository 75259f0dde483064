"""Noise does what it says, marks what it did, and loses nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from domain.errors import DecodeError
from domain.events import Event, Feedback, ItemUpdate
from replay.scenarios import Noise
from replay.stream_noise import _MALFORMED, Arrival, with_noise
from stream.codec import decode


def clicks(count: int) -> list[Event]:
    return [
        Feedback(event_id=f"e{k}", time_ms=1_000 * (k + 1), user_id="u", item_id="i", kind="click")
        for k in range(count)
    ]


def arrivals(events: list[Event], noise: Noise) -> list[Arrival]:
    return list(with_noise(events, noise, np.random.default_rng(5)))


def test_with_noise_changes_nothing_when_nothing_goes_wrong() -> None:
    events = clicks(20)
    out = arrivals(events, Noise())
    assert [arrival.event for arrival in out] == events
    assert all(a.mark == "clean" and a.event and a.arrival_ms == a.event.time_ms for a in out)
    assert {arrival.key for arrival in out} == {"u"}


def test_with_noise_writes_late_events_late_and_keeps_their_event_time() -> None:
    noise = Noise(late_rate=1.0, late_by_ms=500_000)
    for arrival in arrivals(clicks(50), noise):
        assert arrival.event is not None
        assert arrival.mark == "late"
        assert 500_000 <= arrival.arrival_ms - arrival.event.time_ms <= 1_000_000


def test_with_noise_is_never_late_with_the_catalog() -> None:
    update = ItemUpdate(event_id="e", time_ms=5, item_id="i")
    (arrival,) = arrivals([update], Noise(late_rate=1.0))
    assert arrival == Arrival(5, "i", update)


def test_with_noise_writes_duplicates_after_the_original() -> None:
    out = arrivals(clicks(50), Noise(duplicate_rate=1.0, duplicate_within_ms=3_000))
    first: dict[str, int] = {}
    for arrival in out:
        assert arrival.event is not None
        if arrival.mark == "clean":
            first[arrival.event.event_id] = arrival.arrival_ms
        else:
            assert arrival.mark == "duplicate"
            assert 1 <= arrival.arrival_ms - first[arrival.event.event_id] <= 3_000
    assert Counter(arrival.mark for arrival in out) == {"clean": 50, "duplicate": 50}


def test_with_noise_mixes_the_order_up_by_no_more_than_it_may() -> None:
    out = arrivals(clicks(200), Noise(disorder_ms=5_000))
    times = [arrival.event.time_ms for arrival in out if arrival.event is not None]
    assert times != sorted(times)
    assert all(0 <= a.arrival_ms - a.event.time_ms <= 5_000 for a in out if a.event is not None)


def test_with_noise_hits_about_as_many_events_as_asked() -> None:
    noise = Noise(duplicate_rate=0.1, late_rate=0.05, malformed_rate=0.02)
    marks = Counter(arrival.mark for arrival in arrivals(clicks(10_000), noise))
    assert marks["duplicate"] == pytest.approx(1_000, rel=0.15)
    assert marks["late"] == pytest.approx(500, rel=0.2)
    assert marks["malformed"] == pytest.approx(200, rel=0.3)


@pytest.mark.parametrize("make", _MALFORMED, ids=lambda make: make.__name__)
def test_malformed_records_are_no_events(make: object) -> None:
    rng = np.random.default_rng(0)
    for event in clicks(20):
        with pytest.raises(DecodeError):
            decode(make(event, rng))  # type: ignore[operator]


def test_malformed_records_carry_bytes_and_no_event() -> None:
    out = arrivals(clicks(30), Noise(malformed_rate=1.0))
    malformed = [arrival for arrival in out if arrival.mark == "malformed"]
    assert len(malformed) == 30
    assert all(arrival.event is None and arrival.key == "u" for arrival in malformed)
    assert len({arrival.raw for arrival in malformed}) > 3
