"""What the learners have become: item vectors and the error memory, read every few minutes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.learners import Learners
from domain.features import FeatureSchema
from domain.state import State
from monitoring.drift_streams import (
    EMPTY_BUCKETS,
    VECTOR_MOVEMENT,
    VECTOR_NEIGHBOURS,
    VECTOR_NORM,
    lambda_stream,
)

# Shape legend: K = sampled items, D = width of their vectors.

EVERY_MS = 5 * 60 * 1000
"""Event time between two looks; each costs about as much as one learning step."""
_ITEMS = 256
"""Items looked at: all pairs of them are compared, so twice as many cost four times as much."""
_NEIGHBOURS = 10
_HOUR_MS = 60 * 60 * 1000


class LearnerReadings:
    """Compares a sample of the item vectors with what they were at the last look."""

    def __init__(self, schema: FeatureSchema, learners: Learners) -> None:
        self._heads = tuple(head.name for head in schema.heads)
        self._learners = learners
        self._item_ids: tuple[str, ...] = ()
        self._vector_KD = np.zeros((0, 0), np.float32)
        self._looked_ms: int | None = None

    def read(self, event_time_ms: int) -> dict[str, float]:
        """Return what is to be seen, by stream; empty when the last look was a moment ago."""
        looked_ms = self._looked_ms
        if looked_ms is not None and event_time_ms - looked_ms < EVERY_MS:
            return {}
        memory = self._learners.memory
        values = {EMPTY_BUCKETS: memory.empty_share}
        for head, value in zip(self._heads, memory.lambdas.tolist(), strict=True):
            values[lambda_stream(head)] = value
        if looked_ms is not None:
            values |= self._compare((event_time_ms - looked_ms) / _HOUR_MS)
        retrieval = self._learners.retrieval
        self._looked_ms = event_time_ms
        self._item_ids = retrieval.sample_items(_ITEMS)
        self._vector_KD = retrieval.item_vectors(self._item_ids)
        return values

    def _compare(self, hours: float) -> dict[str, float]:
        """Compare the items of the last look that are still there."""
        now_KD = self._learners.retrieval.item_vectors(self._item_ids)
        kept_K = np.isfinite(now_KD).all(axis=1) & np.isfinite(self._vector_KD).all(axis=1)
        now_KD, before_KD = now_KD[kept_K], self._vector_KD[kept_K]
        length = float(np.linalg.norm(before_KD, axis=1).mean()) if len(before_KD) else 0.0
        if not length:
            return {}
        values = {
            VECTOR_NORM: float(np.linalg.norm(now_KD, axis=1).mean()),
            VECTOR_MOVEMENT: float(np.linalg.norm(now_KD - before_KD, axis=1).mean())
            / (length * hours),
        }
        if len(now_KD) > 2 * _NEIGHBOURS:
            values[VECTOR_NEIGHBOURS] = moved_neighbours(before_KD, now_KD, _NEIGHBOURS)
        return values

    def save(self) -> State:
        """Return the last look."""
        return {
            "item_ids": list(self._item_ids),
            "vectors": self._vector_KD.copy(),
            "looked_ms": self._looked_ms,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._item_ids = tuple(state["item_ids"])
        self._vector_KD = state["vectors"].copy()
        self._looked_ms = state["looked_ms"]


def moved_neighbours(
    before_KD: NDArray[np.float32], now_KD: NDArray[np.float32], count: int
) -> float:
    """Return the share of each item's `count` nearest by cosine that are no longer among them."""
    was_KK, is_KK = _nearest(before_KD, count), _nearest(now_KD, count)
    return 1.0 - float((was_KK & is_KK).sum()) / float(was_KK.sum())


def _nearest(vector_KD: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """Return which items are nearest to each, bool (K, K)."""
    length_K1 = np.linalg.norm(vector_KD, axis=1, keepdims=True)
    unit_KD = vector_KD / np.maximum(length_K1, 1e-12)
    cosine_KK = unit_KD @ unit_KD.T
    np.fill_diagonal(cosine_KK, -np.inf)
    # Sorting all of them takes several times as long.
    best_KC = np.argpartition(-cosine_KK, count - 1, axis=1)[:, :count]
    nearest_KK = np.zeros(cosine_KK.shape, np.bool_)
    np.put_along_axis(nearest_KK, best_KC, values=True, axis=1)
    return nearest_KK
