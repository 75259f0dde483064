"""Which row belongs to which id: a growing map without collision; released rows are used again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from domain.state import State

UNKNOWN = -1
"""Row of an id that has none."""


class IdRows:
    """Maps string ids to rows 0, 1, 2, ...; every tensor of the package is indexed by such rows.

    >>> ids = IdRows()
    >>> ids.admit("a"), ids.admit("b"), ids.admit("a"), ids.row("c")
    (0, 1, 0, -1)
    """

    def __init__(self) -> None:
        self._row_of: dict[str, int] = {}
        self._id_of: list[str | None] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._row_of

    @property
    def num_rows(self) -> int:
        """Return how many rows were ever given out, released ones included."""
        return len(self._id_of)

    def row(self, item_id: str) -> int:
        """Return the row of an id, UNKNOWN when it has none."""
        return self._row_of.get(item_id, UNKNOWN)

    def rows(self, item_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of many ids, UNKNOWN where there is none."""
        get = self._row_of.get
        return np.array([get(item_id, UNKNOWN) for item_id in item_ids], dtype=np.int64)

    def known(self, item_ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of those ids that have one, ascending and without repeats."""
        rows: NDArray[np.int64] = np.unique(self.rows(item_ids))
        known: NDArray[np.int64] = rows[rows != UNKNOWN]
        return known

    def owns(self, row: int) -> bool:
        """Return whether a row belongs to an id now."""
        return self._id_of[row] is not None

    def id_of(self, row: int) -> str:
        """Return the id that owns a row."""
        item_id = self._id_of[row]
        assert item_id is not None, f"row {row} belongs to no id"
        return item_id

    def ids_of(self, rows: Sequence[int] | NDArray[np.int64]) -> tuple[str, ...]:
        """Return the ids that own many rows."""
        return tuple(self.id_of(int(row)) for row in rows)

    def admit(self, item_id: str) -> int:
        """Return the row of an id, giving it one when it has none."""
        row = self._row_of.get(item_id, UNKNOWN)
        if row != UNKNOWN:
            return row
        if self._free:
            row = self._free.pop()
            self._id_of[row] = item_id
        else:
            row = len(self._id_of)
            self._id_of.append(item_id)
        self._row_of[item_id] = row
        return row

    def release(self, row: int) -> None:
        """Take a row from its id; the next new id gets it. Whoever keeps rows must reset it."""
        del self._row_of[self.id_of(row)]
        self._id_of[row] = None
        self._free.append(row)

    def texts_of(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids that own rows, "" where none does."""
        return [self._id_of[row] or "" for row in rows.tolist()]

    def assign(self, rows: NDArray[np.int64], item_ids: Sequence[str], num_rows: int) -> None:
        """Have `num_rows` rows, of which some belong to these ids now; "" is none."""
        self._id_of.extend([None] * (num_rows - len(self._id_of)))
        chosen = rows.tolist()
        for row in chosen:
            old = self._id_of[row]
            if old is not None:
                del self._row_of[old]
        for row, item_id in zip(chosen, item_ids, strict=True):
            self._id_of[row] = item_id or None
            if item_id:
                self._row_of[item_id] = row
        known = set(self._free).union(row for row in chosen if self._id_of[row] is None)
        self._free = sorted(row for row in known if self._id_of[row] is None)

    def truncate(self, num_rows: int) -> None:
        """Take the rows from `num_rows` on away."""
        for item_id in self._id_of[num_rows:]:
            if item_id is not None:
                del self._row_of[item_id]
        del self._id_of[num_rows:]
        self._free = [row for row in self._free if row < num_rows]

    def save(self) -> State:
        """Return ids in row order (released rows as "") and the released rows."""
        ids = ["" if item_id is None else item_id for item_id in self._id_of]
        return {"ids": ids, "free": list(self._free)}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._free = [int(row) for row in state["free"]]
        free = set(self._free)
        self._id_of = [None if row in free else str(i) for row, i in enumerate(state["ids"])]
        self._row_of = {
            item_id: row for row, item_id in enumerate(self._id_of) if item_id is not None
        }
