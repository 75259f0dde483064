"""Indexes side by side for benchmarks: ours, the FAISS calls it is made of, and two HNSW libraries.

Each has one parameter that trades time for recall, and is asked through the same five verbs.
"""

from __future__ import annotations

import math
import sys
from typing import Any, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.faiss_ivf_index import FaissIvfIndex
from retrieval.vector_index import BLAS_FROM_VALUES, IndexConfig

try:
    import hnswlib
    from usearch.index import Index
except ImportError as error:
    sys.exit(f"{error.name} is not installed: .venv/bin/python -m pip install --group bench")

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]

# Graphs of the usual degree; built with an effort at which more no longer finds more.
_DEGREE = 16
_BUILD_EFFORT = 100


class Engine(Protocol):
    """An index under test.

    Attributes:
        settings: values of the parameter to try, ascending.
    """

    name: str
    settings: tuple[int, ...]

    def build(self, ids: Ids, vectors: Vectors) -> None:
        """Hold these vectors and no others."""

    def tune(self, setting: int) -> None:
        """Search with this much effort."""

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        """Add ids, or replace their vectors."""

    def remove(self, ids: Ids) -> None:
        """Drop ids."""

    def search(self, queries: Vectors, k: int) -> Ids:
        """Return the ids found, int64 (B, k)."""


_PROBES = (4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256)
_EFFORTS = (100, 110, 120, 135, 150, 175, 200, 250, 300, 400, 600)


class Ours:
    """The index of this project, without its retraining: the caller asks `worn` and rebuilds."""

    name = "ours"
    settings = _PROBES

    def __init__(self) -> None:
        self.index: FaissIvfIndex

    def build(self, ids: Ids, vectors: Vectors) -> None:
        """Hold these vectors and no others."""
        self.index = FaissIvfIndex(vectors.shape[1], IndexConfig(kind="ivf"))
        self.index.upsert(ids, vectors)

    def tune(self, setting: int) -> None:
        """Search with this much effort."""
        self.index.probes = setting

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        """Add ids, or replace their vectors."""
        self.index.upsert(ids, vectors)

    def remove(self, ids: Ids) -> None:
        """Drop ids."""
        self.index.remove(ids)

    def search(self, queries: Vectors, k: int) -> Ids:
        """Return the ids found."""
        return self.index.search(queries, k).ids_BK


class RawFaiss:
    """The plainest calls that keep FAISS's inverted lists up to date."""

    name = "faiss"
    settings = _PROBES

    def __init__(self) -> None:
        faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_VALUES
        self._index: Any = None

    def build(self, ids: Ids, vectors: Vectors) -> None:
        """Hold these vectors and no others."""
        width = vectors.shape[1]
        self._quantizer = faiss.IndexFlatIP(width)
        index: Any = faiss.IndexIVFFlat(
            self._quantizer, width, 4 * math.isqrt(len(ids)), faiss.METRIC_INNER_PRODUCT
        )
        index.cp.max_points_per_centroid = 64
        index.cp.min_points_per_centroid = 1
        index.train(vectors)
        index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]
        index.add_with_ids(vectors, ids)
        self._index = index

    def tune(self, setting: int) -> None:
        """Search with this much effort."""
        self._index.nprobe = setting

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        """Add ids, or replace their vectors."""
        self._index.remove_ids(ids)
        self._index.add_with_ids(vectors, ids)

    def remove(self, ids: Ids) -> None:
        """Drop ids."""
        self._index.remove_ids(ids)

    def search(self, queries: Vectors, k: int) -> Ids:
        """Return the ids found."""
        found: Ids = self._index.search(queries, k)[1]
        return found


class Hnswlib:
    """hnswlib, updated in place; what is removed is marked."""

    name = "hnswlib"
    settings = _EFFORTS

    def build(self, ids: Ids, vectors: Vectors) -> None:
        """Hold these vectors and no others."""
        self._index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self._index.init_index(
            max_elements=2 * len(ids), M=_DEGREE, ef_construction=_BUILD_EFFORT, random_seed=1
        )
        self._index.set_num_threads(1)
        self._index.add_items(vectors, ids)

    def tune(self, setting: int) -> None:
        """Search with this much effort."""
        self._index.set_ef(setting)

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        """Add ids, or replace their vectors."""
        self._index.add_items(vectors, ids)

    def remove(self, ids: Ids) -> None:
        """Drop ids."""
        for one in ids.tolist():
            self._index.mark_deleted(one)

    def search(self, queries: Vectors, k: int) -> Ids:
        """Return the ids found."""
        return np.asarray(self._index.knn_query(queries, k)[0], dtype=np.int64)


class Usearch:
    """usearch; an update is a removal and an addition, as it has no other."""

    name = "usearch"
    settings = _EFFORTS

    def build(self, ids: Ids, vectors: Vectors) -> None:
        """Hold these vectors and no others."""
        self._index = Index(
            ndim=vectors.shape[1],
            metric="ip",
            dtype="f32",
            connectivity=_DEGREE,
            expansion_add=_BUILD_EFFORT,
        )
        self._index.add(ids.astype(np.uint64), vectors, threads=1)

    def tune(self, setting: int) -> None:
        """Search with this much effort."""
        self._index.expansion_search = setting

    def upsert(self, ids: Ids, vectors: Vectors) -> None:
        """Add ids, or replace their vectors."""
        keys = ids.astype(np.uint64)
        held = self._index.contains(keys)
        if held.any():
            self._index.remove(keys[held])
        self._index.add(keys, vectors, threads=1)

    def remove(self, ids: Ids) -> None:
        """Drop ids."""
        self._index.remove(ids.astype(np.uint64))

    def search(self, queries: Vectors, k: int) -> Ids:
        """Return the ids found."""
        keys = np.asarray(self._index.search(queries, k, threads=1).keys)
        return keys.reshape(len(queries), -1).astype(np.int64)


ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (Ours, RawFaiss, Hnswlib, Usearch)
}
