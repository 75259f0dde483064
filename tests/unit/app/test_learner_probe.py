"""What is read off the learners: vectors against what they were, and when it is time to look."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.learner_probe import EVERY_MS, LearnerReadings, moved_share, nearest
from domain.features import FeatureSchema, Head
from domain.state import state_hash

HOUR = 60 * 60 * 1000
SCHEMA = FeatureSchema(heads=(Head(name="click", feedback_kind="click"),))


class Items:
    """Items on a circle, or wherever a test puts them."""

    def __init__(self, count: int) -> None:
        angle_K = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
        self.vectors = {
            f"i{k}": np.array([np.cos(a), np.sin(a)], np.float32) for k, a in enumerate(angle_K)
        }

    def sample_items(self, limit: int) -> tuple[str, ...]:
        return tuple(self.vectors)[:limit]

    def item_vectors(self, item_ids: tuple[str, ...]) -> np.ndarray:
        unknown = np.full(2, np.nan, np.float32)
        return np.stack([self.vectors.get(one, unknown) for one in item_ids])


def readings(items: Items, weight: float = 0.0, empty: float = 0.25) -> LearnerReadings:
    memory = SimpleNamespace(lambdas=np.array([weight], np.float32), empty_share=empty)
    learners: Any = SimpleNamespace(retrieval=items, memory=memory)
    return LearnerReadings(SCHEMA, learners)


def test_vectors_that_grow_by_a_tenth_in_half_an_hour_move_by_a_fifth_an_hour() -> None:
    items = Items(40)
    one = readings(items, weight=0.5)
    first = one.read(HOUR)
    assert first == {"memory/empty": 0.25, "memory/lambda/click": 0.5}
    for vector in items.vectors.values():
        vector *= np.float32(1.1)
    found = one.read(HOUR + HOUR // 2)
    assert found["vectors/norm"] == pytest.approx(1.1)
    assert found["vectors/movement"] == pytest.approx(0.2, rel=1e-5)
    assert found["vectors/neighbours"] == 0.0, "directions are as they were"


def test_nothing_is_read_again_before_it_is_time() -> None:
    one = readings(Items(40))
    assert one.read(HOUR)
    assert one.read(HOUR + EVERY_MS - 1) == {}
    assert one.read(HOUR + EVERY_MS)


def test_items_that_left_are_not_compared_and_without_items_nothing_is_said_of_vectors() -> None:
    items = Items(40)
    one = readings(items)
    one.read(HOUR)
    del items.vectors["i7"]
    assert one.read(2 * HOUR)["vectors/movement"] == 0.0
    empty = readings(Items(0))
    empty._learners.retrieval.item_vectors = lambda ids: np.zeros((len(ids), 2), np.float32)
    empty.read(HOUR)
    assert set(empty.read(2 * HOUR)) == {"memory/empty", "memory/lambda/click"}


def test_half_of_the_neighbours_moved_when_every_second_item_changed_sides() -> None:
    before_KD = np.array([[1.0, 0.01 * k] for k in range(4)] + [[-1.0, 0.01 * k] for k in range(4)])
    now_KD = before_KD.copy()
    was_KK = nearest(before_KD, 3, every=1)
    assert moved_share(was_KK, nearest(now_KD, 3, every=1)) == 0.0
    now_KD[[0, 1, 4, 5], 0] *= -1.0
    # each item keeps one of three: the one that moved, or stayed, with it
    assert moved_share(was_KK, nearest(now_KD, 3, every=1)) == pytest.approx(2 / 3)
    assert moved_share(nearest(before_KD, 3), nearest(now_KD, 3)) == pytest.approx(2 / 3)


def test_neighbours_are_those_that_looking_at_all_pairs_finds() -> None:
    rng = np.random.default_rng(5)
    vector_KD = rng.standard_normal((60, 8)).astype(np.float32)
    cosine = [
        [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for b in vector_KD] for a in vector_KD
    ]
    for every in (1, 2):
        found = nearest(vector_KD, 10, every)
        for row, item in enumerate(range(0, 60, every)):
            others = sorted(set(range(60)) - {item}, key=lambda one: -cosine[item][one])
            assert np.flatnonzero(found[row]).tolist() == sorted(others[:10])


def test_looks_share_their_work_and_say_what_looks_apart_would() -> None:
    """The same values, whether vectors and neighbours of the last look are still at hand or not."""
    rng = np.random.default_rng(6)
    items = Items(40)
    one = readings(items)
    for look in range(1, 9):
        apart = readings(items)
        apart.load(one.save())
        if look == 4:
            del items.vectors["i7"]
        if look == 6:
            items.vectors["new"] = np.array([0.5, 0.5], np.float32)
        for vector in items.vectors.values():
            vector += rng.normal(0.0, 0.2, 2).astype(np.float32)
        found = one.read(look * HOUR)
        assert found == apart.read(look * HOUR)
        assert look == 1 or found["vectors/movement"] > 0.0 < found["vectors/neighbours"]


def test_restart_between_two_looks_changes_nothing() -> None:
    items = Items(40)
    one, again = readings(items), readings(items)
    one.read(HOUR)
    again.load(one.save())
    assert state_hash(again.save()) == state_hash(one.save())
    for vector in items.vectors.values():
        vector += np.float32(0.3)
    assert again.read(2 * HOUR) == one.read(2 * HOUR)
