"""Calibration: a running correction of each head's logit, so that 30 % means three in ten.

Platt scaling (a, b) -> sigmoid(a * logit + b), learned from logits that were made before their
labels were learned from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import State
from domain.state_reading import StateReader


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """How fast calibration follows."""

    half_life_examples: int = 20_000
    """Examples after which an earlier one counts half."""
    prior_examples: float = 200.0
    """Weight, in examples of an even outcome, of the belief that nothing needs correcting."""

    def __post_init__(self) -> None:
        for name in ("half_life_examples", "prior_examples"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"ranking.calibration.{name} must be positive, got {value}")


class PlattCalibrator:
    """Per head a slope and an offset, by online Newton steps with fading memory."""

    def __init__(self, config: CalibrationConfig, num_heads: int) -> None:
        self._config = config
        # An even outcome has variance 1/4, so `prior_examples` of them at logits of size 1
        # weigh this much.
        self._prior = 0.25 * config.prior_examples
        self._theta_H2 = np.tile([1.0, 0.0], (num_heads, 1))
        self._curvature_H22 = np.tile(self._prior * np.eye(2), (num_heads, 1, 1))

    def apply(self, logits_NH: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return calibrated probabilities, (N, H); changes nothing."""
        scaled = logits_NH * self._theta_H2[:, 0] + self._theta_H2[:, 1]
        return _sigmoid(scaled).astype(np.float32)

    def update(
        self,
        logits_MH: NDArray[np.float32],
        labels_MH: NDArray[np.float32],
        weights_MH: NDArray[np.float32],
        log_rates_M: NDArray[np.float32],
    ) -> None:
        """Take one Newton step on a batch of revealed labels; weight 0 leaves an example out."""
        keep = 0.5 ** (len(logits_MH) / self._config.half_life_examples)
        for head in range(logits_MH.shape[1]):
            weight = weights_MH[:, head].astype(np.float64)
            known = weight > 0
            if not known.any():
                continue
            inputs = np.stack([logits_MH[known, head], np.ones(int(known.sum()))], axis=1)
            inputs = inputs.astype(np.float64)
            theta = self._theta_H2[head]
            p = _sigmoid(inputs @ theta - log_rates_M[known])
            error = weight[known] * (labels_MH[known, head] - p)
            variance = weight[known] * p * (1 - p)
            fresh = (inputs * variance[:, None]).T @ inputs
            # What fades is replaced by the prior, which pulls back to "nothing to correct".
            curvature = keep * self._curvature_H22[head] + fresh
            refill = (1 - keep) * self._prior
            curvature += refill * np.eye(2)
            gradient = inputs.T @ error + refill * (np.array([1.0, 0.0]) - theta)
            step = np.linalg.solve(curvature, gradient)
            slope, offset = theta + np.clip(step, -0.1, 0.1)
            # A negative slope would turn the order of the answers round.
            self._theta_H2[head] = max(slope, 0.1), offset
            self._curvature_H22[head] = curvature

    def save(self) -> State:
        """Return slopes, offsets and their certainty as plain data."""
        return {"theta": self._theta_H2.copy(), "curvature": self._curvature_H22.copy()}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._theta_H2 = np.array(state["theta"], np.float64)
        self._curvature_H22 = np.array(state["curvature"], np.float64)

    def read_delta(self, reader: StateReader) -> State:
        """Check what `save` of another returned, which is small enough to travel whole.

        Raises:
            SnapshotError: it is something else.
        """
        return {
            name: reader.array(name, np.float64, own.shape) for name, own in self.save().items()
        }


def _sigmoid(x: NDArray[np.floating]) -> NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-np.clip(x.astype(np.float64), -60.0, 60.0)))
