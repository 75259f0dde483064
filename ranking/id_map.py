"""A map from 64-bit ids to row numbers that answers whole arrays of ids at once.

Exact, so ids never share a row, and many times faster than a dictionary on arrays of ids. It grows
a little with every insertion instead of all at once: while a larger table fills up from the old
one, both are looked at, so no insertion waits for all ids there are.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranking import id_slots, id_slots_numpy
from ranking.compiled import COMPILES

ABSENT = 0
"""The id that means "no value"; it is never stored and never found."""

_SMALLEST = 16
_ROOM = 3
"""Slots per id of a new table, at least (a power of two, so up to twice that). A table is left when
half of it is taken: an unsuccessful search then looks at 2.5 slots on average (Knuth)."""
_MOVED_PER_ID = 8
"""Slots of the old table looked through for every id inserted or touched. A new table has room for
at least a sixth as many insertions as the old one has slots, so 6 would do."""
_MOVED_AT_LEAST = 512
_LARGE_BYTES = 2**22
"""NumPy asks for huge pages from this size on."""


class IdMap:
    """Maps int64 ids other than `ABSENT` to row numbers; rows are the caller's business.

    >>> ids = IdMap()
    >>> ids.insert(np.array([7, 9]), np.array([0, 1]))
    >>> ids.find(np.array([9, 8, 7])).tolist()
    [1, -1, 0]
    """

    def __init__(self, *, compiles: bool = COMPILES) -> None:
        self._do: Any = id_slots if compiles else id_slots_numpy
        self._size = 0
        self._table = _Table(_SMALLEST)
        self._old: _Table | None = None
        self._moved = 0
        """Slots of the old table below this one hold nothing any more."""

    def __len__(self) -> int:
        return self._size

    @property
    def num_slots(self) -> int:
        """Return how many slots there are, of 16 bytes each, those that are being left included."""
        return len(self._table.slots) + (0 if self._old is None else len(self._old.slots))

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each id, -1 where it is not in the map; any shape."""
        flat, rows = ids.reshape(-1), np.full(ids.size, -1, np.int64)
        self._do.find(self._table.slots, self._table.shift, flat, rows)
        if self._old is not None:
            self._do.find(self._old.slots, self._old.shift, flat, rows)
        return rows.reshape(ids.shape)

    def insert(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Add ids that are distinct, not `ABSENT` and not in the map yet, with their rows >= 0."""
        size = self._size + len(ids)
        still_old = 0 if self._old is None else self._old.live
        if 2 * (self._table.taken + still_old + len(ids)) > len(self._table.slots):
            # Only a batch as large as the table itself finds a move unfinished here.
            self._move(self.num_slots)
            self._old, self._moved = self._table, 0
            self._table = _Table(1 << int(_ROOM * size - 1).bit_length())
        self._place(ids, rows)
        self._size = size
        self.tidy(len(ids))

    def remove(self, ids: NDArray[np.int64]) -> None:
        """Take out distinct ids; those that are not in the map do not matter."""
        for table in (self._table, self._old):
            if table is not None:
                gone = self._do.remove(table.slots, table.shift, ids)
                table.live -= gone
                self._size -= gone

    def tidy(self, num_ids: int) -> None:
        """Go on with a move, by as much as insertion or use of this many ids may cost."""
        self._move(_MOVED_PER_ID * num_ids + _MOVED_AT_LEAST)

    def rebuild(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Forget everything and hold exactly these."""
        self._size = len(ids)
        self._table = _Table(max(_SMALLEST, 1 << int(_ROOM * len(ids) - 1).bit_length()))
        self._old = None
        self._place(ids, rows)

    def _place(self, ids: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self._table.taken += self._do.place(self._table.slots, self._table.shift, ids, rows)
        self._table.live += len(ids)

    def _move(self, num_slots: int) -> None:
        """Take ids out of so many slots of the old table, and leave it when it is empty."""
        if self._old is None:
            return
        part = self._old.slots[self._moved : self._moved + num_slots]
        full = np.flatnonzero((part[:, 0] != ABSENT) & (part[:, 1] >= 0))
        self._place(part[full, 0], part[full, 1])
        # The id stays, without a row, so that searches for others still find their way past it.
        part[full, 1] = -1
        self._old.live -= len(full)
        self._moved += len(part)
        if self._moved == len(self._old.slots):
            self._old = None


class _Table:
    """A table of slots, see `id_slots`, and what is in it.

    Attributes:
        slots: (S, 2).
        shift: what brings a 64-bit hash into the range of slot numbers.
        taken: slots that are not empty.
        live: slots whose id was not removed.
    """

    def __init__(self, num_slots: int) -> None:
        self.slots = _zeros(num_slots)
        self.shift = np.uint64(64 - (num_slots.bit_length() - 1))
        self.taken = 0
        self.live = 0


def _zeros(num_slots: int) -> NDArray[np.int64]:
    """Return empty slots (S, 2).

    Ids go anywhere in a new table. With huge pages the first few hundred of them would wait until
    all of it is cleared, some milliseconds for a million ids; with small ones each waits for its
    own.
    """
    if 16 * num_slots < _LARGE_BYTES:
        return np.zeros((num_slots, 2), np.int64)
    memory = mmap.mmap(-1, 16 * num_slots, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, np.int64).reshape(num_slots, 2)
