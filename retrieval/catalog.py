"""Which items can be recommended: ids, rows, availability, and who leaves when there is no room."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from domain.changed_rows import ChangedRows
from domain.errors import SnapshotError
from domain.state import State
from domain.state_reading import StateReader
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
        self._changed = ChangedRows()

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
        self._changed.mark(rows)
        return rows

    def admit(self, item_id: str, time_ms: int) -> int:
        """Return an item's row; a new item gets one and becomes available."""
        row = self.ids.row(item_id)
        if row == UNKNOWN:
            row = self.ids.admit(item_id)
            self._grow()
            self._available_N[row] = True
            self._changed.mark(row)
            self._last_seen_N[row] = time_ms
        self._last_seen_N[row] = max(int(self._last_seen_N[row]), time_ms)
        return row

    def set_available(self, row: int, available: bool) -> None:
        """Take an item in or out."""
        self._available_N[row] = available
        self._changed.mark(row)

    def take_delta(self) -> State:
        """Return whose each changed row is now, and whether it can be recommended."""
        rows = self._changed.take()
        return {
            "num_rows": self.num_rows,
            "rows": rows,
            "ids": self.ids.texts_of(rows),
            "available": self._available_N[rows],
        }

    def read_delta(self, reader: StateReader, least_rows: int) -> State:
        """Check what `take_delta` of another catalog returned.

        Raises:
            SnapshotError: it is something else, or has less than `least_rows` rows.
        """
        num_rows = reader.integer("num_rows", least_rows)
        rows = reader.rows("rows", num_rows)
        ids = reader.texts("ids", len(rows))
        named = [item_id for item_id in ids if item_id]
        if len(set(named)) < len(named):
            raise SnapshotError(f"{reader.path}.ids: expected distinct ids")
        available = reader.array("available", np.bool_, (len(rows),))
        return {"num_rows": num_rows, "rows": rows, "ids": ids, "available": available}

    def apply_delta(self, delta: State) -> None:
        """Have the same items in the same rows as the other catalog."""
        self.ids.assign(delta["rows"], delta["ids"], delta["num_rows"])
        self._grow()
        self._available_N[delta["rows"]] = delta["available"]
        self._changed.clear()

    def take_back(self, admitted: NDArray[np.int64], num_rows: int) -> None:
        """Take items out again that were the last to come, and have `num_rows` rows."""
        self.ids.assign(admitted, [""] * len(admitted), self.num_rows)
        self.ids.truncate(num_rows)
        self._available_N[admitted] = False
        self._last_seen_N[admitted] = 0

    def _grow(self) -> None:
        self._available_N = grown(self._available_N, self.num_rows, 0)
        self._last_seen_N = grown(self._last_seen_N, self.num_rows, 0)
        self._changed.grow(self.num_rows)

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
        self._changed = ChangedRows()
        self._changed.grow(self.num_rows)
