"""How far predictions are from rates, before and after calibration, over the recent past."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.state import State

NUM_BINS = 15
STAGES = ("before", "after")


class CalibrationErrorMeter:
    """Expected calibration error per head and stage, over bins of the score; old examples fade."""

    def __init__(self, half_life_examples: float, num_heads: int) -> None:
        self._half_life = half_life_examples
        self._gap_SHB = np.zeros((len(STAGES), num_heads, NUM_BINS))
        self._weight_SHB = np.zeros((len(STAGES), num_heads, NUM_BINS))

    def update(
        self,
        before_MH: NDArray[np.floating],
        after_MH: NDArray[np.floating],
        labels_MH: NDArray[np.float32],
        weights_MH: NDArray[np.float32],
    ) -> None:
        """Measure probabilities made before their labels were known; weight 0 is no example."""
        keep = 0.5 ** (len(labels_MH) / self._half_life)
        self._gap_SHB *= keep
        self._weight_SHB *= keep
        for stage, score_MH in enumerate((before_MH, after_MH)):
            for head in range(labels_MH.shape[1]):
                known = weights_MH[:, head] > 0
                score = score_MH[known, head].astype(np.float64)
                weight = weights_MH[known, head].astype(np.float64)
                bins = np.minimum((score * NUM_BINS).astype(np.int64), NUM_BINS - 1)
                gap = weight * (score - labels_MH[known, head])
                self._gap_SHB[stage, head] += np.bincount(bins, gap, NUM_BINS)
                self._weight_SHB[stage, head] += np.bincount(bins, weight, NUM_BINS)

    def get(self) -> NDArray[np.float64]:
        """Return (2, H): mean distance of prediction and rate, NaN before the first example.

        Rows are the `STAGES`.
        """
        total_SH = self._weight_SHB.sum(-1)
        error_SH = np.abs(self._gap_SHB).sum(-1) / np.where(total_SH > 0, total_SH, 1.0)
        return np.where(total_SH > 0, error_SH, np.nan)

    def save(self) -> State:
        """Return the sums as plain data."""
        return {"gap": self._gap_SHB.copy(), "weight": self._weight_SHB.copy()}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._gap_SHB = np.array(state["gap"], np.float64)
        self._weight_SHB = np.array(state["weight"], np.float64)
