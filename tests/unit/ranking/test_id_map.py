"""The id map grows and forgets a little at a time, compiled or not."""

from __future__ import annotations

import numpy as np
import pytest

from ranking.id_map import IdMap

BOTH = pytest.mark.parametrize("compiles", [True, False], ids=["compiled", "numpy"])


def fresh_ids(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(1, 4 * num))[:num]


@BOTH
def test_map_keeps_every_id_while_it_moves_to_a_larger_table(compiles: bool) -> None:
    ids, each = fresh_ids(5_000), IdMap(compiles=compiles)
    moving = 0
    for start in range(0, 5_000, 50):
        each.insert(ids[start : start + 50], np.arange(start, start + 50))
        moving += each.num_slots & (each.num_slots - 1) != 0
        assert each.find(ids[: start + 50]).tolist() == list(range(start + 50))
        assert (each.find(ids[start + 50 :]) == -1).all()
    assert moving > 3, "two tables at once are no power of two"


def test_insertion_never_moves_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    each, moved = IdMap(), list[int]()
    real = IdMap._move

    def counting(self: IdMap, num_slots: int) -> None:
        before = self._moved if self._old is not None else 0
        left = len(self._old.slots) - before if self._old is not None else 0
        moved.append(min(num_slots, left))
        real(self, num_slots)

    monkeypatch.setattr(IdMap, "_move", counting)
    ids = fresh_ids(60_000)
    for start in range(0, len(ids), 10):
        each.insert(ids[start : start + 10], np.arange(start, start + 10))
    assert max(moved) <= 8 * 10 + 512, "not all of a table that was still full"


@BOTH
def test_removed_ids_leave_room_for_others(compiles: bool) -> None:
    each = IdMap(compiles=compiles)
    ids = fresh_ids(40_000)
    each.insert(ids[:1_000], np.arange(1_000))
    for start in range(1_000, 40_000, 100):
        each.remove(ids[start - 1_000 : start - 900])
        each.insert(ids[start : start + 100], np.arange(start, start + 100))
        assert len(each) == 1_000
    assert each.num_slots <= 3 * 4_096, "as many slots as for a thousand ids, twice while it moves"
    assert (each.find(ids[:39_000]) == -1).all()
    assert each.find(ids[39_000:]).tolist() == list(range(39_000, 40_000))


@BOTH
def test_id_comes_back_after_it_was_removed(compiles: bool) -> None:
    each = IdMap(compiles=compiles)
    ids = np.arange(1, 9)
    each.insert(ids, ids)
    each.remove(np.array([3, 5, 77]))
    assert each.find(np.array([3, 4, 5, 77])).tolist() == [-1, 4, -1, -1]
    each.insert(np.array([5]), np.array([50]))
    assert each.find(np.array([3, 4, 5])).tolist() == [-1, 4, 50]
    assert len(each) == 7


@BOTH
def test_batch_larger_than_the_table_goes_in_at_once(compiles: bool) -> None:
    each, ids = IdMap(compiles=compiles), fresh_ids(20_000)
    each.insert(ids[:10], np.arange(10))
    each.insert(ids[10:], np.arange(10, 20_000))
    assert np.array_equal(each.find(ids), np.arange(20_000))
