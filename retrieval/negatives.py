"""Negatives: the columns of the softmax, and how each is corrected for having been sampled.

Up to a configured catalog size the softmax runs over the whole catalog. Above it, columns are the
batch's own items, draws from a reservoir of recent items, and uniform draws from the catalog.
Written as one mixture, Q(j) = (draws from the stream * p(j) + uniform draws / items) / draws,

    exp(s_y) + sum over drawn j other than y of count(j) * exp(s_j) / (draws * Q(j))

is an unbiased estimate of the full softmax's denominator: the logQ correction adds
log count(j) - log(draws * Q(j)) to a drawn logit. Uniform draws keep items that nobody takes from
floating up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import State
from retrieval.frequency import StreamingFrequency
from retrieval.id_rows import UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class NegativesConfig:
    """When to sample, and how much.

    Attributes:
        full_softmax_items: largest catalog that is scored completely in every step.
        reservoir: recent positive items that are kept to draw from.
        from_reservoir: draws per step from the reservoir.
        uniform: draws per step from the whole catalog.
        frequency_rate: weight of the newest gap in the moving average of gaps.
    """

    full_softmax_items: int = 15_000
    reservoir: int = 16_384
    from_reservoir: int = 1_024
    uniform: int = 1_024
    frequency_rate: float = 0.05

    def __post_init__(self) -> None:
        for name in ("full_softmax_items", "from_reservoir"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"retrieval.negatives.{name} must not be negative, got {getattr(self, name)}"
                )
        for name in ("reservoir", "uniform"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"retrieval.negatives.{name} must be at least 1, got {getattr(self, name)}"
                )
        if not 0.0 < self.frequency_rate <= 1.0:
            raise ConfigError(
                f"retrieval.negatives.frequency_rate must be in (0, 1], got {self.frequency_rate}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The C items a softmax runs over, for B targets.

    Attributes:
        rows: int64 (C,) ascending, None for all rows in order.
        correction_C: float32, added to a column's logit wherever it is not the target: logQ, or
            -inf for rows that are not available; None when there is nothing to correct.
        target_B: int64, column of each target.
    """

    rows: NDArray[np.int64] | None
    correction_C: NDArray[np.float32] | None
    target_B: NDArray[np.int64]


class NegativeSampler:
    """Draws columns; keeps recent items and how frequent each is."""

    def __init__(self, config: NegativesConfig, generator: np.random.Generator) -> None:
        self._config = config
        self._generator = generator
        self._frequency = StreamingFrequency(config.frequency_rate)
        self._recent = np.full(config.reservoir, UNKNOWN, dtype=np.int64)
        self._next_slot = 0

    def grow(self, num_rows: int) -> None:
        """Make room for rows below `num_rows`."""
        self._frequency.grow(num_rows)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Forget rows that now belong to other items."""
        self._frequency.reset(rows)
        self._recent[np.isin(self._recent, rows)] = UNKNOWN

    def learn(self, rows: NDArray[np.int64]) -> None:
        """Take in M positive items, oldest first."""
        self._frequency.learn(rows)
        newest = rows[-len(self._recent) :]
        slots = (self._next_slot + np.arange(len(newest))) % len(self._recent)
        self._recent[slots] = newest
        self._next_slot = int((self._next_slot + len(newest)) % len(self._recent))

    def columns(self, targets: NDArray[np.int64], available: NDArray[np.bool_]) -> Columns:
        """Choose the columns for a batch of B target rows.

        Args:
            targets: rows of the items that were taken.
            available: bool (N,), rows that may be drawn; all targets are.
        """
        catalog = np.flatnonzero(available)
        if len(catalog) <= self._config.full_softmax_items:
            blocked_C = np.where(available, np.float32(0.0), np.float32(-np.inf))
            return Columns(None, None if available.all() else blocked_C, targets)
        from_stream = self._draw_recent(available)
        uniform = catalog[self._generator.integers(len(catalog), size=self._config.uniform)]
        rows, count_C = np.unique(
            np.concatenate([targets, from_stream, uniform]), return_counts=True
        )
        # For each target the other B - 1 of the batch are draws; its own column is never one.
        num_stream = len(targets) - 1 + len(from_stream)
        expected_C = num_stream * self._frequency.probability(rows) + len(uniform) / len(catalog)
        return Columns(
            rows=rows,
            correction_C=np.asarray(np.log(count_C / expected_C), dtype=np.float32),
            target_B=np.searchsorted(rows, targets),
        )

    def _draw_recent(self, available: NDArray[np.bool_]) -> NDArray[np.int64]:
        held: NDArray[np.int64] = self._recent[self._recent != UNKNOWN]
        held = held[available[held]]
        if not len(held):
            return held
        drawn: NDArray[np.int64] = held[
            self._generator.integers(len(held), size=self._config.from_reservoir)
        ]
        return drawn

    def save(self) -> State:
        """Return frequencies, recent items and the random state."""
        return {
            "frequency": self._frequency.save(),
            "recent": self._recent.copy(),
            "next_slot": self._next_slot,
            "generator": self._generator.bit_generator.state,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._frequency.load(state["frequency"])
        self._recent = np.array(state["recent"], dtype=np.int64)
        self._next_slot = int(state["next_slot"])
        self._generator.bit_generator.state = state["generator"]
