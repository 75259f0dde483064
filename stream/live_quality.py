"""Quality of a running trainer: the same scores a replay measures, on its dashboard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample, LearnReport, PositiveAction
from domain.features import FeatureSchema
from domain.state import State
from monitoring.metrics import SCOPES, Metrics
from monitoring.prequential_quality import PrequentialQuality, PrequentialQualityConfig
from monitoring.prequential_ranks import PrequentialRanks, PrequentialRanksConfig
from stream.drift_watch import VARIANTS
from stream.observer import Demand, Measured

# Reading the windows costs a fifth of a second; a panel needs a fresh value every few seconds.
_REPORT_EVERY_MS = 10_000


class LiveQuality:
    """Keeps quality by head, as lifetime and window values."""

    def __init__(
        self,
        schema: FeatureSchema,
        quality: PrequentialQualityConfig,
        ranks: PrequentialRanksConfig,
        metrics: Metrics,
    ) -> None:
        self._heads = tuple(head.name for head in schema.heads)
        self._metrics = metrics
        self._quality = {name: PrequentialQuality(self._heads, quality) for name in VARIANTS}
        self._ranks = PrequentialRanks(ranks)
        self._event_time_ms = 0
        self._shown_ms = 0

    def on_demand(self, demand: Demand) -> None:
        """Follow event time, in which the numbers are shown."""
        self._event_time_ms = demand.request.time_ms

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Do nothing: labels are measured when they are settled."""

    def on_measured(self, measured: Sequence[Measured]) -> None:
        """Measure settled labels."""
        if not measured:
            return
        labels_NH = np.array([one.example.labels for one in measured], np.float32)
        scores = {
            "online": np.stack([one.base_H for one in measured]),
            "online+memory": np.stack([one.compensated_H for one in measured]),
        }
        sessions_N = np.array([one.session for one in measured], np.int64)
        times_ms_N = np.array([one.example.revealed_ms for one in measured], np.int64)
        for name, scores_NH in scores.items():
            self._quality[name].update(labels_NH, scores_NH, sessions_N, times_ms_N)

    def on_ranks(self, actions: Sequence[PositiveAction], ranks: NDArray[np.int64]) -> None:
        """Measure how high retrieval ranked what users took."""
        del actions
        self._ranks.update(ranks)

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Do nothing: nothing is kept by impression."""

    def on_step(self, step: int, ranking: LearnReport, retrieval: LearnReport) -> None:
        """Show the numbers now and then."""
        del step, ranking, retrieval
        # In either direction: one event with a broken clock must not silence the panel for good.
        if abs(self._event_time_ms - self._shown_ms) >= _REPORT_EVERY_MS:
            self._shown_ms = self._event_time_ms
            self._show()

    def save(self) -> State:
        """Return windows and sums."""
        return {
            "quality": {name: quality.save() for name, quality in self._quality.items()},
            "ranks": self._ranks.save(),
            "event_time_ms": self._event_time_ms,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        for name, quality in self._quality.items():
            quality.load(state["quality"][name])
        self._ranks.load(state["ranks"])
        self._event_time_ms = state["event_time_ms"]

    def _show(self) -> None:
        for scope in SCOPES:
            self._metrics.retrieval.observe_quality(scope, self._ranks.get(scope))
            for variant, quality in self._quality.items():
                self._metrics.monitoring.observe_quality(variant, scope, quality.get(scope))
