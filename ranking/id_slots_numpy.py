"""Slots of the id map without a compiler: the functions of `id_slots`, all ids abreast.

Every pass looks at one slot of each id that is not settled yet; few need more than two or three.
It is the oracle of the compiled functions in tests, and takes their place where numba is missing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranking.id_slots import FIBONACCI


def find(
    slots: NDArray[np.int64], shift: np.uint64, ids: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    """Write the row of each id into `rows`, where that is -1 and the id is here."""
    asked = np.flatnonzero((ids != 0) & (rows < 0))
    found, where = _located(slots, shift, ids[asked])
    rows[asked[found]] = slots[where[found], 1]


def place(
    slots: NDArray[np.int64], shift: np.uint64, ids: NDArray[np.int64], rows: NDArray[np.int64]
) -> int:
    """Put in distinct ids that are not there; return how many empty slots that took."""
    slot = _home(shift, ids)
    left = np.arange(len(ids))
    taken = 0
    while len(left):
        at = slot[left]
        was_empty = slots[at, 0] == 0
        free = was_empty | (slots[at, 1] < 0)
        # Several may want the same slot: all write, and who reads his own id has it.
        slots[at[free], 0] = ids[left[free]]
        won = free & (slots[at, 0] == ids[left])
        slots[at[won], 1] = rows[left[won]]
        taken += int((won & was_empty).sum())
        left = left[~won]
        slot[left] = (slot[left] + 1) & (len(slots) - 1)
    return taken


def remove(slots: NDArray[np.int64], shift: np.uint64, ids: NDArray[np.int64]) -> int:
    """Take out those of distinct ids that are there; return how many were."""
    found, where = _located(slots, shift, ids)
    where = where[found]
    gone = int((slots[where, 1] >= 0).sum())
    slots[where, 1] = -1
    return gone


def _located(
    slots: NDArray[np.int64], shift: np.uint64, ids: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which ids have a slot, and which slot."""
    slot = _home(shift, ids)
    found = np.zeros(len(ids), np.bool_)
    left = np.arange(len(ids))
    while len(left):
        held = slots[slot[left], 0]
        found[left] = held == ids[left]
        left = left[(held != 0) & ~found[left]]
        slot[left] = (slot[left] + 1) & (len(slots) - 1)
    return found, slot


def _home(shift: np.uint64, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    home: NDArray[np.int64] = ((ids.view(np.uint64) * FIBONACCI) >> shift).view(np.int64)
    return home
