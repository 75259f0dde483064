"""Event time as the error memory feels it: what a new example weighs beside older ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from memory.config import MemoryConfig


class Decay:
    """A clock that counts half-lives.

    Instead of shrinking everything as event time passes, each new example is written with a weight
    that doubles every half-life; only ratios of weights matter.

    Attributes:
        log2_weight: binary logarithm of what a new example weighs; always 0 without a half-life.
    """

    def __init__(self, config: MemoryConfig) -> None:
        self._half_life_ms = config.half_life_ms
        self._reset_every_ms = config.reset_every_ms
        self._scale = 1.0
        self._newest_ms: int | None = None
        self._reset_ms = 0
        self.log2_weight = 0.0

    def advance(self, time_ms: int) -> bool:
        """Move event time forward, never back; return whether a complete reset is due."""
        if self._newest_ms is None:
            self._newest_ms = self._reset_ms = time_ms
        passed_ms = max(time_ms - self._newest_ms, 0)
        self._newest_ms += passed_ms
        is_due = (
            self._reset_every_ms is not None
            and self._newest_ms - self._reset_ms >= self._reset_every_ms
        )
        if is_due:
            self._reset_ms = self._newest_ms
        if self._half_life_ms is not None:
            self.log2_weight += passed_ms / (self._half_life_ms * self._scale)
        return is_due

    def log2_weights(self, times_ms_N: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what examples of these times weigh at the pace of now; none is of the future."""
        if self._half_life_ms is None or self._newest_ms is None:
            return np.full(len(times_ms_N), self.log2_weight)
        age_ms_N = np.maximum(self._newest_ms - times_ms_N, 0)
        return self.log2_weight - age_ms_N / (self._half_life_ms * self._scale)

    def scale_half_life(self, factor: float) -> None:
        """Go at this many times the configured half-life from now on; not saved."""
        self._scale = factor

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            "log2_weight": self.log2_weight,
            "newest_ms": self._newest_ms,
            "reset_ms": self._reset_ms,
        }

    def load(self, state: State) -> None:
        """Become what `save` described; other keys are passed over."""
        self.log2_weight = state["log2_weight"]
        self._newest_ms = state["newest_ms"]
        self._reset_ms = state["reset_ms"]
