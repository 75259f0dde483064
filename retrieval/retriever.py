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
from retrieval.eligibility import Eligibility
from retrieval.live_index import LiveIndex
from retrieval.scorer import Scorer
from retrieval.segments import SegmentPopularity
from retrieval.user_batch import UserBatch

_FEW = 1_000
"""When a filter leaves no more than so many items all are scored: cheaper than a narrow search."""

_NUM_POPULAR = 200


class Retriever:
    """Answers retrieval requests; safe from many threads while nobody learns."""

    def __init__(
        self,
        scorer: Scorer,
        catalog: Catalog,
        live_index: LiveIndex,
        eligibility: Eligibility,
        segments: SegmentPopularity,
    ) -> None:
        self._scorer = scorer
        self._catalog = catalog
        self._live_index = live_index
        self._eligibility = eligibility
        self._segments = segments
        self._popular = np.zeros(0, dtype=np.int64)

    def refresh(self) -> None:
        """Take note of what is popular now; called whenever counts have changed."""
        popularity_N = self._scorer.popularity(self._catalog.num_available)
        self._popular = _best(popularity_N, np.flatnonzero(self._catalog.available), _NUM_POPULAR)

    def retrieve(self, request: RetrievalRequest, users: UserBatch) -> Candidates:
        """Return the best candidates of one user, best first; ties go to the older item.

        Args:
            request: whom for, how many, and the filters that every one of them passes.
            users: the request's user, encoded; a batch of one.
        """
        query_1D = self._scorer.embed_users(users, [request.user.features])
        rows = self._candidates(request, users, query_1D)
        if request.limit < 1 or not len(rows):
            return Candidates((), np.zeros(0, dtype=np.float32))
        scores_1R = self._scorer.scores(query_1D, users, rows, self._catalog.num_available)
        return self._answer(scores_1R[0].numpy(), rows, request.limit)

    def popular(self, request: RetrievalRequest) -> Candidates:
        """Return what is popular and recent, best first, in the segment of user and moment.

        Needs neither history nor towers.
        """
        rows, num_items = self._eligibility.rows(request), self._catalog.num_available
        key = self._segments.key_of(request.user.features, request.context)
        popularity_N = self._segments.blended(
            self._scorer.popularity(num_items), key, request.time_ms, self._catalog.ids, num_items
        )
        return self._answer(popularity_N[rows], rows, max(request.limit, 0))

    def _candidates(
        self, request: RetrievalRequest, users: UserBatch, query_1D: Tensor
    ) -> NDArray[np.int64]:
        """Return at least as many eligible rows as are wanted, ascending, or all there are.

        What stands beside the index does not count: popular items never take the place of what a
        search should have found.
        """
        excluded = self._catalog.ids.known(request.exclude)
        available_N, allowed_N = self._catalog.available, self._eligibility.allowed(request)
        reachable_N = available_N if allowed_N is None else allowed_N
        num_eligible = int(np.count_nonzero(reachable_N)) - int(reachable_N[excluded].sum())
        # Vectors a few steps old may swap neighbours at the edge: look a little beyond it.
        k = request.limit + request.limit // 4 + 16
        if num_eligible <= max(k, 0 if allowed_N is None else _FEW):
            return self._eligibility.rows(request)
        query_1E = torch.cat([query_1D, torch.ones((1, 1))], dim=1).numpy()
        hits = self._live_index.search(query_1E, k, exclude=excluded, allowed=allowed_N)
        found = hits.ids_BK[0][hits.ids_BK[0] >= 0]
        if len(found) < request.limit:
            return self._eligibility.rows(request)
        successors = self._scorer.prior.successor_rows(users.recent_BK[0], request.time_ms)
        rows = np.unique(np.concatenate([found, self._popular, successors]))
        return np.setdiff1d(rows[reachable_N[rows]], excluded, assume_unique=True)

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
