"""Variants scored beside the live models: counting baselines, a copy that stopped learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample
from domain.learners import RankingLearner
from domain.requests import CapturedRequest
from replay.baselines import CounterBaseline
from stream.observer import Demand, Measured
from stream.sampling_scale import on_sampled_scale


class Variant(Protocol):
    """One more way to score the same stream; it sees what the live models see, when they do."""

    @property
    def name(self) -> str:
        """Return the name results are reported under."""

    def on_demand(self, demand: Demand) -> None:
        """Score, or encode for scoring, items about to be shown."""

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Labels became known."""

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return, for each measured example, the primary head's probability before its label.

        Each (impression, item) is asked for exactly once, after which it may be forgotten.
        """


class OnlineVariant:
    """The live ranker, without the error memory."""

    name = "online"

    def on_demand(self, demand: Demand) -> None:
        """Do nothing: the loop scores for it."""

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Do nothing: the loop learns for it."""

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return the ranker's own probabilities."""
        return np.array([one.base_H[0] for one in measured], np.float64)


class MemoryVariant(OnlineVariant):
    """The live ranker with the error memory: what a server answers."""

    name = "online+memory"

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return the compensated probabilities."""
        return np.array([one.compensated_H[0] for one in measured], np.float64)


class _KeptScores:
    """Scores of shown items, each kept until its label is settled."""

    def __init__(self) -> None:
        self._scores: dict[str, NDArray[np.float64]] = {}
        self._waiting: dict[str, int] = {}

    def keep(self, impression_id: str, scores_N: NDArray[np.float64]) -> None:
        """Keep the scores of one impression."""
        self._scores[impression_id] = scores_N
        self._waiting[impression_id] = len(scores_N)

    def holds(self, impression_id: str) -> bool:
        """Return whether a score of this impression is still waited for."""
        return impression_id in self._scores

    def take(self, example: JoinedExample) -> float:
        """Return the score of one example, on the scale of its labels."""
        name = example.impression_id
        score = self._scores[name][example.item_index]
        self._waiting[name] -= 1
        if not self._waiting[name]:
            del self._scores[name], self._waiting[name]
        return float(on_sampled_scale(np.array([score], np.float32), example.log_sampling_rate)[0])


class CounterVariant:
    """A counting baseline; its counts move the moment a label becomes known."""

    def __init__(self, baseline: CounterBaseline) -> None:
        self._baseline = baseline
        self._kept = _KeptScores()
        self._contexts: dict[str, Demand] = {}

    @property
    def name(self) -> str:
        """Return the baseline's name."""
        return self._baseline.name

    def on_demand(self, demand: Demand) -> None:
        """Score with the counts of this moment."""
        self._kept.keep(demand.impression_id, self._baseline.predict(demand.request))
        self._contexts[demand.impression_id] = demand

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Count labels of the primary head."""
        for example in examples:
            demand = self._contexts.get(example.impression_id)
            label = example.labels[0]
            if demand is not None and not np.isnan(label):
                self._baseline.observe(demand.request, example.item_index, label)

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return the rates that were counted when the items were shown."""
        scores = np.array([self._kept.take(one.example) for one in measured], np.float64)
        for one in measured:
            if not self._kept.holds(one.example.impression_id):
                self._contexts.pop(one.example.impression_id, None)
        return scores


class FrozenVariant:
    """A copy of the live ranker, weights and counters, as it stood at one demand.

    Before that demand it answers what the live ranker answers. Histories stay fresh: they are
    features, not what was learned.
    """

    name = "frozen"

    def __init__(self, copy_ranker: Callable[[], RankingLearner], freeze_at: int) -> None:
        self._copy_ranker = copy_ranker
        self._freeze_at = freeze_at
        self._ranker: RankingLearner | None = None
        self._captured: dict[str, CapturedRequest] = {}
        self._kept = _KeptScores()

    def on_demand(self, demand: Demand) -> None:
        """Encode with the copy's counters; make the copy when its time has come."""
        if self._ranker is None:
            if demand.ordinal < self._freeze_at:
                return
            self._ranker = self._copy_ranker()
        self._captured[demand.impression_id] = self._ranker.capture(demand.request)

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Do nothing: it has stopped learning."""

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return the copy's probabilities, the live ranker's for what was shown before."""
        self._score()
        return np.array(
            [
                self._kept.take(one.example)
                if self._kept.holds(one.example.impression_id)
                else one.base_H[0]
                for one in measured
            ],
            np.float64,
        )

    def _score(self) -> None:
        """Score all that waits at once; the copy never changes, so when does not matter."""
        if self._ranker is None or not self._captured:
            return
        results = self._ranker.predict(list(self._captured.values()))
        for name, result in zip(self._captured, results, strict=True):
            self._kept.keep(name, result.probabilities[:, 0].astype(np.float64))
        self._captured.clear()
