"""Partitioned search in FAISS (IVF), updated in place: for catalogs too large to search completely.

A vector that moves is dropped from its list and added to the list it is nearest to now, by id, so
that recall does not decay as vectors drift; graphs lose recall under the same churn.

Lists are cells of a k-means in Euclidean distance, so that long vectors do not all gather in the
list of the longest centroid; lists are probed in the order of the query's inner product with the
centroid, which is the mean score of what the cell was made of.
"""

from __future__ import annotations

import math
from typing import Any

import faiss
import numpy as np
from faiss.contrib.ivf_tools import add_preassigned
from numpy.typing import NDArray

from domain.state import State
from retrieval.vector_index import NO_ID, Hits, IndexConfig, eligible_bitmap, empty_hits

# Type stubs come with some versions of FAISS only, and lack what is used through these two.
_faiss: Any = faiss
_add_preassigned: Any = add_preassigned

# k-means learns nothing more from larger samples (FAISS itself uses at most 256 per list).
_TRAINING_PER_LIST = 64
_KMEANS_ROUNDS = 10
_KMEANS_SEED = 1234
# Rebuilding costs a second per 100,000 items, searching three times the vectors costs every query.
_WORN = 3.0


class FaissIvfIndex:
    """Inner products with the vectors of the most promising lists.

    The first `upsert` makes the lists from its vectors; `rebuild` makes them anew.
    """

    def __init__(self, width: int, config: IndexConfig) -> None:
        self._width = width
        self._config = config
        self._assigner: Any = faiss.IndexFlatL2(width)
        self._index: Any = None
        self._num_lists = 0
        self._built_with = 0
        self._first_imbalance = 1.0

    def __len__(self) -> int:
        return 0 if self._index is None else int(self._index.ntotal)

    @property
    def is_worn(self) -> bool:
        """Return whether the lists no longer fit: the catalog doubled, or vectors gathered in few.

        The imbalance is what a search costs, relative to lists of equal length.
        """
        if self._index is None or not len(self):
            return False
        imbalance = float(self._index.invlists.imbalance_factor())
        return len(self) > 2 * self._built_with or imbalance > _WORN * self._first_imbalance

    def rebuild(self, ids: NDArray[np.int64], vectors_MD: NDArray[np.float32]) -> None:
        """Make new lists from vectors and hold exactly those."""
        wanted = self._config.ivf_lists or 4 * math.isqrt(len(ids))
        num_lists = max(1, min(wanted, len(ids)))
        kmeans = faiss.Kmeans(
            self._width,
            num_lists,
            niter=_KMEANS_ROUNDS,
            seed=_KMEANS_SEED,
            min_points_per_centroid=1,
            max_points_per_centroid=_TRAINING_PER_LIST,
        )
        kmeans.train(np.ascontiguousarray(vectors_MD))
        assert kmeans.centroids is not None
        self._start(kmeans.centroids, len(ids))
        self._add(ids, vectors_MD)
        self._first_imbalance = float(self._index.invlists.imbalance_factor())

    def upsert(self, ids: NDArray[np.int64], vectors_MD: NDArray[np.float32]) -> None:
        """Add ids, or move them to the list they are nearest to now."""
        if not len(ids):
            return
        if self._index is None:
            self.rebuild(ids, vectors_MD)
            return
        self._index.remove_ids(ids)
        self._add(ids, vectors_MD)

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Drop ids, and return how many were there."""
        return 0 if self._index is None else int(self._index.remove_ids(ids))

    def search(
        self,
        queries_BD: NDArray[np.float32],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        allowed: NDArray[np.bool_] | None = None,
        effort: int = 1,
    ) -> Hits:
        """Find the k best ids in the probed lists; complete once `effort` covers all lists.

        The fewer ids are allowed, the more lists are probed, so that as many vectors are scored as
        without a filter; when few are, all lists are, and the answer is exact. Whoever still comes
        back short is searched for in all lists.
        """
        num = len(self)
        if not num:
            return empty_hits(len(queries_BD), k)
        queries_BD = np.ascontiguousarray(queries_BD)
        most, probes = num, self._config.ivf_probes * effort
        if allowed is None:
            selector = _all_but(exclude)
        else:
            eligible = eligible_bitmap(allowed, exclude)
            most = min(num, int(np.count_nonzero(eligible)))
            if not most:
                return empty_hits(len(queries_BD), k)
            probes = math.ceil(probes * num / most)
            selector = _faiss.IDSelectorBitmap(np.packbits(eligible, bitorder="little"))
        if k >= most:
            probes = self._num_lists
        probes = min(probes, self._num_lists)
        hits = self._probe(queries_BD, k, selector, probes)
        short_B = hits.ids_BK[:, -1] == NO_ID
        if probes < self._num_lists and short_B.any():
            again = self._probe(queries_BD[short_B], k, selector, self._num_lists)
            hits.ids_BK[short_B], hits.scores_BK[short_B] = again.ids_BK, again.scores_BK
        return hits

    def _probe(self, queries_BD: NDArray[np.float32], k: int, selector: Any, probes: int) -> Hits:
        parameters = _faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        scores_BK, ids_BK = self._index.search(queries_BD, k, params=parameters)
        scores_BK[ids_BK < 0] = -np.inf
        return Hits(ids_BK, scores_BK)

    def _start(self, centroids_LD: NDArray[np.float32], built_with: int) -> None:
        self._num_lists = len(centroids_LD)
        self._built_with = built_with
        self._assigner.reset()
        self._assigner.add(np.ascontiguousarray(centroids_LD))
        prober = faiss.IndexFlatIP(self._width)
        prober.add(np.ascontiguousarray(centroids_LD))
        index = faiss.IndexIVFFlat(prober, self._width, self._num_lists, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True
        index.set_direct_map_type(_faiss.DirectMap.Hashtable)
        self._index = index

    def _add(self, ids: NDArray[np.int64], vectors_MD: NDArray[np.float32]) -> None:
        vectors_MD = np.ascontiguousarray(vectors_MD)
        _, lists_M1 = self._assigner.search(vectors_MD, 1)
        _add_preassigned(
            self._index, vectors_MD, np.ascontiguousarray(lists_M1[:, 0]), np.ascontiguousarray(ids)
        )

    def save(self) -> State:
        """Return the centroids: made anew from other vectors they would be others."""
        num = self._num_lists
        return {
            "centroids": self._assigner.reconstruct_n(0, num) if num else None,
            "built_with": self._built_with,
            "first_imbalance": self._first_imbalance,
        }

    def load(self, state: State) -> None:
        """Take back the centroids; the lists are empty until vectors are given again."""
        self._first_imbalance = float(state["first_imbalance"])
        if state["centroids"] is None:
            self._index, self._num_lists, self._built_with = None, 0, 0
            self._assigner.reset()
        else:
            centroids_LD = np.array(state["centroids"], dtype=np.float32)
            self._start(centroids_LD, int(state["built_with"]))


def _all_but(exclude: NDArray[np.int64] | None) -> Any:
    """Return FAISS's form of what is excluded, None when nothing is."""
    if exclude is None or not len(exclude):
        return None
    return _faiss.IDSelectorNot(_faiss.IDSelectorBatch(np.ascontiguousarray(exclude)))
