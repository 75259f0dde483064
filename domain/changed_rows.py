"""Which rows of a table changed since somebody last asked: a flag each, so that marking is cheap.

No part of any state: what is saved must not depend on when deltas were taken.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SMALLEST = 64


class ChangedRows:
    """Rows 0, 1, 2, ... that were marked since the last `take`; one byte for each row there is.

    >>> changed = ChangedRows()
    >>> changed.grow(5)
    >>> changed.mark(np.array([3, 1, 3]))
    >>> changed.take().tolist(), changed.take().tolist()
    ([1, 3], [])
    """

    def __init__(self) -> None:
        self._flags = np.zeros(_SMALLEST, np.bool_)
        self._num_rows = 0

    def grow(self, num_rows: int) -> None:
        """Make room for rows below `num_rows`."""
        if num_rows > len(self._flags):
            larger = np.zeros(max(num_rows, 2 * len(self._flags)), np.bool_)
            larger[: len(self._flags)] = self._flags
            self._flags = larger
        self._num_rows = max(self._num_rows, num_rows)

    def mark(self, rows: NDArray[np.int64] | NDArray[np.int32] | int) -> None:
        """Note that rows changed; they may repeat."""
        self._flags[rows] = True

    @property
    def flags(self) -> NDArray[np.bool_]:
        """Return the flags themselves, for compiled code that marks as it goes."""
        return self._flags

    def mark_all(self) -> None:
        """Note that every row there is changed."""
        self._flags[: self._num_rows] = True

    def take(self) -> NDArray[np.int64]:
        """Return the rows marked since the last call, ascending."""
        rows: NDArray[np.int64] = np.flatnonzero(self._flags[: self._num_rows])
        self._flags[rows] = False
        return rows

    def clear(self) -> None:
        """Forget what was marked."""
        self._flags[:] = False
