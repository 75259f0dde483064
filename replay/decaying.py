"""Counts that halve with event time, without touching them: new ones grow instead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MAX_HALVINGS = 500.0
_FIRST_CAPACITY = 1024


class _Growth:
    """What an action at a time weighs now: it grows with time, so that old ones need no decay.

    Before the growth outruns a float everything is scaled down, by a power of two: exact, but for
    actions some 1,000 half-lives old, which become 0.
    """

    def __init__(self, half_life_ms: float) -> None:
        self._half_life_ms = half_life_ms
        self.origin_ms: int | None = None

    def rescale(self, time_ms: int) -> float:
        """Return what all weights must be multiplied with before `time_ms` is weighed; mostly 1."""
        if self.origin_ms is None:
            self.origin_ms = time_ms
        halvings = (time_ms - self.origin_ms) / self._half_life_ms
        if halvings <= _MAX_HALVINGS:
            return 1.0
        shift = int(halvings)
        self.origin_ms += round(shift * self._half_life_ms)
        return float(2.0**-shift) if shift < 1000 else 0.0

    def weight(self, time_ms: int) -> float:
        assert self.origin_ms is not None
        halvings = (time_ms - self.origin_ms) / self._half_life_ms
        return float(2.0 ** max(halvings, -1000.0))


class DecayingWeights:
    """A weight per code (0, 1, 2, ...)."""

    def __init__(self, half_life_ms: float) -> None:
        self._growth = _Growth(half_life_ms)
        self._weights = np.zeros(_FIRST_CAPACITY)

    def add(self, code: int, time_ms: int) -> None:
        """Count one action; an older action counts less, in whatever order they come."""
        self._reserve(code + 1)
        factor = self._growth.rescale(time_ms)
        if factor != 1.0:
            self._weights *= factor
        self._weights[code] += self._growth.weight(time_ms)

    def weights(self, size: int) -> NDArray[np.float64]:
        """Return the weights of the first codes, on a scale of their own."""
        self._reserve(size)
        return self._weights[:size]

    def _reserve(self, size: int) -> None:
        if size > len(self._weights):
            grown = np.zeros(max(size, 2 * len(self._weights)))
            grown[: len(self._weights)] = self._weights
            self._weights = grown


class DecayingPairs:
    """For each code the codes that came after it, with weights; the weakest give way."""

    def __init__(self, half_life_ms: float, max_partners: int) -> None:
        self._growth = _Growth(half_life_ms)
        self._max_partners = max_partners
        self._partners: dict[int, dict[int, float]] = {}
        self._totals: dict[int, float] = {}

    def add(self, code: int, partner: int, time_ms: int) -> None:
        """Count that `partner` came after `code`."""
        factor = self._growth.rescale(time_ms)
        if factor != 1.0:
            self._scale(factor)
        partners = self._partners.setdefault(code, {})
        weight = self._growth.weight(time_ms)
        partners[partner] = partners.get(partner, 0.0) + weight
        self._totals[code] = self._totals.get(code, 0.0) + weight
        if len(partners) > self._max_partners:
            kept = sorted(partners, key=lambda one: -partners[one])[: self._max_partners // 2 + 1]
            self._partners[code] = {one: partners[one] for one in kept}

    def of(self, code: int) -> tuple[dict[int, float], float]:
        """Return the weights of what came after `code`, and the weight of all that ever did."""
        return self._partners.get(code, {}), self._totals.get(code, 1.0) or 1.0

    def _scale(self, factor: float) -> None:
        for partners in self._partners.values():
            for partner in partners:
                partners[partner] *= factor
        self._totals = {code: total * factor for code, total in self._totals.items()}
