"""Candidates for one request: search the index, add what the index cannot see, score exactly.

Candidates = the index over [vector, bias] + what followed the user's last items + the most popular
now. Without transitions a score is the inner product that the index searches by, and every item
with a transition is among the successors, so over a complete index that is up to date the answer is
the exact one.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domain.requests import Candidates, RetrievalRequest
from retrieval.catalog import Catalog
from retrieval.live_index import LiveIndex
from retrieval.scorer import Scorer
from retrieval.user_batch import UserBatch

_WIDEN = 4
_MAX_EFFORT = 64
"""The index is searched with 1, 4, 16, 64 times the configured part, then all items are scored."""

_NUM_POPULAR = 200


class Retriever:
    """Answers retrieval requests; safe from many threads while nobody learns."""

    def __init__(self, scorer: Scorer, catalog: Catalog, live_index: LiveIndex) -> None:
        self._scorer = scorer
        self._catalog = catalog
        self._live_index = live_index
        self._popular = np.zeros(0, dtype=np.int64)

    def refresh(self) -> None:
        """Take note of what is popular now; called whenever counts have changed."""
        popularity_N = self._scorer.popularity(self._catalog.num_available)
        self._popular = _best(popularity_N, np.flatnonzero(self._catalog.available), _NUM_POPULAR)

    def retrieve(self, request: RetrievalRequest, users: UserBatch) -> Candidates:
        """Return the best candidates of one user, best first; ties go to the older item.

        Args:
            request: whom for, how many, and what must not or may only be returned.
            users: the request's user, encoded; a batch of one.
        """
        query_1D = self._scorer.embed_users(users, [request.user.features])
        if request.allow is None:
            rows = self._candidates(request, users, query_1D)
        else:
            rows = self._eligible(request.exclude, request.allow)
        if request.limit < 1 or not len(rows):
            return Candidates((), np.zeros(0, dtype=np.float32))
        scores_1R = self._scorer.scores(query_1D, users, rows, self._catalog.num_available)
        return self._answer(scores_1R[0].numpy(), rows, request.limit)

    def popular(self, limit: int, exclude: frozenset[str]) -> Candidates:
        """Return what is popular and recent, best first; needs neither user nor towers."""
        rows = self._eligible(exclude, None)
        popularity_N = self._scorer.popularity(self._catalog.num_available)
        return self._answer(popularity_N[rows], rows, max(limit, 0))

    def _candidates(
        self, request: RetrievalRequest, users: UserBatch, query_1D: Tensor
    ) -> NDArray[np.int64]:
        """Return at least as many eligible rows as are wanted, ascending, or all there are.

        What stands beside the index does not count: a search that comes back short is widened
        even when popular items would fill the answer.
        """
        excluded = self._catalog.ids.known(request.exclude)
        available = self._catalog.available
        num_eligible = self._catalog.num_available - int(available[excluded].sum())
        # Vectors a few steps old may swap neighbours at the edge: look a little beyond it.
        k = request.limit + request.limit // 4 + 16
        if k >= num_eligible:
            return self._eligible(request.exclude, None)
        beside = np.concatenate(
            [self._popular, self._scorer.prior.successor_rows(users.recent_BK[0], request.time_ms)]
        )
        query_1E = torch.cat([query_1D, torch.ones((1, 1))], dim=1).numpy()
        effort = 1
        while effort <= _MAX_EFFORT:
            hits = self._live_index.index.search(query_1E, k, exclude=excluded, effort=effort)
            found = hits.ids_BK[0][hits.ids_BK[0] >= 0]
            if len(found) >= request.limit:
                rows: NDArray[np.int64] = np.setdiff1d(np.concatenate([found, beside]), excluded)
                return rows[available[rows]]
            effort *= _WIDEN
        return self._eligible(request.exclude, None)

    def _eligible(self, exclude: frozenset[str], allow: frozenset[str] | None) -> NDArray[np.int64]:
        """Return every row that may be returned, ascending."""
        ids = self._catalog.ids
        available = self._catalog.available
        rows = np.flatnonzero(available) if allow is None else ids.known(allow)
        return np.setdiff1d(rows[available[rows]], ids.known(exclude), assume_unique=True)

    def _answer(
        self, scores_R: NDArray[np.float32], rows: NDArray[np.int64], limit: int
    ) -> Candidates:
        best = _best(scores_R, np.arange(len(rows)), limit)
        return Candidates(self._catalog.ids.ids_of(rows[best]), scores_R[best].copy())


def _best(scores: NDArray[np.float32], among: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return those of ascending positions `among` that score best, best first, ties in order."""
    chosen = scores[among]
    if limit < len(among):
        threshold = -np.partition(-chosen, limit - 1)[limit - 1] if limit else np.inf
        keep = chosen >= threshold
        among, chosen = among[keep], chosen[keep]
    return among[np.argsort(-chosen, kind="stable")][:limit]
