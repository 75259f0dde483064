"""Containers: what is history, what is target, and where the target's time stands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.sequences import batch, lengths
from tests.unit.evaluation.sequence_worlds import sequences

USERS = sequences([[7, 3, 9, 4, 5], [2, 8, 6]], candidates=9)


def test_test_example_asks_for_the_last_event_at_its_own_time() -> None:
    part = batch(USERS, np.array([0, 1]), cut=0, longest=10)
    assert part.item_BT1.tolist() == [[7, 3, 9, 4, 5], [2, 8, 6, 0, 0]]
    assert part.time_s_BT1.tolist() == [[100, 200, 300, 400, 500], [100, 200, 300, 0, 0]]
    assert part.length_B.tolist() == [4, 2]
    assert part.targets().tolist() == [5, 6]
    assert part.histories().tolist() == [[7, 3, 9, 4], [2, 8, 0, 0]]


def test_training_example_never_holds_the_last_event() -> None:
    part = batch(USERS, np.array([0, 1]), cut=1, longest=10)
    assert part.targets().tolist() == [4, 8]
    assert part.histories().tolist() == [[7, 3, 9], [2, 0, 0]]
    assert 500 not in part.time_s_BT1


def test_history_keeps_the_most_recent_events() -> None:
    part = batch(USERS, np.array([0, 1]), cut=0, longest=2)
    assert part.histories().tolist() == [[9, 4], [2, 8]]
    assert part.time_s_BT1.tolist() == [[300, 400, 500], [100, 200, 300]]


def test_who_has_too_few_events_for_a_cut_is_named_by_users_with() -> None:
    assert USERS.users_with(4).tolist() == [0]
    assert USERS.users_with(3).tolist() == [0, 1]
    with pytest.raises(AssertionError, match="before the target"):
        batch(USERS, np.array([1]), cut=2, longest=10)


@given(
    sizes=st.lists(st.integers(4, 9), min_size=1, max_size=5),
    cut=st.integers(0, 2),
    longest=st.integers(1, 8),
)
def test_containers_are_what_a_loop_over_lists_would_make(
    sizes: list[int], cut: int, longest: int
) -> None:
    random = np.random.default_rng(len(sizes))
    items = [random.integers(1, 30, size).tolist() for size in sizes]
    world = sequences(items, candidates=30)
    users = np.arange(len(sizes))
    part = batch(world, users, cut=cut, longest=longest, width=longest + 3)
    for user, own in enumerate(items):
        seen = own[: len(own) - cut]
        history, target = seen[:-1][-longest:], seen[-1]
        row = [*history, target, *([0] * (longest + 3 - len(history)))]
        assert part.item_BT1[user].tolist() == row
        assert part.length_B[user] == len(history)
    assert part.length_B.tolist() == lengths(world, users, cut=cut, longest=longest).tolist()


def test_fingerprint_knows_every_event() -> None:
    other = sequences([[7, 3, 9, 4, 5], [2, 8, 1]], candidates=9)
    later = sequences([[7, 3, 9, 4, 5], [2, 8, 6]], [[1, 2, 3, 4, 5], [1, 2, 3]], candidates=9)
    names = {USERS.fingerprint, other.fingerprint, later.fingerprint}
    assert len(names) == 3
