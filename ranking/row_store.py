"""Rows for ids: columns of numbers that grow, forget the oldest and reuse what they freed.

The embedding table and the label counters are both such stores. Time is event time throughout:
how old a row is never depends on when it was processed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.changed_rows import ChangedRows
from domain.errors import ConfigError, SnapshotError
from domain.state import State
from domain.state_reading import StateReader
from ranking.id_map import ABSENT, IdMap

Shape = tuple[int, ...]

_SPARE = 0.05
"""Part of a full store that is freed at once: finding the oldest rows costs a pass over all of
them, so a store that lives at its limit must not do it for every new id."""


@dataclass(frozen=True, slots=True)
class Inserted:
    """What an insertion did: rows of the ids given, and the ids that had to leave for them."""

    rows: NDArray[np.int64]
    evicted_ids: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class RowsDelta:
    """What changed in a store: rows that were used, with some of their columns, and ids that left.

    Attributes:
        ids: N distinct ids whose rows were used; all ids there are when `whole`.
        removed: ids that lost their row; one that is among `ids` too lost it first.
        whole: more ids left than are remembered, so what is not among `ids` has left.
        columns: values of the N ids by column.
    """

    ids: NDArray[np.int64]
    removed: NDArray[np.int64]
    whole: bool
    columns: Mapping[str, NDArray[Any]]


class RowStore:
    """One row per id in every column; new and recycled rows are zero.

    Columns are plain arrays of shape (max_rows, *shape) that the owner reads and writes by row
    number. Their address space is reserved at once, and the system gives them memory as rows are
    first written: the store grows without copying a row. `load` replaces them.

    What was touched, and which ids left, is remembered until `take_delta`: a byte per row, and as
    many ids as there may be rows.
    """

    def __init__(
        self, columns: Mapping[str, tuple[type, Shape]], max_rows: int, setting: str
    ) -> None:
        """Reserve room for `max_rows` rows, a number that the user chose by a setting.

        Raises:
            ConfigError: the machine has no room for so many.
        """
        self._layout = dict(columns)
        self._max_rows = max_rows
        self._setting = setting
        self._high = 0
        """Rows below this one were given out at least once."""
        self._freed = np.zeros(0, np.int64)
        """Rows to be given out again, the last one first; they still hold what they held."""
        self._newest_ms = 0
        self._ids = np.zeros(0, np.int64)
        self._last_ms = np.zeros(0, np.int64)
        self._columns: dict[str, NDArray[Any]] = {}
        self._map = IdMap()
        self._changed = ChangedRows()
        self._removed: list[NDArray[np.int64]] = []
        self._num_removed = 0
        self._forgot_removed = False
        self._clear()

    def __len__(self) -> int:
        return len(self._map)

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self._columns[column]

    @property
    def newest_ms(self) -> int:
        """Return the newest event time any row was touched at; 0 before the first."""
        return self._newest_ms

    def ids(self) -> NDArray[np.int64]:
        """Return the ids held, in row order."""
        ids = self._ids[: self._high]
        held: NDArray[np.int64] = ids[ids != ABSENT]
        return held

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each id, -1 where it has none; any shape."""
        rows: NDArray[np.int64] = self._map.find(ids)
        return rows

    def insert(self, ids: NDArray[np.int64], time_ms: int) -> Inserted:
        """Give rows to distinct ids that have none; at most `max_rows` of them.

        When the store is full, the rows that were touched longest ago (event time; of equal ones
        the lower row) are freed first.
        """
        assert len(ids) <= self._max_rows, "an owner never inserts more than fits"
        evicted = np.zeros(0, np.int64)
        excess = len(self) + len(ids) - self._max_rows
        if excess > 0:
            evicted = self._evict_oldest(max(excess, int(_SPARE * self._max_rows)))
        rows = self._take_rows(len(ids))
        self._ids[rows] = ids
        self._map.insert(ids, rows)
        self.touch(rows, time_ms)
        return Inserted(rows, evicted)

    def touch(self, rows: NDArray[np.int64], time_ms: int) -> None:
        """Note that rows were used at this event time; an older time changes nothing."""
        if time_ms >= self._newest_ms:
            self._last_ms[rows] = self._newest_ms = time_ms
        else:
            self._last_ms[rows] = np.maximum(self._last_ms[rows], time_ms)
        self._changed.mark(rows)
        self._map.tidy(len(rows))

    def evict_before(self, time_ms: int) -> NDArray[np.int64]:
        """Free every row last touched before this event time; return its ids."""
        held = self._ids[: self._high] != ABSENT
        return self._free(np.flatnonzero(held & (self._last_ms[: self._high] < time_ms)))

    def save(self) -> State:
        """Return a copy of all rows and of the order in which freed ones will be reused."""
        columns = {name: column[: self._high].copy() for name, column in self._columns.items()}
        return {
            "ids": self._ids[: self._high].copy(),
            "last_ms": self._last_ms[: self._high].copy(),
            "free": self._freed.copy(),
            "newest_ms": self._newest_ms,
            "columns": columns,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._clear()
        self._high = len(state["ids"])
        self._changed.grow(self._high)
        self._ids[: self._high] = state["ids"]
        self._last_ms[: self._high] = state["last_ms"]
        for name, column in self._columns.items():
            column[: self._high] = state["columns"][name]
        self._freed = np.array(state["free"], np.int64)
        self._newest_ms = int(state["newest_ms"])
        rows = np.flatnonzero(self._ids[: self._high] != ABSENT)
        self._map.rebuild(self._ids[rows], rows)

    def take_delta(self, columns: Sequence[str]) -> State:
        """Return what changed since the last call, or since the store was made or loaded."""
        rows = self._changed.take()
        if self._forgot_removed:
            rows = np.flatnonzero(self._ids[: self._high] != ABSENT)
        rows = rows[self._ids[rows] != ABSENT]
        delta = {
            "ids": self._ids[rows],
            "removed": np.concatenate([np.zeros(0, np.int64), *self._removed]),
            "whole": self._forgot_removed,
            "columns": {name: self._columns[name][rows] for name in columns},
        }
        self._forget_changes()
        return delta

    def read_delta(self, reader: StateReader, columns: Sequence[str]) -> RowsDelta:
        """Check what `take_delta` of another store returned.

        Raises:
            SnapshotError: it is something else, or holds more rows than fit.
        """
        ids = reader.array("ids", np.int64, (None,))
        delta = RowsDelta(
            ids=ids,
            removed=reader.array("removed", np.int64, (None,)),
            whole=reader.flag("whole"),
            columns={
                name: reader.part("columns").array(name, dtype, (len(ids), *shape))
                for name, (dtype, shape) in self._layout.items()
                if name in columns
            },
        )
        if len(np.unique(ids)) < len(ids) or (ids == ABSENT).any():
            raise SnapshotError(f"{reader.path}.ids: expected distinct ids other than {ABSENT}")
        leaving, rows = self._leaving(delta), self.find(ids)
        num = len(self) - len(leaving) + int(((rows < 0) | np.isin(rows, leaving)).sum())
        if num > self._max_rows:
            raise SnapshotError(
                f"{reader.path}.ids: expected at most {self._max_rows} rows, got {num}"
            )
        return delta

    def apply_delta(self, delta: RowsDelta) -> None:
        """Hold the same ids as the other store, with the same values in the columns given."""
        self._free(self._leaving(delta))
        rows = self.find(delta.ids)
        new = rows < 0
        if new.any():
            rows[new] = self.insert(delta.ids[new], 0).rows
        for name, values in delta.columns.items():
            self._columns[name][rows] = values
        self._forget_changes()

    def _leaving(self, delta: RowsDelta) -> NDArray[np.int64]:
        """Return the rows that a delta frees, ascending."""
        if delta.whole:
            held = np.flatnonzero(self._ids[: self._high] != ABSENT)
            return held[~np.isin(self._ids[held], delta.ids)]
        rows = self.find(delta.removed)
        return np.unique(rows[rows >= 0])

    def _note_removed(self, ids: NDArray[np.int64]) -> None:
        self._removed.append(ids)
        self._num_removed += len(ids)
        if self._num_removed > self._max_rows:
            self._removed, self._num_removed, self._forgot_removed = [], 0, True

    def _forget_changes(self) -> None:
        self._changed.clear()
        self._removed = []
        self._num_removed = 0
        self._forgot_removed = False

    def _clear(self) -> None:
        self._map = IdMap()
        self._high = 0
        self._freed = np.zeros(0, np.int64)
        self._newest_ms = 0
        self._ids = self._reserved(np.int64, ())
        self._last_ms = self._reserved(np.int64, ())
        self._columns = {
            name: self._reserved(dtype, shape) for name, (dtype, shape) in self._layout.items()
        }
        self._forget_changes()

    def _reserved(self, dtype: type, shape: Shape) -> NDArray[Any]:
        try:
            return np.zeros((self._max_rows, *shape), dtype)
        except MemoryError as error:
            raise ConfigError(
                f"{self._setting}: expected a number of rows that fits into memory, got "
                f"{self._max_rows}: {error}"
            ) from error

    def _take_rows(self, count: int) -> NDArray[np.int64]:
        num_reused = min(count, len(self._freed))
        kept = len(self._freed) - num_reused
        reused, self._freed = self._freed[kept:][::-1], self._freed[:kept]
        for column in self._columns.values():
            column[reused] = 0
        fresh = np.arange(self._high, self._high + count - num_reused)
        self._high += len(fresh)
        self._changed.grow(self._high)
        return np.concatenate([reused, fresh])

    def _evict_oldest(self, count: int) -> NDArray[np.int64]:
        held = np.flatnonzero(self._ids[: self._high] != ABSENT)
        last_ms = self._last_ms[held]
        # Part of a sort is enough: what is older than the count-th, and of its equals the first.
        limit_ms = np.partition(last_ms, count - 1)[count - 1]
        older = last_ms < limit_ms
        equal = np.flatnonzero(last_ms == limit_ms)
        older[equal[: count - int(older.sum())]] = True
        return self._free(held[older])

    def _free(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(rows):
            return np.zeros(0, np.int64)
        evicted = self._ids[rows]
        self._ids[rows] = ABSENT
        self._last_ms[rows] = 0
        self._map.remove(evicted)
        self._note_removed(evicted)
        self._freed = np.concatenate([self._freed, rows[::-1]])
        return evicted
