"""Lambda by experts' weights: every value of a grid is an expert, and the best may change."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.errors import ModelError
from domain.state import State
from domain.state_reading import StateReader
from memory.config import MemoryConfig
from memory.lambda_gains import log_likelihoods


class FixedShares:
    """Fixed share (Herbster and Warmuth, Machine Learning 32, 1998) for each of H heads.

    An expert's weight is multiplied by the probability it gave to each revealed label (log loss at
    a learning rate of 1, which is Bayes' rule); then a share of all weight, `lambda_switch_rate`
    for each example, is dealt out anew: half of it to 0, half equally to the others. So about
    1 / switch rate examples are remembered.

    Lambda is 0 while 0 has at least half of the weight; else the weighted mean of the grid, which
    is what a mixture of the experts' scores comes to.
    """

    def __init__(self, config: MemoryConfig, num_heads: int) -> None:
        self._grid_G = np.array(config.lambda_grid, np.float32)
        self._rate = config.lambda_switch_rate
        num_others = len(self._grid_G) - 1
        self._dealt_G = np.full(len(self._grid_G), 0.5 / max(num_others, 1))
        self._dealt_G[0] = 0.5 if num_others else 1.0
        self._weight_GH = np.repeat(self._dealt_G[:, None], num_heads, axis=1)
        self._lambda_H = np.zeros(num_heads, np.float32)

    @property
    def lambdas(self) -> NDArray[np.float32]:
        """Return the value in use for each head, float32 (H,)."""
        return self._lambda_H

    def observe(
        self,
        base_NH: NDArray[np.float32],
        error_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
    ) -> None:
        """Measure every grid value on labels that have just been revealed, then weigh anew."""
        gained_GH = log_likelihoods(self._grid_G, base_NH, error_NH, labels_NH)
        weight_GH = self._weight_GH * np.exp(gained_GH - gained_GH.max(axis=0))
        weight_GH /= weight_GH.sum(axis=0)
        seen_H = (~np.isnan(labels_NH)).sum(axis=0)
        shared_H = 1.0 - (1.0 - self._rate) ** seen_H
        dealt_GH = (1.0 - shared_H) * weight_GH + shared_H * self._dealt_G[:, None]
        # Dividing by a sum of 1 may change a last digit: what saw nothing stays as it is.
        self._weight_GH = np.where(seen_H > 0, dealt_GH, self._weight_GH)
        mean_H = self._grid_G @ self._weight_GH
        self._lambda_H = np.where(self._weight_GH[0] >= 0.5, 0.0, mean_H).astype(np.float32)

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            "grid": self._grid_G.copy(),
            "weights": self._weight_GH.copy(),
            "lambdas": self._lambda_H.copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described.

        Raises:
            ModelError: another rule or grid was in use, or the number of heads differs.
        """
        weight_GH = state.get("weights")
        if weight_GH is None or not np.array_equal(state["grid"], self._grid_G):
            rule = "shares" if weight_GH is not None else "another rule"
            raise ModelError(
                f"memory.lambda_grid: expected {self._grid_G.tolist()} by shares as configured, "
                f"got {state['grid'].tolist()} by {rule} as saved"
            )
        if weight_GH.shape != self._weight_GH.shape:
            raise ModelError(
                f"memory.lambda: expected {self._weight_GH.shape[1]} label heads, "
                f"got {weight_GH.shape[1]} as saved"
            )
        self._weight_GH = weight_GH.copy()
        self._lambda_H = state["lambdas"].copy()

    def take_delta(self) -> State:
        """Return which values are in use; the weights behind them serve learning alone."""
        return {"lambdas": self._lambda_H.copy()}

    def read_delta(self, reader: StateReader) -> NDArray[np.float32]:
        """Check what `take_delta` of another choice returned, and return the values (H,).

        Raises:
            SnapshotError: it is something else.
        """
        lambda_H: NDArray[np.float32] = reader.array("lambdas", np.float32, self._lambda_H.shape)
        return lambda_H

    def apply_delta(self, lambda_H: NDArray[np.float32]) -> None:
        """Use the values that another choice uses."""
        self._lambda_H = lambda_H.copy()
