"""Decayed transitions: what people take next after an item, per item a bounded list of successors.

The decay works as in `retrieval.popularity`. When an item's list is full, a new successor replaces
the one that weighs least by the longest half-life; the total keeps what was replaced, so that
shares stay those of all transitions seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.changed_rows import ChangedRows
from domain.errors import SnapshotError
from domain.state import State
from domain.state_reading import StateReader
from retrieval.arrays import grown
from retrieval.id_rows import UNKNOWN
from retrieval.popularity import DecayClock


@dataclass(frozen=True, slots=True, eq=False)
class Successors:
    """Successors of Q queried items at one moment each; E entries, H half-lives.

    Attributes:
        query: int64 (E,), which of the queried items the entry belongs to.
        rows: int64 (E,), row of the successor.
        shares: float64 (H, E), decayed share of the item's transitions that went there.
    """

    query: NDArray[np.int64]
    rows: NDArray[np.int64]
    shares: NDArray[np.float64]


class DecayedTransitions:
    """Transition counts of H half-lives for N items with at most S successors each."""

    def __init__(
        self, half_lives_ms: tuple[int, ...], *, max_successors: int, smoothing: float
    ) -> None:
        num = len(half_lives_ms)
        self._clock = DecayClock(half_lives_ms)
        self._longest = int(np.argmax(half_lives_ms))
        self._smoothing = smoothing
        self._next_NS = np.full((0, max_successors), UNKNOWN, dtype=np.int32)
        self._counts_HNS = np.zeros((num, 0, max_successors))
        self._totals_HN = np.zeros((num, 0))
        self._num_rows = 0
        self._changed = ChangedRows()

    def grow(self, num_rows: int) -> None:
        """Make room for rows below `num_rows`."""
        self._next_NS = grown(self._next_NS, num_rows, UNKNOWN)
        self._counts_HNS = grown(self._counts_HNS, num_rows, 0.0, axis=1)
        self._totals_HN = grown(self._totals_HN, num_rows, 0.0, axis=1)
        self._num_rows = max(self._num_rows, num_rows)
        self._changed.grow(num_rows)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Forget rows that now belong to other items, as origins and as successors."""
        self._next_NS[rows] = UNKNOWN
        self._counts_HNS[:, rows] = 0.0
        self._totals_HN[:, rows] = 0.0
        gone_NS = np.isin(self._next_NS, rows)
        self._next_NS[gone_NS] = UNKNOWN
        self._counts_HNS[:, gone_NS] = 0.0
        self._changed.mark(rows)
        self._changed.mark(np.flatnonzero(gone_NS.any(axis=1)))

    def learn(
        self,
        origins: NDArray[np.int64],
        successors: NDArray[np.int64],
        times_ms: NDArray[np.int64],
    ) -> None:
        """Count M transitions, one after the other, each at the time of its second action."""
        if not len(origins):
            return
        shift_H = self._clock.advance(int(times_ms.max()))
        if shift_H is not None:
            self._counts_HNS = np.ldexp(self._counts_HNS, -shift_H[:, None, None])
            self._totals_HN = np.ldexp(self._totals_HN, -shift_H[:, None])
            self._changed.mark_all()
        scale_MH = self._clock.scale(times_ms).T
        for origin, successor, scale_H in zip(
            origins.tolist(), successors.tolist(), scale_MH, strict=True
        ):
            slot, is_new = self._slot(origin, successor)
            if is_new:
                self._next_NS[origin, slot] = successor
                self._counts_HNS[:, origin, slot] = 0.0
            self._counts_HNS[:, origin, slot] += scale_H
            self._totals_HN[:, origin] += scale_H
        self._changed.mark(origins)

    def _slot(self, origin: int, successor: int) -> tuple[int, bool]:
        next_S = self._next_NS[origin]
        found = np.flatnonzero(next_S == successor)
        if len(found):
            return int(found[0]), False
        # Empty slots count 0.0 and so are taken before any successor is replaced.
        return int(self._counts_HNS[self._longest, origin].argmin()), True

    def successors(self, rows: NDArray[np.int64], times_ms: NDArray[np.int64]) -> Successors:
        """Return what followed Q items, each as seen at its own time; UNKNOWN rows have nothing.

        The share of successor j is count_j / (total + smoothing), all decayed to the asking time,
        so that one old transition is worth less than one of today.
        """
        query_Q = np.flatnonzero(rows != UNKNOWN)
        known_Q = rows[query_Q]
        next_QS = self._next_NS[known_Q]
        query_E, slot_E = np.nonzero(next_QS != UNKNOWN)
        row_E = known_Q[query_E]
        scale_HQ = self._clock.scale(times_ms[query_Q])
        whole_HQ = self._totals_HN[:, known_Q] + self._smoothing * scale_HQ
        shares_HE = self._counts_HNS[:, row_E, slot_E] / whole_HQ[:, query_E]
        return Successors(
            query=query_Q[query_E],
            rows=next_QS[query_E, slot_E].astype(np.int64),
            shares=shares_HE,
        )

    def take_delta(self) -> State:
        """Return the lists that changed since the last call, each whole."""
        rows = self._changed.take()
        return {
            "rows": rows,
            "next": self._next_NS[rows],
            "counts": self._counts_HNS[:, rows],
            "totals": self._totals_HN[:, rows],
            "origin": self._clock.take_delta(),
        }

    def read_delta(self, reader: StateReader, num_rows: int) -> State:
        """Check what `take_delta` of the transitions between `num_rows` rows returned.

        Raises:
            SnapshotError: it is something else.
        """
        (num, _, size), rows = self._counts_HNS.shape, reader.rows("rows", num_rows)
        successors = reader.array("next", np.int32, (len(rows), size))
        if successors.size and not UNKNOWN <= successors.min() <= successors.max() < num_rows:
            raise SnapshotError(f"{reader.path}.next: expected rows below {num_rows}")
        return {
            "rows": rows,
            "next": successors,
            "counts": reader.array("counts", np.float64, (num, len(rows), size)),
            "totals": reader.array("totals", np.float64, (num, len(rows))),
            "origin": self._clock.read_delta(reader),
        }

    def apply_delta(self, delta: State) -> None:
        """Count as the other does; there is room for the rows already."""
        rows = delta["rows"]
        self._next_NS[rows] = delta["next"]
        self._counts_HNS[:, rows] = delta["counts"]
        self._totals_HN[:, rows] = delta["totals"]
        self._clock.apply_delta(delta["origin"])
        self._changed.clear()

    def truncate(self, num_rows: int) -> None:
        """Take away the rows from `num_rows` on, which nobody has acted upon."""
        self._num_rows = min(self._num_rows, num_rows)

    def save(self) -> State:
        """Return successors, counts, totals and origin."""
        n = self._num_rows
        return {
            "next": self._next_NS[:n].copy(),
            "counts": self._counts_HNS[:, :n].copy(),
            "totals": self._totals_HN[:, :n].copy(),
            "clock": self._clock.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._next_NS = np.array(state["next"], dtype=np.int32)
        self._counts_HNS = np.array(state["counts"], dtype=np.float64)
        self._totals_HN = np.array(state["totals"], dtype=np.float64)
        self._num_rows = len(self._next_NS)
        self._changed = ChangedRows()
        self._changed.grow(self._num_rows)
        self._clock.load(state["clock"])
