"""Which occurrences in a batch belong to which row: what sums gradients of a row that comes twice.

Occurrences are given as the rows of N ids that stand in bags of I, one after the other: bag b holds
N[b * I : (b + 1) * I]. Ids that stand alone are bags of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranking.compiled import COMPILES, compiled, prefetch

_AHEAD = 16


@dataclass(frozen=True, slots=True, eq=False)
class RowGroups:
    """U distinct rows and the bags each stands in.

    Attributes:
        rows_U: the rows, in no particular order.
        starts: int32 (U + 1,): row u stands in the bags bags_N[starts[u] : starts[u + 1]].
        bags_N: int32; a bag that holds a row twice is there twice.
    """

    rows_U: NDArray[np.int64]
    starts: NDArray[np.int32]
    bags_N: NDArray[np.int32]

    @classmethod
    def of_distinct(cls, rows_N: NDArray[np.int64]) -> RowGroups:
        """Return groups of one: row n, where it is not -1, has the bag n."""
        bags = np.flatnonzero(rows_N >= 0).astype(np.int32)
        return cls(rows_N[bags], np.arange(len(bags) + 1, dtype=np.int32), bags)


class RowGrouper:
    """Groups occurrences by row in one pass, with a seat for each of `num_rows` rows."""

    def __init__(self, num_rows: int, *, compiles: bool = COMPILES) -> None:
        # Address space; memory comes with the rows that are used.
        self._seat_R = np.zeros(num_rows if compiles else 0, np.int32)

    def group(self, rows_BI: NDArray[np.int64]) -> RowGroups:
        """Group the rows of B bags of I; -1 is no row."""
        rows_N = rows_BI.reshape(-1)
        width = max(1, rows_BI.shape[1])
        if not len(self._seat_R):
            return _grouped(rows_N, width)
        rows_U = np.empty(len(rows_N), np.int64)
        starts = np.empty(len(rows_N) + 1, np.int32)
        bags_N, seats_N = np.empty((2, len(rows_N)), np.int32)
        num = _group(rows_N, width, self._seat_R, rows_U, (starts, bags_N, seats_N))
        return RowGroups(rows_U[:num], starts[: num + 1], bags_N[: starts[num]])


def _grouped(rows_N: NDArray[np.int64], width: int) -> RowGroups:
    """Do what `_group` does, without a compiler."""
    places = np.flatnonzero(rows_N >= 0)
    places = places[np.argsort(rows_N[places], kind="stable")]
    rows_U, first = np.unique(rows_N[places], return_index=True)
    starts = np.append(first, len(places)).astype(np.int32)
    return RowGroups(rows_U, starts, (places // width).astype(np.int32))


@compiled
def _group(
    rows_N: NDArray[np.int64],
    width: int,
    seat_R: NDArray[np.int32],
    rows_U: NDArray[np.int64],
    out: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]],
) -> int:
    """Count, then place, as a counting sort does; `seat_R` is all zeros before and after."""
    starts, bags_N, seats_N = out
    num = 0
    for i in range(len(rows_N)):
        if i + _AHEAD < len(rows_N) and rows_N[i + _AHEAD] >= 0:
            prefetch(seat_R, rows_N[i + _AHEAD])
        row = rows_N[i]
        seats_N[i] = -1
        if row < 0:
            continue
        if seat_R[row] == 0:
            rows_U[num] = row
            starts[num] = 0
            num += 1
            seat_R[row] = num
        seats_N[i] = seat_R[row] - 1
        starts[seats_N[i]] += 1
    end = 0
    for u in range(num):
        end += starts[u]
        starts[u] = end - starts[u]
        seat_R[rows_U[u]] = 0
    i = 0
    for bag in range(len(rows_N) // width):
        for _ in range(width):
            seat = seats_N[i]
            i += 1
            if seat >= 0:
                bags_N[starts[seat]] = bag
                starts[seat] += 1
    # Each start has come to stand where the next one was.
    starts[num] = end
    for u in range(num - 1, 0, -1):
        starts[u] = starts[u - 1]
    starts[0] = 0
    return num
