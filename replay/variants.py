"""Variants scored beside the live models: counting baselines, a copy that stopped learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample
from domain.learners import RankingLearner
from domain.requests import CapturedRequest, RankingRequest
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
        """Return, for each of N measured examples, the probabilities before its labels.

        Columns are the first heads of the schema, (N, K): all of them, or as many as a variant has
        an opinion on.
        """

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Drop what was kept for impressions that are done with."""


class OnlineVariant:
    """The live ranker, without the error memory."""

    name = "online"

    def on_demand(self, demand: Demand) -> None:
        """Do nothing: the loop scores for it."""

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Do nothing: the loop learns for it."""

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return the ranker's own probabilities."""
        return np.array([one.base_H for one in measured], np.float64)

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Do nothing: nothing is kept."""


class MemoryVariant(OnlineVariant):
    """The live ranker with the error memory: what a server answers."""

    name = "online+memory"

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return the compensated probabilities."""
        return np.array([one.compensated_H for one in measured], np.float64)


class CounterVariant:
    """A counting baseline; its counts move the moment a label becomes known.

    It counts the labels there are, sampled negatives among them, so its rates are on their scale.
    """

    def __init__(self, baseline: CounterBaseline) -> None:
        self._baseline = baseline
        self._scores: dict[str, NDArray[np.float64]] = {}
        self._requests: dict[str, RankingRequest] = {}

    @property
    def name(self) -> str:
        """Return the baseline's name."""
        return self._baseline.name

    def on_demand(self, demand: Demand) -> None:
        """Score with the counts of this moment."""
        self._scores[demand.impression_id] = self._baseline.predict(demand.request)
        self._requests[demand.impression_id] = demand.request

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Count labels of the primary head, early negatives among them."""
        for example in examples:
            request = self._requests.get(example.impression_id)
            label = example.labels[0]
            if request is not None and not np.isnan(label):
                self._baseline.observe(request, example.item_index, label)

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return the rates that were counted when the items were shown."""
        examples = [one.example for one in measured]
        scores = [self._scores[one.impression_id][one.item_index] for one in examples]
        return np.array(scores, np.float64)[:, None]

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Drop scores and requests."""
        for impression_id in impression_ids:
            self._scores.pop(impression_id, None)
            self._requests.pop(impression_id, None)


class FrozenVariant:
    """A copy of the live ranker, weights and counters, as it stood at one moment.

    Before that moment it answers what the live ranker answers. Histories stay fresh: they are
    features, not what was learned.
    """

    name = "frozen"

    def __init__(
        self, copy_ranker: Callable[[], RankingLearner], begins: Callable[[Demand], bool]
    ) -> None:
        self._copy_ranker = copy_ranker
        self._begins = begins
        self._ranker: RankingLearner | None = None
        self._captured: dict[str, CapturedRequest] = {}
        self._scores: dict[str, NDArray[np.float32]] = {}

    def on_demand(self, demand: Demand) -> None:
        """Encode with the copy's counters; make the copy when its time has come."""
        if self._ranker is None:
            if not self._begins(demand):
                return
            self._ranker = self._copy_ranker()
        self._captured[demand.impression_id] = self._ranker.capture(demand.request)

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Do nothing: it has stopped learning."""

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return the copy's probabilities, the live ranker's for what was shown before."""
        self._score()
        return np.array([self._probabilities(one) for one in measured], np.float64)

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Drop captures and scores."""
        for impression_id in impression_ids:
            self._captured.pop(impression_id, None)
            self._scores.pop(impression_id, None)

    def _probabilities(self, one: Measured) -> NDArray[np.float32]:
        example = one.example
        score_NH = self._scores.get(example.impression_id)
        if score_NH is None:
            return one.base_H
        return on_sampled_scale(score_NH[example.item_index], example.log_sampling_rate)

    def _score(self) -> None:
        """Score all that waits at once; the copy never changes, so when does not matter."""
        if self._ranker is None or not self._captured:
            return
        results = self._ranker.predict(list(self._captured.values()))
        for name, result in zip(self._captured, results, strict=True):
            self._scores[name] = result.probabilities
        self._captured.clear()
