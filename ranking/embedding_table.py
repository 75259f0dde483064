"""The table of embedding rows: one per id, without collisions, learned a few rows at a time.

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
from ranking.admission import RULES, Admission, AdmissionRule
from ranking.id_map import ABSENT
from ranking.id_noise import uniform
from ranking.row_groups import RowGrouper, RowGroups
from ranking.row_optimiser import OPTIMISERS, OptimiserName, RowOptimiser
from ranking.row_store import Inserted, RowsDelta, RowStore


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingTableConfig:
    """Size, admission, eviction and learning rate of the embedding table."""

    dimension: int = 16
    """Width of a row."""
    max_rows: int = 2_000_000
    """Most rows held; beyond it the least recently learned ones leave."""
    admission: AdmissionRule = "count"
    """Whether an id gets its row at the `min_count`-th sighting, or by chance."""
    min_count: int = 1
    """How often an id must have been seen in learning before it gets a row; under the rules of
    chance, about how often it is."""
    max_waiting: int = 1_000_000
    """Most ids whose sightings are counted while they have no row."""
    ttl_ms: int = 90 * 24 * 3_600_000
    """How long, in event time, a row lives without being learned."""
    optimiser: OptimiserName = "adagrad"
    """How rows move; see `row_steps`."""
    learning_rate: float = 0.03
    """The optimiser's step size."""
    adam_betas: tuple[float, float] = (0.9, 0.999)
    """How much of its averages lazy Adam keeps at each step of a row."""
    initial_spread: float = 0.0
    """New rows are uniform within plus and minus this, drawn from the id itself."""

    def __post_init__(self) -> None:
        for name in ("dimension", "max_rows", "min_count", "max_waiting", "ttl_ms"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"ranking.table.{name} must be at least 1, got {value}")
        for name, choices in (("admission", RULES), ("optimiser", OPTIMISERS)):
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"ranking.table.{name} must be one of {', '.join(choices)}, "
                    f"got {getattr(self, name)!r}"
                )
        if not self.learning_rate > 0.0:
            raise ConfigError(
                f"ranking.table.learning_rate must be positive, got {self.learning_rate}"
            )
        if len(self.adam_betas) != 2 or not all(0.0 <= beta < 1.0 for beta in self.adam_betas):
            raise ConfigError(
                f"ranking.table.adam_betas must be two numbers from 0 to below 1, "
                f"got {self.adam_betas}"
            )


_TRAVELLING = ("weight",)
"""The columns that a prediction needs."""
_SWEEPS_PER_TTL = 20
"""Expired rows are looked for this often, so a row outlives its time by at most 5 %."""


class EmbeddingTable:
    """id -> float32 row; D wide. Id `ABSENT` is never stored and reads as zeros.

    Ids are read and learned one by one, or in bags whose rows are summed.
    """

    def __init__(self, config: EmbeddingTableConfig, seed: int = 0) -> None:
        self._config = config
        self._optimiser = RowOptimiser(config.optimiser, config.dimension, config.adam_betas)
        self._rows = RowStore(self._optimiser.columns, config.max_rows, "ranking.table.max_rows")
        self._grouper = RowGrouper(config.max_rows)
        self._admission = Admission(config.admission, config.min_count, config.max_waiting, seed)
        self._next_sweep_ms = 0
        self._rate = config.learning_rate

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of ids of any shape, (..., D); zeros for ids without one."""
        values_ND = self.read_bags(ids.reshape(-1, 1))
        return values_ND.reshape(*ids.shape, self._config.dimension)

    def read_bags(self, ids_BI: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the sum of the rows of each bag of ids, (B, D)."""
        return self._optimiser.read_bags(self._rows, self._rows.find(ids_BI))

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
        """Take one step on the rows of distinct ids; admit new ones, expire old ones.

        Args:
            ids: N distinct ids, none of them `ABSENT`.
            counts: how often each was seen in this batch.
            gradients_ND: gradient of the loss by each id's row, which for an id without a row
                means by a row of zeros.
            time_ms: event time of the batch's newest example.
        """
        self._expire(time_ms)
        rows = self._rows.find(ids)
        self._rows.touch(rows[rows >= 0], time_ms)
        absent = rows < 0
        if absent.any() and self._take_in(ids[absent], counts[absent], time_ms) is not None:
            rows = self._rows.find(ids)
        self._optimiser.step(self._rows, RowGroups.of_distinct(rows), gradients_ND, self._rate)

    def learn_bags(
        self, ids_BI: NDArray[np.int64], gradients_BD: NDArray[np.float32], time_ms: int
    ) -> None:
        """Take one step on the rows of all ids in bags, after `read_bags`; otherwise as `learn`.

        Args:
            ids_BI: ids of B bags; they may repeat, within a bag, too, and be `ABSENT`.
            gradients_BD: gradient of the loss by the sum of each bag.
            time_ms: event time of the batch's newest example.
        """
        self._expire(time_ms)
        rows_BI = self._rows.find(ids_BI)
        self._rows.touch(rows_BI[rows_BI >= 0], time_ms)
        absent_BI = (rows_BI < 0) & (ids_BI != ABSENT)
        if absent_BI.any():
            new, counts = np.unique(ids_BI[absent_BI], return_counts=True)
            inserted = self._take_in(new, counts, time_ms)
            if inserted is not None:
                # Where others had to leave, they may be of this batch when it is a late one.
                asked_BI = absent_BI if not len(inserted.evicted_ids) else ids_BI != ABSENT
                rows_BI[asked_BI] = self._rows.find(ids_BI[asked_BI])
        self._optimiser.step(self._rows, self._grouper.group(rows_BI), gradients_BD, self._rate)

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
            "admission": self._admission.save(),
            "next_sweep_ms": self._next_sweep_ms,
        }

    def load(self, state: State) -> None:
        """Become what `save` described.

        Raises:
            SnapshotError: it was saved under another optimiser, or before there were several.
        """
        reader = StateReader(state, "ranking.table")
        kept = reader.part("rows").part("columns")
        for name, (dtype, shape) in self._optimiser.columns.items():
            kept.array(name, dtype, (None, *shape), finite=False)
        reader.part("admission")
        self._rows.load(state["rows"])
        self._admission.load(state["admission"])
        self._next_sweep_ms = reader.integer("next_sweep_ms")

    def _take_in(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], time_ms: int
    ) -> Inserted | None:
        """Give rows to those of distinct ids without one that may have one; None if none may."""
        admitted = ids[self._admission.admits(ids, counts, time_ms)][: self._config.max_rows]
        if not len(admitted):
            return None
        inserted = self._rows.insert(admitted, time_ms)
        if self._config.initial_spread:
            self._rows["weight"][inserted.rows] = self._initial(admitted)
        return inserted

    def _initial(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the first values of new rows, which follow from their ids."""
        places = np.arange(1, self._config.dimension + 1, dtype=np.uint64)
        spread = np.float32(self._config.initial_spread)
        return spread * (2 * uniform(ids[:, None], places) - 1)

    def _expire(self, time_ms: int) -> None:
        if time_ms < self._next_sweep_ms:
            return
        oldest_ms = time_ms - self._config.ttl_ms
        self._rows.evict_before(oldest_ms)
        self._admission.forget_before(oldest_ms)
        self._next_sweep_ms = time_ms + self._config.ttl_ms // _SWEEPS_PER_TTL
