"""Clipping by measured norm: a gradient far larger than usual is cut to what is usual.

What is usual is the running median of the norms there were, so that nobody has to guess a bound and
it moves with the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from domain.errors import ConfigError
from domain.state import State

_STEP = 0.05
"""How far the median's logarithm moves with each norm: it follows a doubling in 14 steps."""
_FIRST = 20
"""Norms seen before the first is cut: of fewer there is no usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippingConfig:
    """How much larger than usual a gradient may be."""

    factor: float = 5.0
    """A gradient's norm is cut to this many times the running median of norms; 0 cuts none."""

    def __post_init__(self) -> None:
        if self.factor and not self.factor >= 1.0:
            raise ConfigError(f"ranking.clipping.factor must be 0 or at least 1, got {self.factor}")


class NormClipper:
    """Cuts gradients, and remembers how large they are."""

    def __init__(self, config: ClippingConfig) -> None:
        self._factor = config.factor
        self._log_median = 0.0
        self._seen = 0
        self.clipped = 0
        """How many gradients were cut so far."""

    @property
    def median(self) -> float:
        """Return the running median of the norms; 1 before the first."""
        return math.exp(self._log_median)

    def clip(self, gradients: Sequence[Tensor]) -> float:
        """Scale finite gradients, together one vector, in place; return their norm before."""
        norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
        norm = float(torch.linalg.vector_norm(norms))
        if norm == 0.0:
            return norm
        bound = self._factor * self.median
        if self._factor and self._seen >= _FIRST and norm > bound:
            self.clipped += 1
            for gradient in gradients:
                gradient.mul_(bound / norm)
        self._observe(math.log(norm))
        return norm

    def _observe(self, log_norm: float) -> None:
        if self._seen == 0:
            self._log_median = log_norm
        # Steps of one size up and down end where as many norms lie above as below.
        self._log_median += math.copysign(_STEP, log_norm - self._log_median) * (
            log_norm != self._log_median
        )
        self._seen += 1

    def save(self) -> State:
        """Return what is usual as plain data."""
        return {"log_median": self._log_median, "seen": self._seen, "clipped": self.clipped}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._log_median = float(state["log_median"])
        self._seen, self.clipped = int(state["seen"]), int(state["clipped"])
