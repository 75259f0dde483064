"""The exact index: every inner product, sorted; the oracle of the others, in NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from retrieval.vector_index import Hits, empty_hits


class ExactIndex:
    """Keeps vectors by id in a dictionary, and searches all of them."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._vectors: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def upsert(self, ids: NDArray[np.int64], vectors_MD: NDArray[np.float32]) -> None:
        """Add ids, or replace their vectors."""
        for item_id, vector_D in zip(ids.tolist(), vectors_MD, strict=True):
            self._vectors[item_id] = vector_D.copy()

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Drop ids, and return how many were there."""
        return sum(self._vectors.pop(item_id, None) is not None for item_id in ids.tolist())

    def search(
        self,
        queries_BD: NDArray[np.float32],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        allowed: NDArray[np.bool_] | None = None,
        effort: int = 1,
    ) -> Hits:
        """Find the k best ids of each query; equal scores come in the order of ids."""
        del effort
        hits = empty_hits(len(queries_BD), k)
        out = frozenset(() if exclude is None else exclude.tolist())
        among = set(self._vectors)
        if allowed is not None:
            among &= set(np.flatnonzero(allowed).tolist())
        ids = np.array(sorted(among - out), dtype=np.int64)
        if not len(ids):
            return hits
        scores_BN = queries_BD @ np.stack([self._vectors[i] for i in ids.tolist()]).T
        for b, scores_N in enumerate(scores_BN):
            best = np.argsort(-scores_N, kind="stable")[:k]
            hits.ids_BK[b, : len(best)] = ids[best]
            hits.scores_BK[b, : len(best)] = scores_N[best]
        return hits

    def save(self) -> State:
        """Return nothing: vectors are all there is."""
        return {}

    def load(self, state: State) -> None:
        """Forget everything; there is nothing to take back."""
        del state
        self._vectors.clear()
