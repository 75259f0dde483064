"""Live queries kept for asking again: what the index finds of the exact answer, measured on them.

The thread that searches only keeps a query; answering it exactly is for whoever has the time. Few
wait at once, and newer ones push out older ones, so that nothing grows and nobody waits.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MAX_WAITING = 16


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One query as it was searched for; `k` ids were wanted."""

    query_1D: NDArray[np.float32]
    k: int
    exclude: NDArray[np.int64] | None
    allowed: NDArray[np.bool_] | None


class RecallProbe:
    """Keeps one query in so many; safe from many threads.

    >>> probe = RecallProbe(every=2)
    >>> for k in (1, 2, 3, 4):
    ...     probe.offer(np.zeros((1, 3), np.float32), k, None, None)
    >>> probe.take().k, probe.take().k, probe.take()
    (1, 3, None)
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._asked = itertools.count()
        self._waiting: deque[Question] = deque(maxlen=_MAX_WAITING)

    def offer(
        self,
        queries_BD: NDArray[np.float32],
        k: int,
        exclude: NDArray[np.int64] | None,
        allowed: NDArray[np.bool_] | None,
    ) -> None:
        """Keep the first of some queries when it is its turn."""
        if next(self._asked) % self._every == 0 and len(queries_BD) and k > 0:
            # Filters are made for one request and not changed after; the query is copied, as a
            # view it would keep the whole batch.
            self._waiting.append(Question(queries_BD[:1].copy(), k, exclude, allowed))

    def take(self) -> Question | None:
        """Return the query that waits longest, None when none does."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None


def recall(exact_K: NDArray[np.int64], found_K: NDArray[np.int64]) -> float:
    """Return the share of the exact answer that was found; what is missing from both is no loss.

    >>> recall(np.array([3, 1, 2, -1]), np.array([1, 3, 9, -1]))
    0.6666666666666666
    """
    wanted = exact_K[exact_K >= 0]
    return float(np.isin(wanted, found_K).mean()) if len(wanted) else 1.0
