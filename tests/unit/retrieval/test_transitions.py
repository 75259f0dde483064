"""Decayed transitions: trust in few, bounded successors, forgetting."""

from __future__ import annotations

import numpy as np

from retrieval.transitions import DecayedTransitions

HOUR_MS = 3_600_000


def transitions_of(*steps: tuple[int, int, int], max_successors: int = 4) -> DecayedTransitions:
    """Return the counts of (origin, successor, time) with a half-life of one hour."""
    transitions = DecayedTransitions((HOUR_MS,), max_successors=max_successors, smoothing=0.3)
    transitions.grow(10)
    for origin, successor, time_ms in steps:
        transitions.learn(np.array([origin]), np.array([successor]), np.array([time_ms]))
    return transitions


def shares(transitions: DecayedTransitions, origin: int, time_ms: int) -> dict[int, float]:
    found = transitions.successors(np.array([origin]), np.array([time_ms]))
    return dict(zip(found.rows.tolist(), found.shares[0].tolist(), strict=True))


def test_successors_are_empty_for_an_item_nothing_followed() -> None:
    assert shares(transitions_of((1, 2, 0)), 3, 0) == {}


def test_one_transition_of_now_is_trusted_by_ten_thirteenths() -> None:
    np.testing.assert_allclose(shares(transitions_of((1, 2, 0)), 1, 0)[2], 1 / 1.3)


def test_one_transition_is_trusted_less_as_time_goes_by() -> None:
    np.testing.assert_allclose(shares(transitions_of((1, 2, 0)), 1, HOUR_MS)[2], 0.5 / 0.8)


def test_newest_transition_weighs_most() -> None:
    found = shares(transitions_of((1, 2, 0), (1, 3, HOUR_MS)), 1, HOUR_MS)
    np.testing.assert_allclose([found[2], found[3]], [0.5 / 1.8, 1 / 1.8])


def test_full_list_replaces_what_weighs_least_and_keeps_the_total() -> None:
    transitions = transitions_of((1, 2, 0), (1, 3, HOUR_MS), (1, 4, 2 * HOUR_MS), max_successors=2)
    found = shares(transitions, 1, 2 * HOUR_MS)
    assert set(found) == {3, 4}
    np.testing.assert_allclose(found[4], 1 / (1.75 + 0.3))


def test_memory_does_not_grow_with_successors() -> None:
    transitions = transitions_of(*((1, successor % 10, successor) for successor in range(100)))
    assert len(shares(transitions, 1, 100)) == 4
    assert transitions.save()["next"].shape == (10, 4)


def test_reset_forgets_a_row_as_origin_and_as_successor() -> None:
    transitions = transitions_of((1, 2, 0), (2, 3, 0), (1, 3, 0))
    transitions.reset(np.array([2]))
    assert set(shares(transitions, 1, 0)) == {3}
    assert shares(transitions, 2, 0) == {}


def test_unknown_rows_have_no_successors() -> None:
    found = transitions_of((1, 2, 0)).successors(np.array([-1, 1, -1]), np.zeros(3, np.int64))
    assert found.query.tolist() == [1]


def test_asking_changes_nothing_after_a_long_silence() -> None:
    transitions = transitions_of((1, 2, 0))
    assert shares(transitions, 1, 10**9 * HOUR_MS)[2] < 1e-9
    np.testing.assert_allclose(shares(transitions, 1, 0)[2], 1 / 1.3)
