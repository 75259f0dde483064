"""Complete search on a GPU, over a copy of the rows that the flat index keeps.

FAISS's indexes on GPUs cannot drop or overwrite a row, and its lists on GPUs cannot either. So rows
are managed on the CPU, and the first search after a write copies them over as a whole: a quarter of
a gigabyte for a million rows of 64, once a second where deltas come every second. Lists are not
needed there. What a GPU cannot do (tests of every id, very many answers) the CPU does, with the
same answers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import State
from retrieval.faiss_flat_index import FaissFlatIndex

_faiss: Any = faiss

_MOST_K = 2_048
"""Most answers that FAISS gives per query on a GPU."""


class FaissGpuIndex(FaissFlatIndex):
    """Inner products with every vector, on a GPU where nothing is filtered by a bitmap.

    Args:
        width: of vectors.
        make_mirror: makes an empty complete index of a width, with FAISS's add, reset and search.
    """

    def __init__(self, width: int, make_mirror: Callable[[int], Any] | None = None) -> None:
        super().__init__(width)
        self._mirror = (make_mirror or gpu_flat)(width)
        self._behind = True
        # FAISS's memory on a GPU is for one search at a time.
        self._searching = threading.Lock()

    def upsert(self, ids: NDArray[np.int64], vectors_MD: NDArray[np.float32]) -> None:
        """Add ids, or replace their vectors."""
        super().upsert(ids, vectors_MD)
        self._behind = True

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Drop ids, and return how many were there."""
        self._behind = True
        return super().remove(ids)

    def load(self, state: State) -> None:
        """Forget everything."""
        super().load(state)
        self._behind = True

    def _nearest(
        self, queries_BD: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if k > _MOST_K:
            return super()._nearest(queries_BD, k)
        with self._searching:
            if self._behind:
                self._mirror.reset()
                self._mirror.add(self._memory())
                self._behind = False
            scores_BK, slots_BK = self._mirror.search(queries_BD, k)
        return scores_BK, slots_BK


def why_no_gpu() -> str:
    """Return why FAISS cannot search on a GPU here, "" when it can."""
    if not hasattr(_faiss, "StandardGpuResources"):
        return "this FAISS was built without GPUs: pip install 'headrace[gpu]'"
    return "" if _faiss.get_num_gpus() else "FAISS finds no GPU"


def gpu_flat(width: int) -> Any:
    """Return an empty complete index on the first GPU.

    Raises:
        ConfigError: there is none.
    """
    if why := why_no_gpu():
        raise ConfigError(f'retrieval.index.kind: "gpu": {why}')
    resources = _faiss.StandardGpuResources()
    return _faiss.GpuIndexFlatIP(resources, width)
