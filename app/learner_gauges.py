"""What the learners say of themselves, on the metrics page."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.learners import Learners
from domain.clock import Clock
from domain.examples import JoinedExample, LearnReport, PositiveAction
from domain.features import FeatureSchema
from domain.state import State
from monitoring.metrics import CALIBRATION_STAGES, Metrics
from stream.observer import Demand, Measured


class LearnerGauges:
    """Shows sizes, lambda and the time of each learning step."""

    def __init__(
        self, schema: FeatureSchema, learners: Learners, clock: Clock, metrics: Metrics
    ) -> None:
        self._heads = tuple(head.name for head in schema.heads)
        self._learners = learners
        self._clock = clock
        self._metrics = metrics
        self._began_s = clock.stopwatch_s()

    def on_demand(self, demand: Demand) -> None:
        """Do nothing: only learning is shown."""

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Do nothing: only learning is shown."""

    def on_measured(self, measured: Sequence[Measured]) -> None:
        """Start the watch: everything was measured, learning begins."""
        self._began_s = self._clock.stopwatch_s()

    def on_ranks(self, actions: Sequence[PositiveAction], ranks: NDArray[np.int64]) -> None:
        """Do nothing: only learning is shown."""

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Do nothing: nothing is kept by impression."""

    def on_step(self, step: int, ranking: LearnReport, retrieval: LearnReport) -> None:
        """Show what this step left behind."""
        metrics, learners = self._metrics, self._learners
        metrics.stream.step_seconds.observe(self._clock.stopwatch_s() - self._began_s)
        metrics.retrieval.catalog_items.set(learners.retrieval.num_items)
        metrics.ranking.embedding_rows.set(learners.ranking.num_rows)
        metrics.memory.size_bytes.set(learners.memory.num_bytes)
        before_H, after_H = learners.ranking.calibration_errors.tolist()
        for stage, error_H in zip(CALIBRATION_STAGES, (before_H, after_H), strict=True):
            for head, error in zip(self._heads, error_H, strict=True):
                if not math.isnan(error):
                    metrics.ranking.calibration_error.labels(head=head, stage=stage).set(error)
        for head, value in zip(self._heads, learners.memory.lambdas.tolist(), strict=True):
            metrics.memory.weight.labels(head=head).set(value)

    def save(self) -> State:
        """Return nothing: gauges show what is."""
        return {}

    def load(self, state: State) -> None:
        """Take nothing: gauges show what is."""
