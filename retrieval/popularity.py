"""Decayed popularity: how often each item was taken lately, for several half-lives at once.

Decay is kept by growing the increment, not by shrinking the table: an action at time t adds
2^((t - origin) / half_life), so that the ratio of two counts is what shrinking both would have
given, and an action costs one addition. Long before the increment overflows, counts and origin
move together by whole half-lives, which is exact in binary floating point.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.changed_rows import ChangedRows
from domain.errors import SnapshotError
from domain.state import State
from domain.state_reading import StateReader
from retrieval.arrays import grown

# Doubles reach 2^1023. Renormalising at 2^500 leaves room for the sum over any catalog, and for
# counts 2^500 times smaller than the newest increment before they vanish.
MAX_EXPONENT = 500.0


class DecayClock:
    """Turns event time into growing increments, one per half-life; H half-lives.

    The origin is moved by the owner of the counts (see `advance`), which must scale them along.
    """

    def __init__(self, half_lives_ms: tuple[int, ...]) -> None:
        self._half_lives_H = np.array(half_lives_ms, dtype=np.float64)
        self._origin_H: NDArray[np.float64] | None = None

    def advance(self, time_ms: int) -> NDArray[np.int64] | None:
        """Move the origin when an increment at `time_ms` would come near overflow.

        Returns:
            Binary exponents int64 (H,) by which existing counts must be scaled down, None when
            nothing moved.
        """
        if self._origin_H is None:
            self._origin_H = np.full(len(self._half_lives_H), float(time_ms))
            return None
        exponent_H = (time_ms - self._origin_H) / self._half_lives_H
        if not (exponent_H > MAX_EXPONENT).any():
            return None
        shift_H = np.where(exponent_H > MAX_EXPONENT, np.floor(exponent_H), 0.0)
        self._origin_H = self._origin_H + shift_H * self._half_lives_H
        # Whatever is scaled by 2^-2100 or less is zero in double precision anyway.
        return np.minimum(shift_H, 2_100.0).astype(np.int64)

    def scale(self, times_ms: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what an action at each of M times weighs, float64 (H, M), in units of the counts.

        1.0 before the first action. Times must not lie further ahead than `advance` was told by
        more than 500 half-lives; a later one is treated as that far ahead.
        """
        if self._origin_H is None:
            return np.ones((len(self._half_lives_H), len(times_ms)))
        exponent_HM = (times_ms[None, :] - self._origin_H[:, None]) / self._half_lives_H[:, None]
        return np.asarray(np.exp2(np.minimum(exponent_HM, 2.0 * MAX_EXPONENT)))

    def take_delta(self) -> NDArray[np.float64]:
        """Return the origin, float64 (H,); nothing (0,) before the first action."""
        return np.zeros(0) if self._origin_H is None else self._origin_H.copy()

    def read_delta(self, reader: StateReader) -> NDArray[np.float64]:
        """Check what `take_delta` of another clock returned, under the name "origin".

        Raises:
            SnapshotError: it is something else.
        """
        origin_H: NDArray[np.float64] = reader.array("origin", np.float64, (None,))
        if len(origin_H) not in (0, len(self._half_lives_H)):
            raise SnapshotError(
                f"{reader.path}.origin: expected {len(self._half_lives_H)} times or none, "
                f"got {len(origin_H)}"
            )
        return origin_H

    def apply_delta(self, origin_H: NDArray[np.float64]) -> None:
        """Count from the other clock's origin."""
        self._origin_H = origin_H.copy() if len(origin_H) else None

    def save(self) -> State:
        """Return the origin."""
        return {"origin": None if self._origin_H is None else self._origin_H.copy()}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        origin = state["origin"]
        self._origin_H = None if origin is None else np.array(origin, dtype=np.float64)


class DecayedPopularity:
    """Counts of H half-lives for N items, kept as shares of all actions."""

    def __init__(self, half_lives_ms: tuple[int, ...]) -> None:
        self._clock = DecayClock(half_lives_ms)
        self._counts_HN = np.zeros((len(half_lives_ms), 0))
        self._totals_H = np.zeros(len(half_lives_ms))
        self._num_rows = 0
        self._changed = ChangedRows()

    def grow(self, num_rows: int) -> None:
        """Make room for rows below `num_rows`."""
        self._counts_HN = grown(self._counts_HN, num_rows, 0.0, axis=1)
        self._num_rows = max(self._num_rows, num_rows)
        self._changed.grow(num_rows)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Forget rows that now belong to other items."""
        self._counts_HN[:, rows] = 0.0
        self._totals_H = self._counts_HN.sum(axis=1)
        self._changed.mark(rows)

    def learn(self, rows: NDArray[np.int64], times_ms: NDArray[np.int64]) -> None:
        """Count M actions; one that comes late counts as much as if it had come in order."""
        if not len(rows):
            return
        shift_H = self._clock.advance(int(times_ms.max()))
        if shift_H is not None:
            self._counts_HN = np.ldexp(self._counts_HN, -shift_H[:, None])
            self._totals_H = np.ldexp(self._totals_H, -shift_H)
            self._changed.mark_all()
        scale_HM = self._clock.scale(times_ms)
        for counts_N, scale_M in zip(self._counts_HN, scale_HM, strict=True):
            np.add.at(counts_N, rows, scale_M)
        self._totals_H = self._totals_H + scale_HM.sum(axis=1)
        self._changed.mark(rows)

    def shares(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """Return each item's share of all decayed actions, float64 (H, R); zeros before the first.

        Shares do not depend on the time of asking: everything decays alike.
        """
        counts_HR = (
            self._counts_HN[:, : self._num_rows] if rows is None else self._counts_HN[:, rows]
        )
        totals_H1 = self._totals_H[:, None]
        return np.divide(counts_HR, totals_H1, out=np.zeros_like(counts_HR), where=totals_H1 > 0.0)

    def take_delta(self) -> State:
        """Return the counts that changed since the last call, and the totals."""
        rows = self._changed.take()
        return {
            "rows": rows,
            "counts": self._counts_HN[:, rows],
            "totals": self._totals_H.copy(),
            "origin": self._clock.take_delta(),
        }

    def read_delta(self, reader: StateReader, num_rows: int) -> State:
        """Check what `take_delta` of the counts of `num_rows` rows returned.

        Raises:
            SnapshotError: it is something else.
        """
        num, rows = len(self._totals_H), reader.rows("rows", num_rows)
        return {
            "rows": rows,
            "counts": reader.array("counts", np.float64, (num, len(rows))),
            "totals": reader.array("totals", np.float64, (num,)),
            "origin": self._clock.read_delta(reader),
        }

    def apply_delta(self, delta: State) -> None:
        """Count as the other does; there is room for the rows already."""
        self._counts_HN[:, delta["rows"]] = delta["counts"]
        self._totals_H = delta["totals"].copy()
        self._clock.apply_delta(delta["origin"])
        self._changed.clear()

    def truncate(self, num_rows: int) -> None:
        """Take away the rows from `num_rows` on, which nobody has acted upon."""
        self._num_rows = min(self._num_rows, num_rows)

    def save(self) -> State:
        """Return counts, totals and origin."""
        return {
            "counts": self._counts_HN[:, : self._num_rows].copy(),
            "totals": self._totals_H.copy(),
            "clock": self._clock.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._counts_HN = np.array(state["counts"], dtype=np.float64)
        self._totals_H = np.array(state["totals"], dtype=np.float64)
        self._num_rows = self._counts_HN.shape[1]
        self._changed = ChangedRows()
        self._changed.grow(self._num_rows)
        self._clock.load(state["clock"])
