"""Partitioned search in FAISS (IVF), updated in place: for catalogs too large to search completely.

A vector that moves is dropped from its list and added to the list it is nearest to now, by id, so
that recall does not decay as vectors drift; graphs lose recall under the same churn.

Lists are cells of a k-means in Euclidean distance, so that long vectors do not all gather in the
list of the longest centroid. Lists are probed in the order of the query's inner product with the
centroid, made as long as the vectors of its cell are: the mean of vectors is shorter than they
are, most in wide cells, and a search is about the best of a cell, not its mean.
"""

from __future__ import annotations

import math
from typing import Any

import faiss
import numpy as np
from faiss.contrib.ivf_tools import add_preassigned
from numpy.typing import NDArray

from domain.state import State
from retrieval.vector_index import (
    BLAS_FROM_VALUES,
    NO_ID,
    Hits,
    IndexConfig,
    eligible_bitmap,
    empty_hits,
)

# Type stubs come with some versions of FAISS only, and lack what is used through these two.
_faiss: Any = faiss
_add_preassigned: Any = add_preassigned

# k-means learns nothing more from larger samples (FAISS itself uses at most 256 per list).
_TRAINING_PER_LIST = 64
_KMEANS_ROUNDS = 10
_KMEANS_SEED = 1234
# Rebuilding costs a second per 100,000 items, searching three times the vectors costs every query.
_WORN_IMBALANCE = 3.0
# Vectors that drift a little all lie a fifth farther from any centroids, new ones included, so that
# nothing is won by making lists anew; among vectors of another mixture it is three times as far.
_WORN_SPREAD = 1.4
# A half-life, as a share of what the index holds, of the mean that `_WORN_SPREAD` is about.
_SPREAD_HALF_LIFE = 0.125
# Vectors taken in, as a share of what the index holds, before the spread is asked: a few vectors
# far from all others are no reason to make all lists anew, again and again.
_SPREAD_NEEDS = 0.25


class FaissIvfIndex:
    """Inner products with the vectors of the most promising lists.

    The first `upsert` makes the lists from its vectors; `rebuild` makes them anew.
    """

    def __init__(self, width: int, config: IndexConfig) -> None:
        self._width = width
        self._config = config
        faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_VALUES
        self._assigner: Any = faiss.IndexFlatL2(width)
        self._index: Any = None
        self._num_lists = 0
        self._probes = config.ivf_probes
        self._built_with = 0
        self._first_imbalance = 1.0
        self._first_spread = 1.0
        self._spread = 1.0
        self._moved = 0
        self._lengths_L = np.zeros(0, dtype=np.float32)

    def __len__(self) -> int:
        return 0 if self._index is None else int(self._index.ntotal)

    @property
    def num_lists(self) -> int:
        """Return how many lists there are, 0 before the first vectors."""
        return self._num_lists

    @property
    def probes(self) -> int:
        """Return how many lists a query searches before any widening."""
        return min(self._probes, self._num_lists)

    @probes.setter
    def probes(self, probes: int) -> None:
        self._probes = max(probes, 1)
        if self._index is not None:
            self._index.nprobe = self.probes

    @property
    def is_worn(self) -> bool:
        """Return whether the lists no longer fit what they hold.

        The catalog doubled; vectors gathered in few lists (the imbalance is what a search costs,
        relative to lists of equal length); or vectors come to lie far from any centroid (the
        spread is the mean squared distance to it, relative to the mean squared length).
        """
        if self._index is None or not len(self):
            return False
        imbalance = float(self._index.invlists.imbalance_factor())
        return (
            len(self) > 2 * self._built_with
            or imbalance > _WORN_IMBALANCE * self._first_imbalance
            or (
                self._moved >= _SPREAD_NEEDS * len(self)
                and self._spread > _WORN_SPREAD * self._first_spread
            )
        )

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
        self._assigner.reset()
        self._assigner.add(kmeans.centroids)
        lists_M, spread = self._assign(np.ascontiguousarray(vectors_MD))
        self._start(kmeans.centroids, _mean_lengths(lists_M, vectors_MD, num_lists), len(ids))
        self._add(ids, vectors_MD, lists_M)
        self._first_spread = self._spread = spread
        self._first_imbalance = float(self._index.invlists.imbalance_factor())

    def upsert(self, ids: NDArray[np.int64], vectors_MD: NDArray[np.float32]) -> None:
        """Add ids, or move them to the list they are nearest to now."""
        if not len(ids):
            return
        if self._index is None:
            self.rebuild(ids, vectors_MD)
            return
        self._index.remove_ids(ids)
        vectors_MD = np.ascontiguousarray(vectors_MD)
        lists_M, spread = self._assign(vectors_MD)
        self._add(ids, vectors_MD, lists_M)
        if len(ids) == len(self):
            self._spread = spread
            return
        self._moved += len(ids)
        stays = 0.5 ** (len(ids) / (_SPREAD_HALF_LIFE * len(self)))
        self._spread = stays * self._spread + (1.0 - stays) * spread

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
        probes = self._probes * effort
        if exclude is None and allowed is None and effort == 1 and k < len(self):
            scores_BK, ids_BK = self._index.search(queries_BD, k)
            last_B = ids_BK[:, -1]
            # One query is what a server asks; NumPy takes microseconds to look at one number.
            if last_B.item() != NO_ID if len(last_B) == 1 else NO_ID not in last_B:
                return Hits(ids_BK, scores_BK)
        return self.search_lists(queries_BD, k, exclude=exclude, allowed=allowed, probes=probes)

    def search_lists(
        self,
        queries_BD: NDArray[np.float32],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        allowed: NDArray[np.bool_] | None = None,
        probes: int,
    ) -> Hits:
        """As `search`, with so many lists probed before any widening; exact with all of them."""
        num = len(self)
        if not num:
            return empty_hits(len(queries_BD), k)
        queries_BD, most = np.ascontiguousarray(queries_BD), num
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
        if short_B.any():
            if probes < self._num_lists:
                again = self._probe(queries_BD[short_B], k, selector, self._num_lists)
                hits.ids_BK[short_B], hits.scores_BK[short_B] = again.ids_BK, again.scores_BK
            hits.scores_BK[hits.ids_BK == NO_ID] = -np.inf
        return hits

    def _probe(self, queries_BD: NDArray[np.float32], k: int, selector: Any, probes: int) -> Hits:
        parameters = _faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        scores_BK, ids_BK = self._index.search(queries_BD, k, params=parameters)
        return Hits(ids_BK, scores_BK)

    def _start(
        self, centroids_LD: NDArray[np.float32], lengths_L: NDArray[np.float32], built_with: int
    ) -> None:
        self._num_lists = len(centroids_LD)
        self._built_with, self._moved = built_with, 0
        self._lengths_L = lengths_L
        self._assigner.reset()
        self._assigner.add(np.ascontiguousarray(centroids_LD))
        own_L = np.linalg.norm(centroids_LD, axis=1)
        stretch_L = np.divide(lengths_L, own_L, out=np.ones_like(own_L), where=own_L > 0)
        prober = faiss.IndexFlatIP(self._width)
        prober.add(np.ascontiguousarray(centroids_LD * stretch_L[:, None]))
        index = faiss.IndexIVFFlat(prober, self._width, self._num_lists, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True
        index.set_direct_map_type(_faiss.DirectMap.Hashtable)
        index.nprobe = self.probes
        self._index = index

    def _assign(self, vectors_MD: NDArray[np.float32]) -> tuple[NDArray[np.int64], float]:
        """Return the list that each vector is nearest to, and the spread of all."""
        distances_M1, lists_M1 = self._assigner.search(vectors_MD, 1)
        lengths = float(np.vdot(vectors_MD, vectors_MD))
        spread = float(distances_M1.sum(dtype=np.float64)) / lengths if lengths else 1.0
        return lists_M1[:, 0], spread

    def _add(
        self, ids: NDArray[np.int64], vectors_MD: NDArray[np.float32], lists_M: NDArray[np.int64]
    ) -> None:
        vectors_MD, lists_M = np.ascontiguousarray(vectors_MD), np.ascontiguousarray(lists_M)
        _add_preassigned(self._index, vectors_MD, lists_M, np.ascontiguousarray(ids))

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return copies of the vectors of ids that are held."""
        if not len(ids):
            return np.zeros((0, self._width), dtype=np.float32)
        found: NDArray[np.float32] = self._index.reconstruct_batch(ids)
        return found

    def held(
        self, first_list: int, last_list: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return copies of the ids and vectors of some lists."""
        ids = [np.zeros(0, dtype=np.int64)]
        vectors = [np.zeros((0, self._width), dtype=np.float32)]
        for one in range(first_list, min(last_list, self._num_lists)):
            lists = self._index.invlists
            num = int(lists.list_size(one))
            if num:
                ids.append(faiss.rev_swig_ptr(lists.get_ids(one), num).copy())
                codes = faiss.rev_swig_ptr(lists.get_codes(one), 4 * num * self._width)
                vectors.append(codes.view(np.float32).reshape(num, self._width).copy())
        return np.concatenate(ids), np.concatenate(vectors)

    def save(self) -> State:
        """Return the centroids: made anew from other vectors they would be others."""
        num = self._num_lists
        return {
            "centroids": self._assigner.reconstruct_n(0, num) if num else None,
            "lengths": self._lengths_L.copy(),
            "built_with": self._built_with,
            "first_imbalance": self._first_imbalance,
            "first_spread": self._first_spread,
            "moved": self._moved,
        }

    def load(self, state: State) -> None:
        """Take back the centroids; the lists are empty until vectors are given again."""
        self._first_imbalance = float(state["first_imbalance"])
        # The vectors, when they are given again, tell the spread of now.
        self._first_spread = self._spread = float(state["first_spread"])
        if state["centroids"] is None:
            self._index, self._num_lists, self._built_with = None, 0, 0
            self._assigner.reset()
        else:
            centroids_LD = np.array(state["centroids"], dtype=np.float32)
            lengths_L = np.array(state["lengths"], dtype=np.float32)
            self._start(centroids_LD, lengths_L, int(state["built_with"]))
        self._moved = int(state["moved"])


def _mean_lengths(
    lists_M: NDArray[np.int64], vectors_MD: NDArray[np.float32], num_lists: int
) -> NDArray[np.float32]:
    """Return the mean length of the vectors of each list, 0 for a list without any."""
    sums_L = np.bincount(lists_M, np.linalg.norm(vectors_MD, axis=1), minlength=num_lists)
    counts_L = np.bincount(lists_M, minlength=num_lists)
    return (sums_L / np.maximum(counts_L, 1)).astype(np.float32)


def _all_but(exclude: NDArray[np.int64] | None) -> Any:
    """Return FAISS's form of what is excluded, None when nothing is."""
    if exclude is None or not len(exclude):
        return None
    return _faiss.IDSelectorNot(_faiss.IDSelectorBatch(np.ascontiguousarray(exclude)))
