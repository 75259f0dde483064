"""The running mean of hidden states, which is taken off before they are compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from domain.state_reading import StateReader
from memory import kernels
from memory.config import Centring


class Centre:
    """A weighted mean that forgets at the pace of what it is the mean of.

    Attributes:
        mean_D: float64, zero before anything was seen, and always when there is no centring.
    """

    def __init__(self, centring: Centring, hidden_size: int) -> None:
        self._moves = centring == "running"
        self._weight = 0.0
        self.mean_D = np.zeros(hidden_size)

    def move(self, hidden_ND: NDArray[np.float32], weight_N: NDArray[np.float64]) -> None:
        """Take a batch in; a single weight stands for all of it."""
        if not self._moves:
            return
        if len(weight_N) == 1:
            added = float(weight_N[0]) * len(hidden_ND)
            mean_D = np.zeros(len(self.mean_D))
            kernels.add_up(np.require(hidden_ND, np.float32, ["C", "W"]), mean_D)
            mean_D /= len(hidden_ND)
        else:
            added = float(weight_N.sum())
            mean_D = (weight_N[:, None] * hidden_ND).sum(axis=0) / added
        self._weight += added
        self.mean_D += (mean_D - self.mean_D) * (added / self._weight)

    def scale_down(self, scale: float) -> None:
        """Let what was seen weigh this many times as much; the mean stays."""
        self._weight *= scale

    def reset(self) -> None:
        """Forget everything seen."""
        self.mean_D[:] = 0
        self._weight = 0.0

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {"centre": self.mean_D.copy(), "centred_weight": self._weight}

    def load(self, state: State) -> None:
        """Become what `save` described; other keys are passed over."""
        self.mean_D = state["centre"].copy()
        self._weight = state["centred_weight"]

    def read_delta(self, reader: StateReader) -> NDArray[np.float64]:
        """Check the mean of another centre and return it.

        Raises:
            SnapshotError: it is something else.
        """
        mean_D: NDArray[np.float64] = reader.array("centre", np.float64, self.mean_D.shape)
        return mean_D
