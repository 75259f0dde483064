"""Slots of the id map, compiled: open addressing with linear probing (Knuth, TAOCP 3, 6.4).

A table of slots is an int64 array (S, 2), S a power of two: an id and its row, side by side so that
one cache line answers. Id 0 is an empty slot, row -1 one whose id was removed: it ends no search,
and the next id that comes by takes it. `id_slots_numpy` has the same functions without a compiler.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranking.compiled import compiled, prefetch

FIBONACCI = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / golden ratio (Knuth, TAOCP 3, 6.4): spreads ids that are not hashes, 1, 2, 3 and so on."""
_AHEAD = 16
"""Slots asked for before they are looked at: about as many lines as a core can wait for at once."""


@compiled
def find(
    slots: NDArray[np.int64], shift: np.uint64, ids: NDArray[np.int64], rows: NDArray[np.int64]
) -> None:
    """Write the row of each id into `rows`, where that is -1 and the id is here."""
    mask = len(slots) - 1
    for i in range(len(ids)):
        if i + _AHEAD < len(ids):
            prefetch(slots, 2 * np.int64((np.uint64(ids[i + _AHEAD]) * FIBONACCI) >> shift))
        wanted = ids[i]
        if wanted == 0 or rows[i] >= 0:
            continue
        slot = np.int64((np.uint64(wanted) * FIBONACCI) >> shift)
        while True:
            found = slots[slot, 0]
            if found == wanted:
                rows[i] = slots[slot, 1]
                break
            if found == 0:
                break
            slot = (slot + 1) & mask


@compiled
def place(
    slots: NDArray[np.int64], shift: np.uint64, ids: NDArray[np.int64], rows: NDArray[np.int64]
) -> int:
    """Put in distinct ids that are not there; return how many empty slots that took."""
    mask = len(slots) - 1
    taken = 0
    for i in range(len(ids)):
        if i + _AHEAD < len(ids):
            prefetch(slots, 2 * np.int64((np.uint64(ids[i + _AHEAD]) * FIBONACCI) >> shift))
        slot = np.int64((np.uint64(ids[i]) * FIBONACCI) >> shift)
        while slots[slot, 0] != 0 and slots[slot, 1] >= 0:
            slot = (slot + 1) & mask
        taken += slots[slot, 0] == 0
        slots[slot, 0] = ids[i]
        slots[slot, 1] = rows[i]
    return taken


@compiled
def remove(slots: NDArray[np.int64], shift: np.uint64, ids: NDArray[np.int64]) -> int:
    """Take out those of distinct ids that are there; return how many were."""
    mask = len(slots) - 1
    gone = 0
    for i in range(len(ids)):
        if i + _AHEAD < len(ids):
            prefetch(slots, 2 * np.int64((np.uint64(ids[i + _AHEAD]) * FIBONACCI) >> shift))
        wanted = ids[i]
        slot = np.int64((np.uint64(wanted) * FIBONACCI) >> shift)
        while slots[slot, 0] != 0:
            if slots[slot, 0] == wanted:
                gone += slots[slot, 1] >= 0
                slots[slot, 1] = -1
                break
            slot = (slot + 1) & mask
    return gone
