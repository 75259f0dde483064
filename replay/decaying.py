"""Counts that halve with event time, without touching them: new ones grow instead."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.state import State

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

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {"origin_ms": self._growth.origin_ms, "weights": self._weights.copy()}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._growth.origin_ms = state["origin_ms"]
        self._weights = state["weights"].copy()

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
        self._partners: dict[int, _Partners] = {}

    def add(self, code: int, partner: int, time_ms: int) -> None:
        """Count that `partner` came after `code`."""
        factor = self._growth.rescale(time_ms)
        if factor != 1.0:
            for partners in self._partners.values():
                partners.scale(factor)
        partners = self._partners.get(code) or self._partners.setdefault(code, _Partners())
        partners.add(partner, self._growth.weight(time_ms))
        if len(partners) > self._max_partners:
            partners.keep_strongest(self._max_partners // 2 + 1)

    def of(self, code: int) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
        """Return what came after `code`, int64 (P,), its weights (P,), and all the weight ever.

        The arrays are those that are counted in: read them, and keep none.
        """
        partners = self._partners.get(code)
        if partners is None:
            return _NO_CODES, _NO_WEIGHTS, 1.0
        return *partners.arrays(), partners.total or 1.0

    def save(self) -> State:
        """Return everything `load` needs, as plain data: all partners in columns."""
        columns = [partners.arrays() for partners in self._partners.values()]
        return {
            "origin_ms": self._growth.origin_ms,
            "codes": np.fromiter(self._partners, np.int64, len(self._partners)),
            "totals": np.array([one.total for one in self._partners.values()], np.float64),
            "sizes": np.array([len(codes) for codes, _ in columns], np.int64),
            "partners": np.concatenate([_NO_CODES, *(codes for codes, _ in columns)]),
            "weights": np.concatenate([_NO_WEIGHTS, *(weights for _, weights in columns)]),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._growth.origin_ms = state["origin_ms"]
        self._partners, begin = {}, 0
        rows = (state[name].tolist() for name in ("codes", "totals", "sizes"))
        for code, total, size in zip(*rows, strict=True):
            end = begin + size
            partners, weights = state["partners"][begin:end], state["weights"][begin:end]
            self._partners[code] = _Partners(partners, weights, total)
            begin = end


_NO_CODES = np.zeros(0, np.int64)
_NO_WEIGHTS = np.zeros(0, np.float64)
_FIRST_PARTNERS = 8


class _Partners:
    """What came after one code, as columns: a pass over them costs no Python per partner."""

    __slots__ = ("_codes", "_rows", "_weights", "total")

    def __init__(
        self,
        codes: NDArray[np.int64] | None = None,
        weights: NDArray[np.float64] | None = None,
        total: float = 0.0,
    ) -> None:
        self._rows: dict[int, int] = {}
        self._codes = np.zeros(_FIRST_PARTNERS, np.int64)
        self._weights = np.zeros(_FIRST_PARTNERS)
        self.total = total
        if codes is not None and weights is not None:
            self._hold(codes, weights)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, partner: int, weight: float) -> None:
        row = self._rows.get(partner)
        if row is None:
            row = self._rows[partner] = len(self._rows)
            if row == len(self._codes):
                self._codes = np.concatenate([self._codes, np.zeros_like(self._codes)])
                self._weights = np.concatenate([self._weights, np.zeros_like(self._weights)])
            self._codes[row] = partner
            self._weights[row] = 0.0
        self._weights[row] += weight
        self.total += weight

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        size = len(self._rows)
        return self._codes[:size], self._weights[:size]

    def scale(self, factor: float) -> None:
        self._weights *= factor
        self.total *= factor

    def keep_strongest(self, num_kept: int) -> None:
        codes, weights = self.arrays()
        kept = np.argsort(-weights, kind="stable")[:num_kept]
        self._hold(codes[kept], weights[kept])

    def _hold(self, codes: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        self._codes, self._weights = codes.copy(), weights.copy()
        self._rows = {code: row for row, code in enumerate(codes.tolist())}
