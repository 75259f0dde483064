"""Which ids get a row: when they were seen often enough, or by a chance that grows with sightings.

Both rules are Monolith's (Liu et al. 2022, section 2.1, and its hash filters). Its count rule asks
what was counted before this call, so a first batch full of one id does not admit it; ours counts
the batch as well. Chances need no memory: an id is judged anew at every batch.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from domain.state_reading import StateReader
from ranking.id_noise import uniform
from ranking.row_store import RowStore

AdmissionRule = Literal["count", "chance", "even_chance"]
RULES: tuple[AdmissionRule, ...] = get_args(AdmissionRule)

_MISSED = 0.05
"""Share of ids that are still outside after `min_count` sightings under `even_chance`."""


def chance_of(
    rule: AdmissionRule, counts: NDArray[np.int64], min_count: int
) -> NDArray[np.float64]:
    """Return the chance that a batch admits an id that it holds so many times.

    `chance`: min(1, c / t), t being `min_count`. `even_chance`: 1 - (1 - p)^c, p = 1 - .05^(1/t):
    the same chance for every sighting, such that 95 % are in after t of them.

    >>> chance_of("even_chance", np.array([1, 2]), 2).round(4).tolist()
    [0.7764, 0.95]
    >>> chance_of("chance", np.array([1, 2, 3]), 2).tolist()
    [0.5, 1.0, 1.0]
    """
    if rule == "chance":
        return np.minimum(1.0, counts / min_count)
    chances: NDArray[np.float64] = 1.0 - _MISSED ** (counts / min_count)
    return chances


class Admission:
    """Judges ids that have no row.

    Draws are numbers that follow from seed, number of the draw and id, whatever else is in a batch.
    """

    def __init__(self, rule: AdmissionRule, min_count: int, max_waiting: int, seed: int) -> None:
        self._rule = rule
        self._min_count = min_count
        self._max_waiting = max_waiting
        self._seed = seed
        self._num_draws = 0
        self._waiting = RowStore(
            {"count": (np.int64, ())}, max_waiting, "ranking.table.max_waiting"
        )

    def admits(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], time_ms: int
    ) -> NDArray[np.bool_]:
        """Note sightings of distinct ids without a row; return which of them may have one now."""
        if self._rule == "count":
            if self._min_count == 1:
                return np.ones(len(ids), np.bool_)
            return self._seen_enough(ids, counts, time_ms)
        # Places from 2^63 on: a row's first values are drawn at small ones.
        place = np.uint64((1 << 63) + ((self._seed & 0x7FFFFFFF) << 32) + self._num_draws)
        self._num_draws = (self._num_draws + 1) & 0xFFFFFFFF
        drawn: NDArray[np.float32] = uniform(ids, np.array([place]))
        return drawn < chance_of(self._rule, counts, self._min_count)

    def forget_before(self, time_ms: int) -> None:
        """Forget sightings of ids last seen before this event time."""
        self._waiting.evict_before(time_ms)

    def save(self) -> State:
        """Return sightings and the number of draws."""
        return {"waiting": self._waiting.save(), "num_draws": self._num_draws}

    def load(self, state: State) -> None:
        """Become what `save` described.

        Raises:
            SnapshotError: it is from before there were draws.
        """
        self._num_draws = StateReader(state, "ranking.table.admission").integer("num_draws")
        self._waiting.load(state["waiting"])

    def _seen_enough(
        self, ids: NDArray[np.int64], counts: NDArray[np.int64], time_ms: int
    ) -> NDArray[np.bool_]:
        rows = self._waiting.find(ids)
        before = np.zeros(len(ids), np.int64)
        if len(self._waiting):
            before = np.where(rows >= 0, self._waiting["count"][rows], 0).astype(np.int64)
        enough: NDArray[np.bool_] = before + counts >= self._min_count
        new = np.flatnonzero(~enough & (rows < 0))[: self._max_waiting]
        if len(new):
            self._waiting.insert(ids[new], time_ms)
        rows = self._waiting.find(ids)
        wait = ~enough & (rows >= 0)
        self._waiting["count"][rows[wait]] = (before + counts)[wait]
        self._waiting.touch(rows[wait], time_ms)
        return enough
