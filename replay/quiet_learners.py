"""Learners that learn nothing, for runs in which only the ranker is of interest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domain.events import ItemUpdate
from domain.examples import LearnReport, PositiveAction
from domain.requests import Candidates, RetrievalRequest
from domain.state import State

_NOTHING_LEARNED = LearnReport(loss=float("nan"), examples=0)


class _Stateless:
    """Has nothing to save and no news to tell."""

    def save(self) -> State:
        """Return nothing."""
        return {}

    def load(self, state: State) -> None:
        """Take nothing."""

    def take_delta(self) -> State:
        """Return nothing."""
        return {}

    def follow(self) -> None:
        """Do nothing."""

    def check_delta(self, state: State) -> None:
        """Find nothing wrong."""

    def apply_delta(self, state: State) -> None:
        """Take nothing over."""


class QuietMemory(_Stateless):
    """An error memory that remembers nothing: `domain.learners.MemoryLearner`."""

    def compensate(
        self, hidden_ND: NDArray[np.float32], base_NH: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the scores as they are."""
        return base_NH

    def read_errors(
        self, hidden_ND: NDArray[np.float32], base_NH: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return no error."""
        return np.zeros_like(base_NH)

    def learn(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        time_ms: int,
        *,
        errors_NH: NDArray[np.float32] | None = None,
    ) -> None:
        """Forget what was revealed."""

    def rewrite(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        times_ms_N: NDArray[np.int64],
    ) -> None:
        """Forget it again."""

    def reset(self) -> None:
        """Have nothing to forget."""


class QuietRetrieval(_Stateless):
    """A retriever that knows no item: `domain.learners.RetrievalLearner`."""

    def observe_item(self, update: ItemUpdate) -> None:
        """Forget the item."""

    def retrieve(self, request: RetrievalRequest) -> Candidates:
        """Return no candidate."""
        return Candidates((), np.zeros(0, np.float32))

    def target_ranks(self, batch: Sequence[PositiveAction]) -> NDArray[np.int64]:
        """Return that none of the users was evaluated."""
        return np.zeros(len(batch), np.int64)

    def learn(self, batch: Sequence[PositiveAction]) -> LearnReport:
        """Learn nothing."""
        return _NOTHING_LEARNED
