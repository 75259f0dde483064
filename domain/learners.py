"""Protocols of the three learners: predict, measure (done by the loop), then learn.

`predict`-like verbs work before the first `learn`, change nothing and keep no reference to their
input. `save` returns plain data that `load` of a fresh object restores exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domain.deltas import DeltaLearner
from domain.events import ItemUpdate
from domain.examples import LabeledRequest, LearnReport, PositiveAction
from domain.requests import (
    Candidates,
    CapturedRequest,
    RankingRequest,
    RankingScores,
    RetrievalRequest,
)
from domain.state import State


class RankingLearner(DeltaLearner, Protocol):
    """The slow learner: scores captured requests, learns from labelled ones."""

    def capture(self, request: RankingRequest) -> CapturedRequest:
        """Encode a request with all counters as they stand now."""

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        """Score requests; one result per request."""

    def observe(self, request: LabeledRequest) -> None:
        """Update counters with labels that became known; cheap, called before `learn`."""

    def learn(self, batch: Sequence[LabeledRequest]) -> LearnReport:
        """Take one gradient step on a micro-batch."""

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""

    def load(self, state: State) -> None:
        """Become what `save` described; what was here before is gone."""


class MemoryLearner(DeltaLearner, Protocol):
    """The fast learner: recent errors near a hidden state correct the next scores."""

    def compensate(
        self, hidden_ND: NDArray[np.float32], base_NH: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return corrected probabilities (N, H); equal to `base_NH` while lambda is 0."""

    def read_errors(
        self, hidden_ND: NDArray[np.float32], base_NH: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the estimated label minus base score (N, H); 0 where nothing is known.

        To be kept from scoring time and handed to `learn` when the labels are known.
        """

    def learn(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        time_ms: int,
        *,
        errors_NH: NDArray[np.float32] | None = None,
    ) -> None:
        """Write revealed errors; NaN labels are unknown. First measures, to choose lambda.

        `errors_NH` is what `read_errors` said at scoring time; when it is None the errors are read
        now, before writing, which credits the memory with what it heard in between.
        """

    def rewrite(
        self,
        hidden_ND: NDArray[np.float32],
        base_NH: NDArray[np.float32],
        labels_NH: NDArray[np.float32],
        times_ms_N: NDArray[np.int64],
    ) -> None:
        """Write examples again after `reset`, as of when they were written; measures nothing."""

    def reset(self) -> None:
        """Forget what was written, as when the base model is replaced."""

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""

    def load(self, state: State) -> None:
        """Become what `save` described; what was here before is gone."""


class RetrievalLearner(DeltaLearner, Protocol):
    """Catalog to candidates: streaming prior and two towers."""

    def observe_item(self, update: ItemUpdate) -> None:
        """Take an item into the catalog, refresh its features, or take it out."""

    def retrieve(self, request: RetrievalRequest) -> Candidates:
        """Search the live index."""

    def target_ranks(self, batch: Sequence[PositiveAction]) -> NDArray[np.int64]:
        """Return the 1-based exact rank of each action's item over the whole catalog as it stands.

        Items already in the user's history are removed first. -1 when the item is not in the
        catalog (a miss), 0 when the user has no history (not evaluated).
        """

    def learn(self, batch: Sequence[PositiveAction]) -> LearnReport:
        """Learn from a micro-batch: towers first, then the prior's counts."""

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""

    def load(self, state: State) -> None:
        """Become what `save` described; what was here before is gone."""
