"""A loop that writes down, in one list, everything it asks of its learners and tells observers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from app.settings import Settings
from domain.examples import JoinedExample, PositiveAction
from domain.features import FeatureSchema
from domain.requests import CapturedRequest, RankingScores
from monitoring.metrics import Metrics
from stream.observer import Demand, Measured
from stream.train_loop import TrainLoop
from tests.loop_worlds import make_loop, tiny_settings


def capture_bytes(captured: CapturedRequest) -> bytes:
    """Everything a capture holds; two captures are the same when this is."""
    arrays = [
        name.encode() + str(array.shape).encode() + array.tobytes()
        for name, array in sorted(captured.arrays.items())
    ]
    names = repr((captured.user_id, captured.item_ids, captured.time_ms))
    return b"".join([names.encode(), *arrays])


def score_bytes(scores: RankingScores) -> bytes:
    """Everything a ranker said of one request."""
    return scores.probabilities.tobytes() + scores.hidden.tobytes()


@dataclass(eq=False)
class Trace:
    """What happened, in order.

    Attributes:
        calls: names of verbs and of observer methods.
        captures: impression id to its capture's bytes at the moment it was made.
        scores: (capture's bytes, what the ranker said of it), in order.
        learned: captures' bytes of every `ranking.learn`, in order.
        actions: what retrieval learned from, in order.
        rows_taught: rows of every `memory.learn`.
        measured: everything measured, in order.
        examples: everything revealed, in order.
        forgotten: impression ids, in order.
        when_asked: called when items are about to be shown, for tests that look around.
    """

    calls: list[str] = field(default_factory=list)
    captures: dict[str, bytes] = field(default_factory=dict)
    scores: list[tuple[bytes, RankingScores]] = field(default_factory=list)
    learned: list[list[bytes]] = field(default_factory=list)
    actions: list[PositiveAction] = field(default_factory=list)
    rows_taught: list[int] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    examples: list[JoinedExample] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    when_asked: Callable[[Demand], None] = lambda demand: None
    _last_capture: bytes = b""

    def on_demand(self, demand: Demand) -> None:
        self.calls.append("on_demand")
        self.captures[demand.impression_id] = self._last_capture
        self.when_asked(demand)

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        self.examples += examples

    def on_measured(self, measured: Sequence[Measured]) -> None:
        self.calls.append("on_measured")
        self.measured += measured

    def on_ranks(self, actions: Any, ranks: Any) -> None:
        assert len(actions) == len(ranks)
        self.calls.append("on_ranks")

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        self.calls.append("on_forget")
        self.forgotten += impression_ids

    def on_step(self, step: int, ranking: Any, retrieval: Any) -> None:
        self.calls.append("on_step")

    def save(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """A trace is not resumed."""

    def note(self, verb: str, arguments: tuple[Any, ...], result: Any) -> None:
        """Take down what a learner was asked and answered."""
        self.calls.append(verb)
        match verb:
            case "ranking.capture":
                self._last_capture = capture_bytes(result)
            case "ranking.predict":
                for captured, scores in zip(arguments[0], result, strict=True):
                    self.calls.append("scored")
                    self.scores.append((capture_bytes(captured), scores))
            case "ranking.learn":
                self.learned.append([capture_bytes(one.captured) for one in arguments[0]])
            case "retrieval.learn":
                self.actions += arguments[0]
            case "memory.learn":
                self.rows_taught.append(len(np.asarray(arguments[0])))


class _Traced:
    """Passes every verb on to a learner and takes it down."""

    def __init__(self, name: str, learner: Any, trace: Trace) -> None:
        self._name, self._learner, self._trace = name, learner, trace

    def __getattr__(self, verb: str) -> Any:
        ask = getattr(self._learner, verb)

        def ask_and_note(*arguments: Any, **named: Any) -> Any:
            result = ask(*arguments, **named)
            self._trace.note(f"{self._name}.{verb}", arguments, result)
            return result

        return ask_and_note


def traced_loop(schema: FeatureSchema, settings: Settings | None = None) -> tuple[TrainLoop, Trace]:
    """A loop that has seen nothing yet, and what it will have done."""
    settings, trace = settings or tiny_settings(), Trace()
    parts = make_loop(schema, settings).parts
    traced = {
        name: _Traced(name, getattr(parts, name), trace)
        for name in ("ranking", "memory", "retrieval")
    }
    parts = replace(parts, **traced, observers=(trace,))
    return TrainLoop(parts, settings.train_loop, Metrics()), trace
