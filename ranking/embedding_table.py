"""The table of embedding rows: one per id, without collisions, learned by sparse Adagrad.

Reading never inserts. An id gets its row when it was seen in learning often enough, and loses it
when it was not seen for long enough or the table is full (both in event time). The rules follow
Monolith (Liu et al. 2022, section 2.1) with two differences: a new row is all zeros (the model adds
a learned default per field, so that an unseen id and a new one give the same score), and recycled
rows start anew, optimiser state included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import State
from domain.state_reading import StateReader
from ranking.row_store import RowsDelta, RowStore


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingTableConfig:
    """Size, admission, eviction and learning rate of the embedding table."""

    dimension: int = 16
    """Width of a row."""
    max_rows: int = 2_000_000
    """Most rows held; beyond it the least recently learned ones leave."""
    min_count: int = 1
    """How often an id must have been seen in learning before it gets a row."""
    max_waiting: int = 1_000_000
    """Most ids whose sightings are counted while they have no row."""
    ttl_ms: int = 90 * 24 * 3_600_000
    """How long, in event time, a row lives without being learned."""
    learning_rate: float = 0.03
    """Adagrad's step size."""
    initial_spread: float = 0.0
    """New rows are uniform within plus and minus this, drawn from the id itself."""

    def __post_init__(self) -> None:
        for name in ("dimension", "max_rows", "min_count", "max_waiting", "ttl_ms"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"ranking.table.{name} must be at least 1, got {value}")
        if not self.learning_rate > 0.0:
            raise ConfigError(
                f"ranking.table.learning_rate must be positive, got {self.learning_rate}"
            )


_TRAVELLING = ("weight",)
"""The columns that a prediction needs."""
_EPSILON = 1e-10
_STRIDE = np.uint64(0x9E3779B97F4A7C15)
_MIXING = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
"""SplitMix64 (Steele et al. 2014) with its last shift left out: only high bits are used."""
_SWEEPS_PER_TTL = 20
"""Expired rows are looked for this often, so a row outlives its time by at most 5 %."""


class EmbeddingTable:
    """id -> float32 row; D wide. Id `ABSENT` is never stored and reads as zeros."""

    def __init__(self, config: EmbeddingTableConfig) -> None:
        self._config = config
        width = (config.dimension,)
        self._rows = RowStore(
            {"weight": (np.float32, width), "square": (np.float32, width)},
            config.max_rows,
            "ranking.table.max_rows",
        )
        self._waiting = RowStore(
            {"count": (np.int64, ())}, config.max_waiting, "ranking.table.max_waiting"
        )
        self._next_sweep_ms = 0
        self._rate = config.learning_rate

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of ids of any shape, (..., D); zeros for ids without one."""
        rows = self._rows.find(ids)
        weights = self._rows["weight"]
        if not len(weights):
            return np.zeros((*ids.shape, self._config.dimension), np.float32)
        values = weights[rows]
        values[rows < 0] = 0.0
        return values.astype(np.float32, copy=False)

    def scale_learning_rate(self, factor: float) -> None:
        """Take steps of this many times the configured size from now on."""
        self._rate = self._config.learning_rate * factor

    def learn(
        self,
        ids: NDArray[np.int64],
        counts: NDArray[np.int64],
        gradients_ND: NDArray[np.float32],
        time_ms: int,
    ) -> None:
        """Take one Adagrad step on the rows of distinct ids; admit new ones, expire old ones.

        Args:
            ids: N distinct ids, none of them `ABSENT`.
            counts: how often each was seen in this batch.
            gradients_ND: gradient of the loss by each id's row, which for an id without a row
                means by a row of zeros.
            time_ms: event time of the batch's newest example.
        """
        self._expire(time_ms)
        rows = self._admit(ids, counts, time_ms)
        known = rows >= 0
        rows, gradients_ND = rows[known], gradients_ND[known]
        square, weight = self._rows["square"], self._rows["weight"]
        square_ND = square[rows] + gradients_ND**2
        square[rows] = square_ND
        weight[rows] -= self._rate * gradients_ND / (np.sqrt(square_ND) + _EPSILON)
        self._rows.touch(rows, time_ms)

    def take_delta(self) -> State:
        """Return the rows learned and the ids that left since the last call; no optimiser state."""
        return self._rows.take_delta(_TRAVELLING)

    def read_delta(self, reader: StateReader) -> RowsDelta:
        """Check what `take_delta` returned; see `RowStore.read_delta`."""
        return self._rows.read_delta(reader, _TRAVELLING)

    def apply_delta(self, delta: RowsDelta) -> None:
        """Read from now on as the table does that the delta was taken from."""
        self._rows.apply_delta(delta)

    def save(self) -> State:
        """Return rows, optimiser state and sightings as plain data."""
        return {
            "rows": self._rows.save(),
            "waiting": self._waiting.save(),
            "next_sweep_ms": self._next_sweep_ms,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._rows.load(state["rows"])
        self._waiting.load(state["waiting"])
        self._next_sweep_ms = int(state["next_sweep_ms"])

    def _admit(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], time_ms: int
    ) -> NDArray[np.int64]:
        rows = self._rows.find(ids)
        absent = np.flatnonzero(rows < 0)
        if self._config.min_count > 1 and len(absent):
            absent = absent[self._seen_enough(ids[absent], counts[absent], time_ms)]
        absent = absent[: self._config.max_rows]
        if not len(absent):
            return rows
        # Rows about to learn must not be the ones evicted to make room for the new ones.
        present = rows[rows >= 0]
        self._rows.touch(present, time_ms)
        inserted = self._rows.insert(ids[absent], time_ms)
        self._rows["weight"][inserted.rows] = self._initial(ids[absent])
        return self._rows.find(ids)

    def _initial(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the first values of new rows.

        They follow from the id, so that it starts alike in every run and order of arrival.
        """
        columns = np.arange(1, self._config.dimension + 1, dtype=np.uint64) * _STRIDE
        mixed = ids.view(np.uint64)[:, None] + columns
        for shift, factor in _MIXING:
            mixed = (mixed ^ (mixed >> shift)) * factor
        uniform = (mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - 1
        return uniform * np.float32(self._config.initial_spread)

    def _seen_enough(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], time_ms: int
    ) -> NDArray[np.bool_]:
        """Count sightings of ids without a row; return which of them may have one now."""
        rows = self._waiting.find(ids)
        before = np.zeros(len(ids), np.int64)
        if len(self._waiting):
            before = np.where(rows >= 0, self._waiting["count"][rows], 0).astype(np.int64)
        enough: NDArray[np.bool_] = before + counts >= self._config.min_count
        new = np.flatnonzero(~enough & (rows < 0))[: self._config.max_waiting]
        if len(new):
            self._waiting.insert(ids[new], time_ms)
        rows = self._waiting.find(ids)
        wait = ~enough & (rows >= 0)
        self._waiting["count"][rows[wait]] = (before + counts)[wait]
        self._waiting.touch(rows[wait], time_ms)
        return enough

    def _expire(self, time_ms: int) -> None:
        if time_ms < self._next_sweep_ms:
            return
        oldest_ms = time_ms - self._config.ttl_ms
        self._rows.evict_before(oldest_ms)
        self._waiting.evict_before(oldest_ms)
        self._next_sweep_ms = time_ms + self._config.ttl_ms // _SWEEPS_PER_TTL
