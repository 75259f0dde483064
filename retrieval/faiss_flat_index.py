"""Complete search in FAISS over one block of memory that is overwritten in place.

Rows are managed here, not by FAISS: its id map drops ids by copying everything after them, here the
last row moves into the gap. Replacing a vector is a copy of its bytes.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from domain.state import State
from retrieval.vector_index import BLAS_FROM_VALUES, NO_ID, Hits, eligible_bitmap, empty_hits

# Type stubs come with some versions of FAISS only, and lack what is used through this one.
_faiss: Any = faiss

# With fewer than one vector in so many eligible, copying those together and multiplying once beats
# FAISS's test of every slot; with more, the copying costs most (measured).
_COPIED_SHARE = 4


class FaissFlatIndex:
    """Inner products with every vector, by FAISS."""

    def __init__(self, width: int) -> None:
        faiss.cvar.distance_compute_blas_threshold = BLAS_FROM_VALUES
        self._width = width
        self._index: Any = faiss.IndexFlatIP(width)
        self._slot_of: dict[int, int] = {}
        self._ids_N = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._slot_of)

    def ids(self) -> NDArray[np.int64]:
        """Return the ids held, ascending."""
        return np.sort(self._ids_N)

    def upsert(self, ids: NDArray[np.int64], vectors_MD: NDArray[np.float32]) -> None:
        """Add ids, or replace their vectors."""
        slots = self._slots(ids)
        held = slots != NO_ID
        if held.any():
            self._memory()[slots[held]] = vectors_MD[held]
        if held.all():
            return
        new = ids[~held]
        first = len(self._slot_of)
        self._index.add(np.ascontiguousarray(vectors_MD[~held]))
        self._slot_of.update(zip(new.tolist(), range(first, first + len(new)), strict=True))
        self._ids_N = np.concatenate([self._ids_N, new])

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Drop ids by moving the last rows into their places."""
        memory_ND = self._memory()
        removed = 0
        for item_id in ids.tolist():
            slot = self._slot_of.pop(item_id, NO_ID)
            if slot == NO_ID:
                continue
            removed += 1
            last = len(self._slot_of)
            if slot != last:
                memory_ND[slot] = memory_ND[last]
                moved = int(self._ids_N[last])
                self._ids_N[slot] = moved
                self._slot_of[moved] = slot
        if removed:
            left = len(self._slot_of)
            self._index.remove_ids(faiss.IDSelectorRange(left, left + removed))
            self._ids_N = self._ids_N[:left].copy()
        return removed

    def search(
        self,
        queries_BD: NDArray[np.float32],
        k: int,
        *,
        exclude: NDArray[np.int64] | None = None,
        allowed: NDArray[np.bool_] | None = None,
        effort: int = 1,
    ) -> Hits:
        """Find the k best ids of each query; always complete.

        What is excluded is searched for as well and left out afterwards: measured six times
        faster than asking FAISS to test every id.
        """
        del effort
        out = np.zeros(0, dtype=np.int64) if exclude is None else np.unique(exclude)
        if allowed is not None:
            return self._search_among(queries_BD, k, eligible_bitmap(allowed, out))
        wanted = min(k + len(out), len(self))
        hits = empty_hits(len(queries_BD), k)
        if not wanted:
            return hits
        scores_BK, slots_BK = self._nearest(np.ascontiguousarray(queries_BD), wanted)
        ids_BK = self._ids_N[slots_BK]
        if not len(out):
            hits.ids_BK[:, :wanted], hits.scores_BK[:, :wanted] = ids_BK, scores_BK
            return hits
        for b, stays in enumerate(~np.isin(ids_BK, out)):
            ids = ids_BK[b, stays][:k]
            hits.ids_BK[b, : len(ids)] = ids
            hits.scores_BK[b, : len(ids)] = scores_BK[b, stays][:k]
        return hits

    def _nearest(
        self, queries_BD: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return scores and slots of the k best of all rows, at most as many as there are."""
        scores_BK, slots_BK = self._index.search(queries_BD, k)
        return scores_BK, slots_BK

    def _search_among(
        self, queries_BD: NDArray[np.float32], k: int, eligible: NDArray[np.bool_]
    ) -> Hits:
        hits = empty_hits(len(queries_BD), k)
        below_N = self._ids_N < len(eligible)
        member_N = np.zeros(len(below_N), dtype=np.bool_)
        member_N[below_N] = eligible[self._ids_N[below_N]]
        found = min(k, int(np.count_nonzero(member_N)))
        if not found:
            return hits
        if np.count_nonzero(member_N) * _COPIED_SHARE <= len(member_N):
            slots = np.flatnonzero(member_N)
            scores_BM = queries_BD @ self._memory()[slots].T
            best_BK = np.argsort(-scores_BM, axis=1, kind="stable")[:, :found]
            hits.ids_BK[:, :found] = self._ids_N[slots[best_BK]]
            hits.scores_BK[:, :found] = np.take_along_axis(scores_BM, best_BK, axis=1)
            return hits
        bits = np.packbits(member_N, bitorder="little")
        scores_BK, slots_BK = self._index.search(
            np.ascontiguousarray(queries_BD),
            found,
            params=_faiss.SearchParameters(sel=_faiss.IDSelectorBitmap(bits)),
        )
        hits.ids_BK[:, :found], hits.scores_BK[:, :found] = self._ids_N[slots_BK], scores_BK
        return hits

    def _slots(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        get = self._slot_of.get
        return np.array([get(item_id, NO_ID) for item_id in ids.tolist()], dtype=np.int64)

    def _memory(self) -> NDArray[np.float32]:
        """Return FAISS's own memory as a writable view, valid until something is added."""
        num = int(self._index.ntotal)
        if not num:
            return np.zeros((0, self._width), dtype=np.float32)
        view = faiss.rev_swig_ptr(self._index.get_xb(), num * self._width)
        return np.asarray(view).reshape(num, self._width)

    def save(self) -> State:
        """Return nothing: vectors are all there is."""
        return {}

    def load(self, state: State) -> None:
        """Forget everything; there is nothing to take back."""
        del state
        self._index.reset()
        self._slot_of.clear()
        self._ids_N = np.zeros(0, dtype=np.int64)
