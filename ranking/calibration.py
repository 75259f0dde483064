"""Calibration: a running correction of each head's logit, so that 30 % means three in ten.

Learned from logits that were made before their labels were learned from. Platt scaling (a, b) ->
sigmoid(a * logit + b) knows two numbers per head; isotonic regression knows any shape that keeps
the order, and needs more examples for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import State
from domain.state_reading import StateReader

Method = Literal["platt", "isotonic", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationConfig:
    """What corrects the probabilities, and how fast it follows."""

    method: Method = "platt"
    """"platt": a slope and an offset. "isotonic": any rising curve. "none": the network's own."""

    half_life_examples: int = 20_000
    """Examples after which an earlier one counts half."""
    prior_examples: float = 200.0
    """Weight, in examples of an even outcome, of the belief that nothing needs correcting."""

    def __post_init__(self) -> None:
        if self.method not in ("platt", "isotonic", "none"):
            raise ConfigError(
                f"ranking.calibration.method must be platt, isotonic or none, got {self.method!r}"
            )
        for name in ("half_life_examples", "prior_examples"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"ranking.calibration.{name} must be positive, got {value}")


class Calibrator(Protocol):
    """Corrects logits; learns from those whose labels became known."""

    def apply(self, logits_NH: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return calibrated probabilities, (N, H); changes nothing."""

    def update(
        self,
        logits_MH: NDArray[np.float32],
        labels_MH: NDArray[np.float32],
        weights_MH: NDArray[np.float32],
        log_rates_M: NDArray[np.float32],
    ) -> None:
        """Learn from a batch of revealed labels; weight 0 leaves an example out."""

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""

    def load(self, state: State) -> None:
        """Become what `save` described."""

    def read_delta(self, reader: StateReader) -> State:
        """Check what `save` of another returned."""


def build_calibrator(config: CalibrationConfig, num_heads: int) -> Calibrator:
    """Return the calibrator that was chosen, which corrects nothing yet."""
    if config.method == "isotonic":
        return IsotonicCalibrator(config, num_heads)
    if config.method == "none":
        return NoCalibrator()
    return PlattCalibrator(config, num_heads)


class NoCalibrator:
    """Leaves the network's probabilities as they are."""

    def apply(self, logits_NH: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's own probabilities, (N, H)."""
        return sigmoid(logits_NH).astype(np.float32)

    def update(
        self,
        logits_MH: NDArray[np.float32],
        labels_MH: NDArray[np.float32],
        weights_MH: NDArray[np.float32],
        log_rates_M: NDArray[np.float32],
    ) -> None:
        """Do nothing."""

    def save(self) -> State:
        """Return nothing."""
        return {}

    def load(self, state: State) -> None:
        """Take nothing."""

    def read_delta(self, reader: StateReader) -> State:
        """Return nothing."""
        del reader
        return {}


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
        return sigmoid(scaled).astype(np.float32)

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
            p = sigmoid(inputs @ theta - log_rates_M[known])
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


_KNOTS_K = np.linspace(-8.0, 8.0, 65)
"""Logits at which the curve is known, a quarter apart: probabilities of .0003 to .9997."""
_OWN_ORDER = 0.01
"""Share of the network's own logit in the corrected one. Isotonic regression gives equal values to
what it cannot tell apart; this keeps the order there."""


class IsotonicCalibrator:
    """Per head a rising curve over the logit: fading counts at knots, made monotone.

    Every example counts at the two knots around its logit, by nearness; pooling adjacent violators
    (Ayer et al. 1955) makes the rates rise; between knots the curve is a straight line in logits.
    """

    def __init__(self, config: CalibrationConfig, num_heads: int) -> None:
        self._config = config
        self._prior = config.prior_examples / len(_KNOTS_K)
        shape = (num_heads, len(_KNOTS_K))
        self._weight_HK = np.zeros(shape)
        self._positive_HK = np.zeros(shape)
        self._curve_HK = np.tile(_KNOTS_K, (num_heads, 1))

    def apply(self, logits_NH: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return calibrated probabilities, (N, H); changes nothing."""
        corrected = np.empty(logits_NH.shape, np.float64)
        for head, curve_K in enumerate(self._curve_HK):
            logit_N = logits_NH[:, head].astype(np.float64)
            inside_N = np.clip(logit_N, _KNOTS_K[0], _KNOTS_K[-1])
            # Beyond the last knots the curve goes on as the network's own.
            bent_N = np.interp(inside_N, _KNOTS_K, curve_K) + (logit_N - inside_N)
            corrected[:, head] = (1 - _OWN_ORDER) * bent_N + _OWN_ORDER * logit_N
        return sigmoid(corrected).astype(np.float32)

    def update(
        self,
        logits_MH: NDArray[np.float32],
        labels_MH: NDArray[np.float32],
        weights_MH: NDArray[np.float32],
        log_rates_M: NDArray[np.float32],
    ) -> None:
        """Count revealed labels at their knots; a kept negative stands for those left out."""
        keep = 0.5 ** (len(logits_MH) / self._config.half_life_examples)
        self._weight_HK *= keep
        self._positive_HK *= keep
        last = len(_KNOTS_K) - 1
        for head in range(logits_MH.shape[1]):
            known = weights_MH[:, head] > 0
            label = labels_MH[known, head].astype(np.float64)
            sampled = np.where(label > 0.5, 1.0, np.exp(-log_rates_M[known].astype(np.float64)))
            weight = weights_MH[known, head] * sampled
            place = np.interp(logits_MH[known, head], _KNOTS_K, np.arange(last + 1))
            low = np.minimum(place.astype(np.int64), last - 1)
            for knot, part in ((low, 1 - (place - low)), (low + 1, place - low)):
                self._weight_HK[head] += np.bincount(knot, weight * part, last + 1)
                self._positive_HK[head] += np.bincount(knot, weight * part * label, last + 1)
            self._bend(head)

    def _bend(self, head: int) -> None:
        weight_K = self._weight_HK[head] + self._prior
        positive_K = self._positive_HK[head] + self._prior * sigmoid(_KNOTS_K)
        rate_K = pooled_adjacent_violators(positive_K / weight_K, weight_K)
        self._curve_HK[head] = np.log(rate_K / (1 - rate_K))

    def save(self) -> State:
        """Return counts and curves as plain data."""
        return {
            "weight": self._weight_HK.copy(),
            "positive": self._positive_HK.copy(),
            "curve": self._curve_HK.copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._weight_HK = np.array(state["weight"], np.float64)
        self._positive_HK = np.array(state["positive"], np.float64)
        self._curve_HK = np.array(state["curve"], np.float64)

    def read_delta(self, reader: StateReader) -> State:
        """Check what `save` of another returned, which is small enough to travel whole.

        Raises:
            SnapshotError: it is something else.
        """
        return {
            name: reader.array(name, np.float64, own.shape) for name, own in self.save().items()
        }


def pooled_adjacent_violators(
    value_K: NDArray[np.float64], weight_K: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the rising values nearest to these by weighted squares.

    >>> pooled_adjacent_violators(np.array([0.1, 0.4, 0.2]), np.ones(3)).round(2).tolist()
    [0.1, 0.3, 0.3]
    """
    blocks: list[list[float]] = []  # mean, weight, length
    for value, weight in zip(value_K.tolist(), weight_K.tolist(), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, total, length = blocks.pop()
            before = blocks[-1]
            weight_sum = before[1] + total
            blocks[-1] = [
                (before[0] * before[1] + mean * total) / weight_sum,
                weight_sum,
                before[2] + length,
            ]
    return np.repeat([block[0] for block in blocks], [int(block[2]) for block in blocks])


def sigmoid(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)), beyond 60 as at 60."""
    return 1.0 / (1.0 + np.exp(-np.clip(x.astype(np.float64), -60.0, 60.0)))
