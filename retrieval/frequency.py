"""How likely an item is to be drawn: the streaming estimate that logQ correction needs.

Algorithm: Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus item
recommendations", section 4: per item an exponential moving average of the number of steps between
two of its appearances; its inverse is the sampling probability. Different from there: a step is one
positive action of the stream, not a batch, so that the estimate is a probability per draw and does
not depend on batch sizes; an item's first gaps are averaged evenly until the moving average takes
over; a gap that stays open lowers the estimate; rows do not collide, so nothing is hashed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from retrieval.arrays import grown

_NEVER = -1

# A gap ten times the average comes by chance once in 22,000 gaps (e^-10): longer ones mean that
# the stream has changed.
_SURPRISING = 10.0


class StreamingFrequency:
    """Average gap between appearances for each of N rows."""

    def __init__(self, learning_rate: float) -> None:
        self._rate = learning_rate
        self._step = 0
        self._last_step_N = np.full(0, _NEVER, dtype=np.int64)
        self._gap_N = np.zeros(0)
        self._seen_N = np.zeros(0, dtype=np.int64)
        self._num_rows = 0

    def grow(self, num_rows: int) -> None:
        """Make room for rows below `num_rows`."""
        self._last_step_N = grown(self._last_step_N, num_rows, _NEVER)
        self._gap_N = grown(self._gap_N, num_rows, 0.0)
        self._seen_N = grown(self._seen_N, num_rows, 0)
        self._num_rows = max(self._num_rows, num_rows)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Forget rows that now belong to other items."""
        self._last_step_N[rows] = _NEVER
        self._gap_N[rows] = 0.0
        self._seen_N[rows] = 0

    def learn(self, rows: NDArray[np.int64]) -> None:
        """Take in M appearances, one step each."""
        for row in rows.tolist():
            self._step += 1
            last = int(self._last_step_N[row])
            if last == _NEVER:
                # The best guess after one appearance in `step` steps.
                self._gap_N[row] = self._step
            else:
                rate = max(self._rate, 1.0 / (int(self._seen_N[row]) + 1))
                self._gap_N[row] += rate * (self._step - last - self._gap_N[row])
            self._last_step_N[row] = self._step
            self._seen_N[row] += 1

    def probability(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the chance that one draw from the stream is this item, float64 (M,).

        A gap still open counts once it is surprisingly long, so that the estimate of an item nobody
        takes any more falls; an item never seen gets one over the steps so far.
        """
        last_M = self._last_step_N[rows]
        open_M = np.where(last_M == _NEVER, self._step + 1.0, (self._step - last_M) / _SURPRISING)
        return 1.0 / np.maximum(np.maximum(self._gap_N[rows], open_M), 1.0)

    def save(self) -> State:
        """Return steps and gaps."""
        n = self._num_rows
        return {
            "step": self._step,
            "last_step": self._last_step_N[:n].copy(),
            "gap": self._gap_N[:n].copy(),
            "seen": self._seen_N[:n].copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._step = int(state["step"])
        self._last_step_N = np.array(state["last_step"], dtype=np.int64)
        self._gap_N = np.array(state["gap"], dtype=np.float64)
        self._seen_N = np.array(state["seen"], dtype=np.int64)
        self._num_rows = len(self._gap_N)
