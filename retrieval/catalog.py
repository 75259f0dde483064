"""Which items can be recommended: ids, rows, availability, and who leaves when there is no room."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from retrieval.arrays import grown
from retrieval.id_rows import UNKNOWN, IdRows

_EVICTED_SHARE = 100
"""One item in so many leaves when room is needed: every eviction costs a pass over all rows."""


class Catalog:
    """Items by row; an item taken out keeps its row and what was learned until room is needed."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self.ids = IdRows()
        self._available_N = np.zeros(0, dtype=np.bool_)
        self._last_seen_N = np.zeros(0, dtype=np.int64)

    @property
    def num_rows(self) -> int:
        """Return how many rows every table needs."""
        return self.ids.num_rows

    @property
    def num_available(self) -> int:
        """Return how many items can be recommended."""
        return int(self._available_N.sum())

    @property
    def available(self) -> NDArray[np.bool_]:
        """Return which rows can be recommended, bool (N,); a view."""
        return self._available_N[: self.num_rows]

    def make_room(self, coming: int, keep: Collection[str] = ()) -> NDArray[np.int64]:
        """Release rows until `coming` new items fit, and return them; the caller resets them.

        Those taken out go first, then those seen longest ago; ids in `keep` stay.
        """
        missing = len(self.ids) + coming - self._max_items
        if missing <= 0:
            return np.zeros(0, dtype=np.int64)
        order = np.lexsort((self._last_seen_N[: self.num_rows], self.available))
        kept = set(keep)
        candidates = [
            row for row in order.tolist() if self.ids.owns(row) and self.ids.id_of(row) not in kept
        ]
        leaving = candidates[: max(missing, self._max_items // _EVICTED_SHARE)]
        for row in leaving:
            self.ids.release(row)
        rows = np.array(leaving, dtype=np.int64)
        self._available_N[rows] = False
        return rows

    def admit(self, item_id: str, time_ms: int) -> int:
        """Return an item's row; a new item gets one and becomes available."""
        row = self.ids.row(item_id)
        if row == UNKNOWN:
            row = self.ids.admit(item_id)
            self._available_N = grown(self._available_N, self.num_rows, 0)
            self._last_seen_N = grown(self._last_seen_N, self.num_rows, 0)
            self._available_N[row] = True
            self._last_seen_N[row] = time_ms
        self._last_seen_N[row] = max(int(self._last_seen_N[row]), time_ms)
        return row

    def set_available(self, row: int, available: bool) -> None:
        """Take an item in or out."""
        self._available_N[row] = available

    def save(self) -> State:
        """Return ids, availability and when each item was last seen."""
        n = self.num_rows
        return {
            "ids": self.ids.save(),
            "available": self._available_N[:n].copy(),
            "last_seen_ms": self._last_seen_N[:n].copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self.ids.load(state["ids"])
        self._available_N = np.array(state["available"], dtype=np.bool_)
        self._last_seen_N = np.array(state["last_seen_ms"], dtype=np.int64)
