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

# Shape legend: K = sampled items, M = those of them whose neighbours are looked at, D = width of
# their vectors.

EVERY_MS = 5 * 60 * 1000
"""Event time between two looks, at least: there is none without a learning step between them. A
look costs a hundredth of a step."""
_ITEMS = 256
"""Items looked at."""
_SAMPLE_FOR = 24
"""Looks at one sample of items. While it stays, vectors and neighbours of a look serve the next one
too; after some hours there may be other items."""
_NEIGHBOURS = 10
_ASKED_EVERY = 2
"""Every second item is compared with all: that says as much, at half the cost."""
_HOUR_MS = 60 * 60 * 1000


class LearnerReadings:
    """Compares a sample of the item vectors with what they were at the last look."""

    def __init__(self, schema: FeatureSchema, learners: Learners) -> None:
        self._heads = tuple(head.name for head in schema.heads)
        self._learners = learners
        self._item_ids: tuple[str, ...] = ()
        self._vector_KD = np.zeros((0, 0), np.float32)
        self._near_MK: NDArray[np.bool_] | None = None
        self._looked_ms: int | None = None
        self._looks_left = 0

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
            now_KD = self._learners.retrieval.item_vectors(self._item_ids)
            values |= self._compare(now_KD, (event_time_ms - looked_ms) / _HOUR_MS)
            self._vector_KD = now_KD
        self._looked_ms = event_time_ms
        self._looks_left -= 1
        if self._looks_left < 0 or len(self._item_ids) < _ITEMS:
            self._take_sample()
        return values

    def _take_sample(self) -> None:
        retrieval = self._learners.retrieval
        item_ids = retrieval.sample_items(_ITEMS)
        self._looks_left = _SAMPLE_FOR - 1
        if item_ids != self._item_ids:
            self._item_ids, self._near_MK = item_ids, None
            self._vector_KD = retrieval.item_vectors(item_ids)

    def _compare(self, now_KD: NDArray[np.float32], hours: float) -> dict[str, float]:
        """Compare the items of the last look that are still there; keep their neighbours."""
        was_MK, self._near_MK = self._near_MK, None
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
            if was_MK is None or not kept_K.all():
                was_MK = nearest(before_KD, _NEIGHBOURS)
            is_MK = nearest(now_KD, _NEIGHBOURS)
            values[VECTOR_NEIGHBOURS] = moved_share(was_MK, is_MK)
            self._near_MK = is_MK if kept_K.all() else None
        return values

    def save(self) -> State:
        """Return the last look."""
        return {
            "item_ids": list(self._item_ids),
            "vectors": self._vector_KD.copy(),
            "looked_ms": self._looked_ms,
            "looks_left": self._looks_left,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._item_ids = tuple(state["item_ids"])
        self._vector_KD = state["vectors"].copy()
        self._near_MK = None
        self._looked_ms = state["looked_ms"]
        self._looks_left = state.get("looks_left", 0)


def moved_share(was_MK: NDArray[np.bool_], is_MK: NDArray[np.bool_]) -> float:
    """Return the share of the nearest, see `nearest`, that are no longer among them."""
    return 1.0 - float((was_MK & is_MK).sum()) / float(was_MK.sum())


def nearest(
    vector_KD: NDArray[np.float32], count: int, every: int = _ASKED_EVERY
) -> NDArray[np.bool_]:
    """Return which `count` items are nearest by cosine to every so many-th item, bool (M, K)."""
    length_K1 = np.linalg.norm(vector_KD, axis=1, keepdims=True)
    unit_KD = vector_KD / np.maximum(length_K1, 1e-12)
    asked_M = np.arange(0, len(vector_KD), every)
    cosine_MK = unit_KD[asked_M] @ unit_KD.T
    cosine_MK[np.arange(len(asked_M)), asked_M] = -np.inf
    # Sorting all of them takes several times as long.
    best_MC = np.argpartition(-cosine_MK, count - 1, axis=1)[:, :count]
    nearest_MK = np.zeros(cosine_MK.shape, np.bool_)
    np.put_along_axis(nearest_MK, best_MC, values=True, axis=1)
    return nearest_MK
