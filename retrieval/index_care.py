"""What a server does for its index between requests: probe it, tune it, and make its lists anew.

Everything here is called by one thread beside those that search and those that write. A search and
a read of the index hold the lock together with others; only changes hold it alone, and none of
them for longer than a few rows take: new lists are made aside, from copies taken some lists at a
time; what changed meanwhile is brought in, and then the whole index is swapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.faiss_ivf_index import FaissIvfIndex
from retrieval.live_index import LiveIndex
from retrieval.recall_probe import Question, RecallProbe, recall
from retrieval.vector_index import IndexConfig

# A copy of so many lists takes about a millisecond (of 300 vectors each): a writer that waits for
# it, and readers behind the writer, do not notice.
_LISTS_AT_ONCE = 64
# While more rows than this have changed, they are brought in without stopping the searches.
_FEW_CHANGES = 200
# Rows may change faster than they are brought in; the last round takes what is left.
_MAX_ROUNDS = 20


class SharedLock(Protocol):
    """Many readers, or one writer."""

    def read(self) -> AbstractContextManager[None]:
        """Hold the lock together with other readers."""

    def write(self) -> AbstractContextManager[None]:
        """Hold the lock alone."""


class IndexCare:
    """Looks after one live index; `lock` is what its searches and writes hold."""

    def __init__(self, live: LiveIndex, config: IndexConfig, width: int, lock: SharedLock) -> None:
        self._live = live
        self._config = config
        self._width = width
        self._lock = lock
        self._probe: RecallProbe | None = None

    @property
    def num_lists(self) -> int:
        """Return how many lists there are, 0 while every search is complete."""
        index = self._live.index
        return index.num_lists if isinstance(index, FaissIvfIndex) else 0

    @property
    def probes(self) -> int:
        """Return how many lists a query searches, 0 while every search is complete."""
        index = self._live.index
        return index.probes if isinstance(index, FaissIvfIndex) else 0

    @property
    def is_worn(self) -> bool:
        """Return whether the lists no longer fit what they hold."""
        with self._lock.read():
            index = self._live.index
            return isinstance(index, FaissIvfIndex) and index.is_worn

    def keep_queries(self, every: int) -> None:
        """Keep one live query in so many for `take_question`."""
        with self._lock.write():
            self._probe = self._live.keep_queries(every)

    def take_question(self) -> Question | None:
        """Return a live query that waits to be asked again, None when none does."""
        return None if self._probe is None else self._probe.take()

    def recalls(self, question: Question, probes: Sequence[int]) -> list[float]:
        """Return what share of a question's exact answer is found with each number of probes.

        An index whose searches are complete finds all of it.
        """
        with self._lock.read():
            index = self._live.index
            if not isinstance(index, FaissIvfIndex):
                return [1.0] * len(probes)
            exact_K = self._found(index, question, index.num_lists)
            return [recall(exact_K, self._found(index, question, one)) for one in probes]

    @staticmethod
    def _found(index: FaissIvfIndex, question: Question, probes: int) -> NDArray[np.int64]:
        hits = index.search_lists(
            question.query_1D,
            question.k,
            exclude=question.exclude,
            allowed=question.allowed,
            probes=probes,
        )
        found_K: NDArray[np.int64] = hits.ids_BK[0]
        return found_K

    def set_probes(self, probes: int) -> None:
        """Let queries search so many lists from now on."""
        with self._lock.write():
            index = self._live.index
            if isinstance(index, FaissIvfIndex):
                index.probes = probes

    def retrain(self) -> bool:
        """Make new lists beside the live ones and swap them in whole; say whether that was done.

        1. Note from here on which rows change.
        2. Copy ids and vectors, some lists at a time. A row that moves between lists meanwhile may
           be copied twice or not at all: it has changed, so 4 puts it right.
        3. Make new lists of the copies, without any lock.
        4. Bring in what changed, again and again until little is left.
        5. Alone: bring in the rest, and swap.

        Not done when every search is complete, or when the index became another one meanwhile.
        """
        with self._lock.write():
            old = self._live.index
            if not isinstance(old, FaissIvfIndex) or not len(old):
                return False
            self._live.begin_changes()
        try:
            fresh = self._built(old)
            for _ in range(_MAX_ROUNDS):
                with self._lock.read():
                    if self._bring_in(fresh, old) <= _FEW_CHANGES:
                        break
            with self._lock.write():
                if self._live.index is not old:
                    return False
                self._bring_in(fresh, old)
                fresh.probes = old.probes
                self._live.replace(fresh)
        finally:
            with self._lock.write():
                self._live.end_changes()
        return True

    def _built(self, old: FaissIvfIndex) -> FaissIvfIndex:
        parts = []
        for first in range(0, old.num_lists, _LISTS_AT_ONCE):
            with self._lock.read():
                parts.append(old.held(first, first + _LISTS_AT_ONCE))
        ids, first_at = np.unique(np.concatenate([ids for ids, _ in parts]), return_index=True)
        vectors_ND = np.concatenate([vectors for _, vectors in parts])[first_at]
        fresh = FaissIvfIndex(self._width, self._config)
        fresh.upsert(ids, vectors_ND)
        return fresh

    def _bring_in(self, fresh: FaissIvfIndex, old: FaissIvfIndex) -> int:
        changes = self._live.take_changes()
        kept = np.array([row for row, held in changes.items() if held], dtype=np.int64)
        gone = np.array([row for row, held in changes.items() if not held], dtype=np.int64)
        fresh.remove(gone)
        fresh.upsert(kept, old.vectors(kept))
        return len(changes)
