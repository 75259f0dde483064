"""Label counters: how often each value, and each pair of values, was followed by which label.

For every counted term (a field, or a pair of fields) and the value a candidate has in it, the
counters give the smoothed log-odds of each head against the overall rate, the log of the count, and
the same log-odds over the recent past only. They are state of the model and change only when
labels become known, so what a request is encoded with is what was known at that moment.

Beside them, how active a value was: positives of the first head, and days of event time on which it
was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import State
from domain.state_reading import StateReader
from ranking.compiled import compiled
from ranking.id_map import ABSENT
from ranking.row_store import RowsDelta, RowStore


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterConfig:
    """Smoothing, forgetting and size of the label counters."""

    max_entries: int = 2_000_000
    """Most (term, value) entries held; beyond it those not seen for longest leave."""
    half_life_ms: int = 6 * 3_600_000
    """Event time after which an outcome counts half in the recent rate."""
    prior_strength: float = 10.0
    """How many outcomes at the overall rate an entry starts with."""
    recent_prior_strength: float = 5.0
    """The same for the recent rate."""

    def __post_init__(self) -> None:
        for name in ("max_entries", "half_life_ms", "prior_strength", "recent_prior_strength"):
            value = getattr(self, name)
            if not value > 0:
                raise ConfigError(f"ranking.counters.{name} must be positive, got {value}")


NUM_ACTIVITY = 2
"""Numbers `read_activity` gives per key."""
_DAY_MS = 86_400_000


class _Columns(NamedTuple):
    """Columns of the counters by row: shown and positive per head (R, H), the others (R,)."""

    shown: NDArray[np.float32]
    positive: NDArray[np.float32]
    recent_shown: NDArray[np.float32]
    recent_positive: NDArray[np.float32]
    recent_ms: NDArray[np.int64]
    days: NDArray[np.float32]
    newest_day: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class CountersDelta:
    """Entries that changed, and the totals of each of H heads, float64 (H,)."""

    entries: RowsDelta
    shown_H: NDArray[np.float64]
    positive_H: NDArray[np.float64]


class LabelCounters:
    """Counts per 64-bit key; H heads. Which keys a candidate has is the encoder's business."""

    def __init__(self, config: CounterConfig, num_heads: int) -> None:
        self._config = config
        self._num_heads = num_heads
        heads = (num_heads,)
        self._entries = RowStore(
            {
                "shown": (np.float32, heads),
                "positive": (np.float32, heads),
                "recent_shown": (np.float32, ()),
                "recent_positive": (np.float32, ()),
                "recent_ms": (np.int64, ()),
                "days": (np.float32, ()),
                "newest_day": (np.int64, ()),
            },
            config.max_entries,
            "ranking.counters.max_entries",
        )
        # One of each outcome to start with, so that the overall rate is never 0 or 1.
        self._shown = np.full(num_heads, 2.0)
        self._positive = np.full(num_heads, 1.0)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def width(self) -> int:
        """Return how many numbers `read` gives per key."""
        return self._num_heads + 2

    def read(self, keys: NDArray[np.int64], time_ms: int) -> NDArray[np.float32]:
        """Return (..., H + 2) numbers for keys of any shape; all zeros for an unknown key.

        Per head the log-odds against the overall rate, then ln(1 + count) and the recent log-odds,
        both of the first head.
        """
        values = np.zeros((keys.size, self.width), np.float32)
        rate_H = self._positive / self._shown
        priors = (self._config.prior_strength, self._config.recent_prior_strength)
        rows = self._entries.find(keys.reshape(-1))
        _read(rows, self._columns(), rate_H, priors, time_ms, self._config.half_life_ms, values)
        return values.reshape(*keys.shape, self.width)

    def read_activity(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (..., 2) log counts, ln(1 + n), for keys of any shape; zeros for an unknown key.

        Positives of the first head, and days (UTC, event time) on which the key was seen. A day
        that is told of after a later one is not counted.
        """
        values = np.zeros((*keys.shape, NUM_ACTIVITY), np.float32)
        rows = self._entries.find(keys)
        known = rows >= 0
        values[known, 0] = self._entries["positive"][rows[known], 0]
        values[known, 1] = self._entries["days"][rows[known]]
        return np.log1p(values)

    def observe(
        self,
        keys_NK: NDArray[np.int64],
        labels_NH: NDArray[np.float32],
        corrections_N: NDArray[np.bool_],
        time_ms: int,
    ) -> None:
        """Count labels that became known; NaN is unknown, key 0 is no key.

        Args:
            keys_NK: the keys of N labelled items.
            labels_NH: their labels.
            corrections_N: where True the example was counted as negative before, so that only its
                positives are added now.
            time_ms: event time at which the labelled items were shown.
        """
        known_NH = ~np.isnan(labels_NH)
        positive_NH = np.where(known_NH, labels_NH, 0.0).astype(np.float32)
        shown_NH = np.where(corrections_N[:, None], 0.0, known_NH).astype(np.float32)
        self._shown += shown_NH.sum(0)
        self._positive += positive_NH.sum(0)
        for keys, shown, positive in zip(keys_NK, shown_NH, positive_NH, strict=True):
            rows = self._rows_of(np.unique(keys[keys != ABSENT]), time_ms)
            _add(rows, self._columns(), shown, positive, time_ms, self._config.half_life_ms)

    def save(self) -> State:
        """Return all counts as plain data."""
        return {
            "entries": self._entries.save(),
            "shown": self._shown.copy(),
            "positive": self._positive.copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._entries.load(state["entries"])
        self._shown = np.array(state["shown"], np.float64)
        self._positive = np.array(state["positive"], np.float64)

    def take_delta(self) -> State:
        """Return the counts that changed since the last call, and the totals."""
        return {
            "entries": self._entries.take_delta(_Columns._fields),
            "shown": self._shown.copy(),
            "positive": self._positive.copy(),
        }

    def read_delta(self, reader: StateReader) -> CountersDelta:
        """Check what `take_delta` returned.

        Raises:
            SnapshotError: it is something else.
        """
        heads = (self._num_heads,)
        return CountersDelta(
            self._entries.read_delta(reader.part("entries"), _Columns._fields),
            reader.array("shown", np.float64, heads),
            reader.array("positive", np.float64, heads),
        )

    def apply_delta(self, delta: CountersDelta) -> None:
        """Count as the counters do that the delta was taken from."""
        self._entries.apply_delta(delta.entries)
        self._shown = delta.shown_H.copy()
        self._positive = delta.positive_H.copy()

    def _rows_of(self, keys: NDArray[np.int64], time_ms: int) -> NDArray[np.int64]:
        """Return the rows of distinct keys, new ones where needed; less those that do not fit."""
        rows = self._entries.find(keys)
        self._entries.touch(rows[rows >= 0], time_ms)
        new = keys[rows < 0][: self._config.max_entries]
        if len(new):
            self._entries.insert(new, time_ms)
            rows = self._entries.find(keys)
        return rows[rows >= 0]

    def _columns(self) -> _Columns:
        return _Columns(*(self._entries[name] for name in _Columns._fields))


@compiled
def _read(
    rows: NDArray[np.int64],
    columns: _Columns,
    rate_H: NDArray[np.float64],
    priors: tuple[float, float],
    time_ms: int,
    half_life_ms: int,
    values: NDArray[np.float32],
) -> None:
    prior, recent_prior = priors
    num_heads = len(rate_H)
    overall_H = np.log(rate_H / (1 - rate_H))
    for i in range(len(rows)):
        row = rows[i]
        if row < 0:
            continue
        for head in range(num_heads):
            positive = columns.positive[row, head] + prior * rate_H[head]
            total = columns.shown[row, head] + prior
            values[i, head] = np.log(positive / (total - positive)) - overall_H[head]
        values[i, num_heads] = np.log1p(columns.shown[row, 0])
        age_ms = max(time_ms - columns.recent_ms[row], 0)
        fade = 0.5 ** (age_ms / half_life_ms)
        positive = columns.recent_positive[row] * fade + recent_prior * rate_H[0]
        total = columns.recent_shown[row] * fade + recent_prior
        values[i, num_heads + 1] = np.log(positive / (total - positive)) - overall_H[0]


@compiled
def _add(
    rows: NDArray[np.int64],
    columns: _Columns,
    shown_H: NDArray[np.float32],
    positive_H: NDArray[np.float32],
    time_ms: int,
    half_life_ms: int,
) -> None:
    day = time_ms // _DAY_MS + 1  # a new row's newest day is 0
    for row in rows:
        for head in range(len(shown_H)):
            columns.shown[row, head] += shown_H[head]
            columns.positive[row, head] += positive_H[head]
        if day > columns.newest_day[row]:
            columns.days[row] += 1
            columns.newest_day[row] = day
        # The recent counts are kept as of the newest outcome; an older one arrives faded.
        latest_ms = columns.recent_ms[row]
        reference_ms = max(latest_ms, time_ms)
        fade = 0.5 ** ((reference_ms - latest_ms) / half_life_ms)
        weight = 0.5 ** ((reference_ms - time_ms) / half_life_ms)
        columns.recent_shown[row] = columns.recent_shown[row] * fade + weight * shown_H[0]
        columns.recent_positive[row] = columns.recent_positive[row] * fade + weight * positive_H[0]
        columns.recent_ms[row] = reference_ms
