"""Variants scored beside the live models: counting baselines, a copy that stopped learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample
from domain.learners import RankingLearner
from domain.requests import CapturedRequest
from domain.state import State
from replay.baselines import CounterBaseline, Values
from stream.observer import Demand, Measured
from stream.packing import pack, unpack
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

    def save(self) -> State:
        """Return everything `load` needs to go on as if nothing had come between."""

    def load(self, state: State) -> None:
        """Become what `save` described."""


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

    def save(self) -> State:
        """Return nothing: the loop keeps what it predicted."""
        return {}

    def load(self, state: State) -> None:
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
        self._values: dict[str, list[Values]] = {}

    @property
    def name(self) -> str:
        """Return the baseline's name."""
        return self._baseline.name

    def on_demand(self, demand: Demand) -> None:
        """Score with the counts of this moment."""
        values = self._baseline.values(demand.request)
        self._scores[demand.impression_id] = self._baseline.predict(values)
        self._values[demand.impression_id] = values

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Count labels of the primary head, early negatives among them."""
        for example in examples:
            values = self._values.get(example.impression_id)
            label = example.labels[0]
            if values is not None and not np.isnan(label):
                self._baseline.observe(values[example.item_index], label)

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return the rates that were counted when the items were shown."""
        examples = [one.example for one in measured]
        scores = [self._scores[one.impression_id][one.item_index] for one in examples]
        return np.array(scores, np.float64)[:, None]

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Drop scores and values."""
        for impression_id in impression_ids:
            self._scores.pop(impression_id, None)
            self._values.pop(impression_id, None)

    def save(self) -> State:
        """Return the counts, and what waits for labels."""
        return {
            "counts": self._baseline.save(),
            "scores": packed_by_id(self._scores),
            "values": [[list(item) for item in items] for items in self._values.values()],
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._baseline.load(state["counts"])
        self._scores = unpacked_by_id(state["scores"])
        values = [[tuple(item) for item in items] for items in state["values"]]
        self._values = dict(zip(self._scores, values, strict=True))


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

    def save(self) -> State:
        """Return the copy, and what waits for labels."""
        captured = list(self._captured.values())
        return {
            "ranker": None if self._ranker is None else self._ranker.save(),
            "captured": [
                [name, one.user_id, one.time_ms, list(one.item_ids)]
                for name, one in self._captured.items()
            ],
            "arrays": pack([one.arrays for one in captured]),
            "scores": packed_by_id(self._scores),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._ranker = None
        if state["ranker"] is not None:
            self._ranker = self._copy_ranker()
            self._ranker.load(state["ranker"])
        arrays = unpack(state["arrays"], len(state["captured"]))
        self._captured = {
            name: CapturedRequest(user_id, tuple(item_ids), time_ms, of_request)
            for (name, user_id, time_ms, item_ids), of_request in zip(
                state["captured"], arrays, strict=True
            )
        }
        self._scores = unpacked_by_id(state["scores"])

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


def packed_by_id(arrays: Mapping[str, NDArray[Any]]) -> State:
    """Return arrays by id as plain data: the ids, and all arrays in one."""
    return {"ids": list(arrays), **pack([{"rows": array} for array in arrays.values()])}


def unpacked_by_id(state: State) -> dict[str, NDArray[Any]]:
    """Return what `packed_by_id` packed, in the same order."""
    columns = {name: column for name, column in state.items() if name != "ids"}
    rows = unpack(columns, len(state["ids"]))
    return {name: row["rows"] for name, row in zip(state["ids"], rows, strict=True)}
