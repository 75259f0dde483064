"""Running normalisation of number inputs: mean and spread of what was learned from so far."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from domain.state_reading import StateReader

_LARGEST = 5.0
"""Normalised values are cut here: an outlier may be odd, but must not run the network."""
_MEMORY = 100_000
"""Examples after which old ones fade: the mean follows a drift within about a day's traffic."""
_PRIOR = 20.0
"""Examples with mean 0 and spread 1 assumed before the first, so that early ones are not noise."""


class RunningNormaliser:
    """Per column: (x - mean) / spread, over values that are not NaN; NaN becomes 0, the mean."""

    def __init__(self, width: int) -> None:
        self._count = np.full(width, _PRIOR)
        self._mean = np.zeros(width)
        self._variance = np.ones(width)

    def apply(self, values_MW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return normalised values; changes nothing."""
        mean = self._mean.astype(np.float32)
        scale = (1.0 / np.sqrt(self._variance + 1e-6)).astype(np.float32)
        normal = np.clip((values_MW - mean) * scale, -_LARGEST, _LARGEST)
        return np.where(np.isnan(normal), np.float32(0.0), normal)

    def update(self, values_MW: NDArray[np.float32]) -> None:
        """Take a batch into account (Chan et al. 1979: means and variances of two parts joined)."""
        known = ~np.isnan(values_MW)
        count = known.sum(axis=0)
        values = np.where(known, values_MW, 0.0).astype(np.float64)
        mean = values.sum(axis=0) / np.maximum(count, 1)
        deviation = np.where(known, values - mean, 0.0)
        variance = (deviation**2).sum(axis=0) / np.maximum(count, 1)
        share = count / (self._count + count)
        gap = mean - self._mean
        self._mean = self._mean + share * gap
        self._variance = (
            (1 - share) * self._variance + share * variance + share * (1 - share) * gap**2
        )
        self._count = np.minimum(self._count + count, _MEMORY)

    def save(self) -> State:
        """Return the statistics as plain data."""
        return {
            "count": self._count.copy(),
            "mean": self._mean.copy(),
            "variance": self._variance.copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._count = np.array(state["count"], np.float64)
        self._mean = np.array(state["mean"], np.float64)
        self._variance = np.array(state["variance"], np.float64)

    def read_delta(self, reader: StateReader) -> State:
        """Check what `save` of another returned, which is small enough to travel whole.

        Raises:
            SnapshotError: it is something else.
        """
        width = self._mean.shape
        return {name: reader.array(name, np.float64, width) for name in self.save()}
