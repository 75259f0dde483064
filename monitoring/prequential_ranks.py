"""Quality of retrieval: where it ranked what users then took, whole run and last N actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from domain.errors import ConfigError
from domain.state import State
from monitoring import quality
from monitoring.prequential_quality import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class PrequentialRanksConfig:
    """What is computed over what.

    Attributes:
        window: evaluated actions in the window.
        k: length of the list that recall and NDCG look at.
    """

    window: int = 20_000
    k: int = 20

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"prequential_ranks.window must be at least 1, got {self.window}")
        if self.k < 1:
            raise ConfigError(f"prequential_ranks.k must be at least 1, got {self.k}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankQuality:
    """Recall, NDCG and mean reciprocal rank; None while nothing was evaluated."""

    evaluated: int
    recall_at_k: float | None
    ndcg_at_k: float | None
    mrr: float | None


class PrequentialRanks:
    """Quality of one retriever; ranks as from `RetrievalLearner.target_ranks`.

    Ranks that were not evaluated (0) take no place in the window.
    """

    def __init__(self, config: PrequentialRanksConfig | None = None) -> None:
        self._config = config or PrequentialRanksConfig()
        self._window_M = np.zeros(0, np.int64)
        self._evaluated = 0
        self._sums = np.zeros(3)  # of hits, discounted gains, reciprocal ranks

    def update(self, ranks: ArrayLike) -> None:
        """Take the ranks (N,) of taken items, oldest first, each made before learning from it."""
        rank_M = np.array(ranks, np.int64)
        rank_M = rank_M[rank_M != 0]
        if len(rank_M) == 0:
            return
        self._evaluated += len(rank_M)
        self._sums += np.array(self._means(rank_M), np.float64) * len(rank_M)
        self._window_M = np.concatenate([self._window_M, rank_M])[-self._config.window :]

    def get(self, scope: Scope) -> RankQuality:
        """Return the quality so far, or over the last `window` evaluated actions."""
        if scope == "window":
            recall, ndcg, reciprocal = self._means(self._window_M)
            evaluated = len(self._window_M)
        else:
            evaluated = self._evaluated
            recall, ndcg, reciprocal = (
                float(total) / evaluated if evaluated else None for total in self._sums
            )
        return RankQuality(evaluated=evaluated, recall_at_k=recall, ndcg_at_k=ndcg, mrr=reciprocal)

    def save(self) -> State:
        """Return window and sums."""
        return {
            "window": self._window_M.copy(),
            "evaluated": self._evaluated,
            "sums": self._sums.copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._window_M = state["window"].copy()
        self._evaluated = state["evaluated"]
        self._sums = state["sums"].copy()

    def _means(self, rank_M: NDArray[np.int64]) -> tuple[float | None, float | None, float | None]:
        k = self._config.k
        return quality.recall_at_k(rank_M, k), quality.ndcg_at_k(rank_M, k), quality.mrr(rank_M)
