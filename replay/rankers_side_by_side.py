"""Several rankers in one replay: the same requests, the same labels, the same moments.

The live ranker is the one the loop knows; contenders are led beside it. They share reading, joining
and batching, and the encoding of requests too where they would encode alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample, LabeledRequest, LearnReport
from domain.learners import RankingLearner
from domain.requests import CapturedRequest, RankingRequest, RankingScores
from domain.state import State
from replay.variants import packed_by_id, unpacked_by_id
from stream.observer import Demand, Measured
from stream.packing import pack, unpack
from stream.sampling_scale import on_sampled_scale

Stopwatch = Callable[[], float]
"""Returns seconds; only differences mean anything."""
FindCapture = Callable[[str], CapturedRequest]
"""Returns the live ranker's capture of an impression that the loop has not forgotten."""


class Contender(Protocol):
    """Scores captured requests and learns from labelled ones; part of `RankingLearner`."""

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        """Score requests; one result per request."""

    def learn(self, batch: Sequence[LabeledRequest]) -> LearnReport:
        """Take one learning step on a micro-batch."""


class Saved(Protocol):
    """Everything a ranker has learned, as plain data; part of `RankingLearner`."""

    def save(self) -> State:
        """Return everything `load` needs."""

    def load(self, state: State) -> None:
        """Become what `save` described."""


class Capturer(Protocol):
    """Encodes requests with counters of its own; part of `RankingLearner`."""

    def capture(self, request: RankingRequest) -> CapturedRequest:
        """Encode a request with all counters as they stand now."""

    def observe(self, request: LabeledRequest) -> None:
        """Count labels that became known."""


@runtime_checkable
class CountsParameters(Protocol):
    """Knows how many parameters it takes to score."""

    def parameters_touched(self, captured: Sequence[CapturedRequest]) -> float:
        """Return the parameters that scoring one item of these requests reads, on average."""


@dataclass(slots=True)
class RankerCost:
    """What a ranker took so far: seconds by verb, and examples learned."""

    capture_s: float = 0.0
    predict_s: float = 0.0
    learn_s: float = 0.0
    examples: int = 0

    def to_plain(
        self, ranker: object, last: Sequence[CapturedRequest]
    ) -> dict[str, float | int | None]:
        """Return milliseconds per example, and parameters that an item touches, as JSON values.

        None before the first example, and where a ranker counts no parameters; `last` are requests
        by which they are counted.
        """
        parts = {"capture": self.capture_s, "predict": self.predict_s, "learn": self.learn_s}
        per = {
            f"{name}_ms": 1_000 * seconds / self.examples if self.examples else None
            for name, seconds in parts.items()
        }
        touched = None
        if last and isinstance(ranker, CountsParameters):
            touched = ranker.parameters_touched(last)
        return {"examples": self.examples, **per, "parameters_touched": touched}


class RankerVariant:
    """A ranker that scores and learns what the live one does, when it does."""

    def __init__(
        self,
        name: str,
        ranker: Contender,
        capturer: Capturer | None,
        stopwatch: Stopwatch,
        saved: Saved | None = None,
    ) -> None:
        """Make a variant.

        Args:
            name: results are reported under it.
            ranker: predicts and learns.
            capturer: encodes for it; None where the live ranker's captures are what it takes.
            stopwatch: measures what it costs.
            saved: the ranker again, where a replay is to be interrupted and gone on with.
        """
        self._name = name
        self._saved = saved
        self._find_live: FindCapture | None = None
        self._ranker = ranker
        self._capturer = capturer
        self._stopwatch = stopwatch
        self._asked: tuple[RankingRequest, CapturedRequest, CapturedRequest] | None = None
        # By the live capture, which the loop hands back when labels are known.
        self._captured: dict[CapturedRequest, CapturedRequest] = {}
        self._live: dict[str, CapturedRequest] = {}
        self._waiting: dict[str, CapturedRequest] = {}
        self._scores: dict[str, NDArray[np.float32]] = {}
        self._last: Sequence[CapturedRequest] = ()
        self.cost = RankerCost()

    @property
    def name(self) -> str:
        """Return the name results are reported under."""
        return self._name

    @property
    def shares_captures(self) -> bool:
        """Return whether it takes the live ranker's captures."""
        return self._capturer is None

    def told_cost(self, live: RankerCost) -> dict[str, float | int | None]:
        """Return what it took; who shares captures would pay for them too."""
        cost = self.cost
        if self.shares_captures:
            cost = replace(cost, capture_s=live.capture_s)
        return cost.to_plain(self._ranker, self._last)

    def capture(self, request: RankingRequest, live: CapturedRequest) -> None:
        """Encode a request that the live ranker has just encoded."""
        own = live
        if self._capturer is not None:
            start_s = self._stopwatch()
            own = self._capturer.capture(request)
            self.cost.capture_s += self._stopwatch() - start_s
        self._asked = (request, live, own)

    def observe(self, labeled: LabeledRequest) -> None:
        """Count labels that became known."""
        if self._capturer is not None:
            start_s = self._stopwatch()
            self._capturer.observe(self._own(labeled))
            self.cost.capture_s += self._stopwatch() - start_s

    def score(self) -> None:
        """Score what waits with the weights as they are."""
        if not self._waiting:
            return
        self._last = list(self._waiting.values())
        start_s = self._stopwatch()
        results = self._ranker.predict(self._last)
        self.cost.predict_s += self._stopwatch() - start_s
        for impression_id, result in zip(self._waiting, results, strict=True):
            self._scores[impression_id] = result.probabilities
        self._waiting.clear()

    def learn(self, batch: Sequence[LabeledRequest]) -> None:
        """Take the step that the live ranker takes."""
        own = [self._own(labeled) for labeled in batch]
        start_s = self._stopwatch()
        self._ranker.learn(own)
        self.cost.learn_s += self._stopwatch() - start_s
        self.cost.examples += sum(len(labeled.item_indices) for labeled in batch)

    def on_demand(self, demand: Demand) -> None:
        """Keep the capture that was made a moment ago until it is scored."""
        assert self._asked is not None, "the loop captures before it tells observers"
        request, live, own = self._asked
        assert request is demand.request, "observers are told of the request just captured"
        self._captured[live] = own
        self._live[demand.impression_id] = live
        self._waiting[demand.impression_id] = own

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Do nothing: labels come through `observe` and `learn`."""

    def probabilities(self, measured: Sequence[Measured]) -> NDArray[np.float64]:
        """Return what was predicted with the weights of the live ranker's moment."""
        return np.array([self._probability(one.example) for one in measured], np.float64)

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Drop captures and scores."""
        for impression_id in impression_ids:
            live = self._live.pop(impression_id, None)
            if live is not None:
                self._captured.pop(live, None)
            self._waiting.pop(impression_id, None)
            self._scores.pop(impression_id, None)

    def know_captures(self, find_live: FindCapture) -> None:
        """Know where the live ranker's captures are; `load` needs them."""
        self._find_live = find_live

    def save(self) -> State:
        """Return the ranker, and what waits for labels."""
        assert self._saved is not None, "made without what saves it"
        own = [] if self.shares_captures else [self._captured[one] for one in self._live.values()]
        return {
            "ranker": self._saved.save(),
            "ids": list(self._live),
            "captures": pack([one.arrays for one in own]),
            "waiting": list(self._waiting),
            "scores": packed_by_id(self._scores),
            "cost": asdict(self.cost),
        }

    def load(self, state: State) -> None:
        """Become what `save` described; the loop was loaded before."""
        assert self._saved is not None, "made without what saves it"
        assert self._find_live is not None, "must know where captures are"
        self._saved.load(state["ranker"])
        self._live = {name: self._find_live(name) for name in state["ids"]}
        if self.shares_captures:
            own = list(self._live.values())
        else:
            arrays = unpack(state["captures"], len(self._live))
            pairs = zip(self._live.values(), arrays, strict=True)
            own = [replace(live, arrays=of_own) for live, of_own in pairs]
        self._captured = dict(zip(self._live.values(), own, strict=True))
        self._waiting = {name: self._captured[self._live[name]] for name in state["waiting"]}
        self._scores = unpacked_by_id(state["scores"])
        self.cost = RankerCost(**state["cost"])

    def _own(self, labeled: LabeledRequest) -> LabeledRequest:
        return replace(labeled, captured=self._captured[labeled.captured])

    def _probability(self, example: JoinedExample) -> NDArray[np.float32]:
        score_NK = self._scores[example.impression_id]
        return on_sampled_scale(score_NK[example.item_index], example.log_sampling_rate)


class RankersSideBySide:
    """Implements `domain.learners.RankingLearner` as the live ranker does, and leads contenders.

    What it answers and learns is the live ranker's own. Whoever measures must be told of a demand
    right after its capture, as the loop does.
    """

    def __init__(
        self, live: RankingLearner, variants: Sequence[RankerVariant], stopwatch: Stopwatch
    ) -> None:
        self._live = live
        self._variants = tuple(variants)
        self._stopwatch = stopwatch
        self._last: Sequence[CapturedRequest] = ()
        self.cost = RankerCost()

    def know_captures(self, find_live: FindCapture) -> None:
        """Tell contenders where the live ranker's captures are."""
        for variant in self._variants:
            variant.know_captures(find_live)

    def costs(self, live_name: str) -> dict[str, dict[str, float | int | None]]:
        """Return what each ranker took per example."""
        told = {variant.name: variant.told_cost(self.cost) for variant in self._variants}
        return {live_name: self.cost.to_plain(self._live, self._last), **told}

    def capture(self, request: RankingRequest) -> CapturedRequest:
        """Encode a request for the live ranker; contenders encode it too."""
        start_s = self._stopwatch()
        captured = self._live.capture(request)
        self.cost.capture_s += self._stopwatch() - start_s
        for variant in self._variants:
            variant.capture(request, captured)
        return captured

    def predict(self, captured: Sequence[CapturedRequest]) -> list[RankingScores]:
        """Return the live ranker's scores; contenders score what waits."""
        self._last = captured
        start_s = self._stopwatch()
        results = self._live.predict(captured)
        self.cost.predict_s += self._stopwatch() - start_s
        for variant in self._variants:
            variant.score()
        return results

    def observe(self, request: LabeledRequest) -> None:
        """Let everyone count labels that became known."""
        start_s = self._stopwatch()
        self._live.observe(request)
        self.cost.capture_s += self._stopwatch() - start_s
        for variant in self._variants:
            variant.observe(request)

    def learn(self, batch: Sequence[LabeledRequest]) -> LearnReport:
        """Let everyone learn."""
        start_s = self._stopwatch()
        report = self._live.learn(batch)
        self.cost.learn_s += self._stopwatch() - start_s
        self.cost.examples += sum(len(labeled.item_indices) for labeled in batch)
        for variant in self._variants:
            variant.learn(batch)
        return report

    def save(self) -> State:
        """Return the live ranker's own state: a snapshot holds what a server needs."""
        return self._live.save()

    def load(self, state: State) -> None:
        """Load the live ranker."""
        self._live.load(state)

    def take_delta(self) -> State:
        """Return what changed in the live ranker."""
        return self._live.take_delta()

    def follow(self) -> None:
        """Make the live ranker a twin."""
        self._live.follow()

    def check_delta(self, state: State) -> None:
        """Let the live ranker check."""
        self._live.check_delta(state)

    def apply_delta(self, state: State) -> None:
        """Let the live ranker take the changes over."""
        self._live.apply_delta(state)
