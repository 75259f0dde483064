from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import ConfigError
from domain.state import state_hash
from stream.deduplicator import Deduplicator, DeduplicatorConfig, hash_id


def test_repeated_id_is_seen_when_within_the_horizon() -> None:
    deduplicator = Deduplicator(DeduplicatorConfig(horizon_ms=100))
    assert [deduplicator.seen("a", 0), deduplicator.seen("b", 100), deduplicator.seen("a", 0)] == [
        False,
        False,
        True,
    ]


def test_id_is_forgotten_when_past_the_horizon() -> None:
    deduplicator = Deduplicator(DeduplicatorConfig(horizon_ms=100))
    deduplicator.seen("a", 0)
    deduplicator.seen("b", 101)
    assert len(deduplicator) == 1
    assert deduplicator.seen("a", 0) is False


def test_oldest_id_is_forgotten_first_when_there_are_too_many() -> None:
    deduplicator = Deduplicator(DeduplicatorConfig(max_ids=2))
    for event_id in "abc":
        deduplicator.seen(event_id, 0)
    assert len(deduplicator) == 2
    assert deduplicator.seen("b", 0) is True
    assert deduplicator.seen("a", 0) is False


def test_far_future_event_forgets_two_ids_at_most() -> None:
    deduplicator = Deduplicator(DeduplicatorConfig(horizon_ms=100))
    for index in range(50):
        deduplicator.seen(f"e{index}", index)
    deduplicator.seen("broken", 10**15)
    assert len(deduplicator) == 49
    assert all(deduplicator.seen(f"e{index}", index) for index in range(2, 50))


def test_memory_stays_bounded_when_the_stream_goes_on() -> None:
    deduplicator = Deduplicator(DeduplicatorConfig(horizon_ms=100, max_ids=1_000))
    for index in range(5_000):
        deduplicator.seen(f"e{index}", index)
    assert len(deduplicator) == 101


@given(
    numbers=st.lists(st.integers(0, 15), max_size=60),
    cut=st.integers(0, 60),
)
def test_deduplicator_agrees_with_a_set_and_survives_a_restart(
    numbers: list[int], cut: int
) -> None:
    deduplicator = Deduplicator(DeduplicatorConfig(horizon_ms=100))
    known: set[int] = set()
    for at, number in enumerate(numbers):
        if at == cut:
            state = deduplicator.save()
            deduplicator = Deduplicator(DeduplicatorConfig(horizon_ms=100))
            deduplicator.load(state)
            assert state_hash(deduplicator.save()) == state_hash(state)
        assert deduplicator.seen(f"e{number}", number) == (number in known)
        known.add(number)


def test_hash_is_the_same_in_every_process() -> None:
    assert hash_id("event-1") == 2123818840965202205
    assert hash_id("\ud800") != hash_id("\ud801")  # not valid UTF-8, yet an id


@pytest.mark.parametrize("name", ["horizon_ms", "max_ids"])
def test_config_names_the_key_when_not_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^deduplicator\.{name} must be positive, got 0"):
        DeduplicatorConfig(**{name: 0})
