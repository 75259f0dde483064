"""The index in use: picks the kind for the catalog's size, and keeps step with moving vectors.

After each learning step the items it was about are brought up to date at once, and a bounded
number of others in turns, so that no vector in the index is older than (items / refresh_items)
steps. Exact scores decide among candidates, so an old vector can only cost a candidate, never make
a wrong score.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from retrieval.exact_index import ExactIndex
from retrieval.faiss_flat_index import FaissFlatIndex
from retrieval.faiss_gpu_index import FaissGpuIndex, why_no_gpu
from retrieval.faiss_ivf_index import FaissIvfIndex
from retrieval.recall_probe import RecallProbe
from retrieval.vector_index import Hits, IndexConfig, IndexKind, VectorIndex

_logger = logging.getLogger(__name__)

VectorsOf = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Current vectors float32 (M, width) of M rows."""


class LiveIndex:
    """A vector index over the available rows of a catalog."""

    def __init__(self, config: IndexConfig, width: int, vectors_of: VectorsOf) -> None:
        self._config = config
        self._kind = _possible(config.kind)
        self._width = width
        self._vectors_of = vectors_of
        self._index = self._make(0)
        self._cursor = 0
        self._waiting: dict[int, None] = {}
        self._changes: dict[int, bool] | None = None
        self._probe: RecallProbe | None = None

    @property
    def index(self) -> VectorIndex:
        """Return the index to search."""
        return self._index

    def search(
        self,
        queries_BD: NDArray[np.float32],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Hits:
        """Find the k best rows of each query, as `VectorIndex.search`; some queries are kept."""
        if self._probe is not None:
            self._probe.offer(queries_BD, k, exclude, allowed)
        return self._index.search(queries_BD, k, exclude=exclude, allowed=allowed)

    def keep_queries(self, every: int) -> RecallProbe:
        """Keep one query in so many from now on, and leave it to the caller to make lists anew.

        A trainer makes worn lists anew at once, so that the same log gives the same index; whoever
        calls this answers requests meanwhile, and makes them aside (`retraining`).
        """
        self._probe = RecallProbe(every)
        return self._probe

    def begin_changes(self) -> None:
        """Note which rows change from now on."""
        self._changes = {}

    def take_changes(self) -> dict[int, bool]:
        """Return the rows that changed since the last call and whether each is still held."""
        assert self._changes is not None, "begin_changes comes first"
        changes, self._changes = self._changes, {}
        return changes

    def end_changes(self) -> None:
        """Note no changes any more."""
        self._changes = None

    def replace(self, index: FaissIvfIndex) -> None:
        """Search another index from now on, which holds the same rows and vectors."""
        self._index = index

    @property
    def num_waiting(self) -> int:
        """Return how many rows wait to be brought up to date."""
        return len(self._waiting)

    def mark(self, row: int) -> None:
        """Note that a row is new or was described anew; `refresh` or `flush` takes it in."""
        self._waiting[row] = None

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Take rows out at once."""
        self._index.remove(rows)
        if self._changes is not None:
            self._changes.update(dict.fromkeys(rows.tolist(), False))
        for row in rows.tolist():
            self._waiting.pop(row, None)

    def flush(self) -> None:
        """Take in every row that waits."""
        rows = np.sort(np.fromiter(self._waiting, dtype=np.int64))
        self._waiting.clear()
        self._take_in(rows)

    def refresh(self, touched: NDArray[np.int64], available: NDArray[np.bool_]) -> None:
        """Bring up to date what waits, what was touched, and the next rows in turn."""
        num_rows = len(available)
        turn = (self._cursor + np.arange(min(self._config.refresh_items, num_rows))) % num_rows
        self._cursor = int((self._cursor + len(turn)) % num_rows)
        waiting = np.fromiter(self._waiting, dtype=np.int64)
        self._waiting.clear()
        rows = np.unique(np.concatenate([waiting, touched, turn]))
        self._take_in(rows[available[rows]])
        kept = self._probe is not None
        if isinstance(self._index, FaissIvfIndex) and self._index.is_worn and not kept:
            self.rebuild(available)

    def synchronise(self, available: NDArray[np.bool_]) -> None:
        """Bring every available row up to date."""
        self._waiting.clear()
        self._take_in(np.flatnonzero(available))

    def rebuild(self, available: NDArray[np.bool_]) -> None:
        """Make the index anew from all available rows."""
        rows = np.flatnonzero(available)
        self._waiting.clear()
        self._index = self._make(len(rows))
        if len(rows):
            self._index.upsert(rows, self._vectors_of(rows))

    def _take_in(self, rows: NDArray[np.int64]) -> None:
        if not len(rows):
            return
        self._index.upsert(rows, self._vectors_of(rows))
        if self._changes is not None:
            self._changes.update(dict.fromkeys(rows.tolist(), True))
        if self._kind == "auto" and isinstance(self._index, FaissFlatIndex):
            self._outgrow(self._index)

    def _outgrow(self, flat: FaissFlatIndex) -> None:
        """Change to lists for good once the catalog is too large to be searched completely."""
        if len(flat) > self._config.flat_items:
            rows = flat.ids()
            self._index = self._make(len(rows))
            self._index.upsert(rows, self._vectors_of(rows))

    def _make(self, num_items: int) -> VectorIndex:
        kind = self._kind
        if kind == "auto":
            kind = "flat" if num_items <= self._config.flat_items else "ivf"
        match kind:
            case "exact":
                return ExactIndex(self._width)
            case "flat":
                return FaissFlatIndex(self._width)
            case "ivf":
                return FaissIvfIndex(self._width, self._config)
            case "gpu":
                return FaissGpuIndex(self._width)

    def save(self) -> State:
        """Return what cannot be made again from the vectors."""
        is_ivf = isinstance(self._index, FaissIvfIndex)
        return {"cursor": self._cursor, "is_ivf": is_ivf, "index": self._index.save()}

    def load(self, state: State, available: NDArray[np.bool_]) -> None:
        """Become what `save` described, with the vectors that `vectors_of` gives now."""
        self._cursor = int(state["cursor"])
        is_ivf = bool(state["is_ivf"])
        self._index = FaissIvfIndex(self._width, self._config) if is_ivf else self._make(0)
        self._index.load(state["index"])
        self.synchronise(available)


def _possible(kind: IndexKind) -> IndexKind:
    """Return the kind that is wanted, or the one that stands in for it here."""
    if kind != "gpu" or not (why := why_no_gpu()):
        return kind
    _logger.warning("no GPU for the index, it is searched on the CPU", extra={"reason": why})
    return "auto"
