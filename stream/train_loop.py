"""THE loop: what happens to one event, from arrival to learning. Start reading here.

The order is the promise: predict, measure, then learn. A request is encoded the moment it is shown
(nothing later can reach it), scored before the next learning step, measured when its labels are
settled, and only then learned from. The trainer (`stream.trainer`) feeds events from a log, the
replay feeds them from a file: both run this code, so live and replayed numbers mean the same.

Everything here is a function of the events alone: no clock is read and batches end on counts and
event time, so the same log gives the same weights, in one run or in many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError, SnapshotError
from domain.events import Event, Feedback, Impression, ItemUpdate, UserUpdate
from domain.examples import JoinedExample, LearnReport
from domain.features import FeatureSchema
from domain.learners import MemoryLearner, RankingLearner, RetrievalLearner
from domain.requests import CapturedRequest
from domain.state import State
from monitoring.metrics import Metrics
from monitoring.session_ids import SessionIds
from stream.batcher import Batcher
from stream.deduplicator import Deduplicator
from stream.feature_store import FeatureStore
from stream.joiner import Joiner, ScoreDemand
from stream.memory_rewriting import MemoryRewriting
from stream.observer import Arrivals, Demand, LoopObserver
from stream.pending import PendingRequest, PendingRequests
from stream.positives import PositiveQueue
from stream.reactions import Reactions
from stream.settlement import Settlement
from stream.watermark import Watermark

_END_OF_TIME_MS = 2**62

_KINDS: dict[type[Event], str] = {
    Impression: "impression",
    Feedback: "feedback",
    ItemUpdate: "item_update",
    UserUpdate: "user_update",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainLoopConfig:
    """Which events make a learning step.

    Attributes:
        max_positives: positive actions that make a step even when too few examples wait.
    """

    max_positives: int = 256

    def __post_init__(self) -> None:
        if self.max_positives < 1:
            raise ConfigError(
                f"train_loop.max_positives must be at least 1, got {self.max_positives}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopParts:
    """Everything the loop leads an event through, in the order an event meets it.

    Attributes:
        observers: who watches; they never change what is learned.
        reactions: what is done about drift that an observer has found; None does nothing.
        rewriting: writes the memory anew under the model of now; None lets it be.
    """

    schema: FeatureSchema
    deduplicator: Deduplicator
    watermark: Watermark
    joiner: Joiner
    sessions: SessionIds
    feature_store: FeatureStore
    batcher: Batcher
    ranking: RankingLearner
    memory: MemoryLearner
    retrieval: RetrievalLearner
    observers: Sequence[LoopObserver] = field(default=())
    reactions: Reactions | None = None
    rewriting: MemoryRewriting | None = None


@dataclass(slots=True)
class LoopCounts:
    """What went through the loop so far; part of the snapshot."""

    events: int = 0
    duplicates: int = 0
    late: int = 0
    demands: int = 0
    examples: int = 0
    steps: int = 0
    quarantined: int = 0
    dead_letters: int = 0


class TrainLoop:
    """Leads events through joining, scoring, measuring and learning."""

    def __init__(self, parts: LoopParts, config: TrainLoopConfig, metrics: Metrics) -> None:
        self._parts = parts
        self._config = config
        self._metrics = metrics.stream
        self._pending = PendingRequests()
        self._positives = PositiveQueue(parts.schema)
        self._settlement = Settlement(self._pending)
        self.counts = LoopCounts()

    @property
    def parts(self) -> LoopParts:
        """Return what events are led through."""
        return self._parts

    def captured(self, impression_id: str) -> CapturedRequest:
        """Return how a request was encoded that labels can still reach.

        Raises:
            KeyError: there is none.
        """
        pending = self._pending.get(impression_id)
        if pending is None:
            raise KeyError(impression_id)
        return pending.captured

    def process(self, event: Event) -> None:
        """Lead one event through the loop.

        1. Drop it when its id was seen before; move the watermark.
        2. Encode the items it asks to be scored, with everything known just before it.
        3. Join it: labels that became known go into counters and wait for the next step.
        4. Remember it: features, histories, catalog.
        5. Take a learning step when enough examples wait.

        Raises:
            DecodeError: the event contradicts what is known; only that was counted.
            SchemaError: a feature does not fit the schema; nothing was changed.
        """
        parts = self._parts
        parts.feature_store.check(event)
        demand = parts.joiner.items_to_score(event)
        if parts.deduplicator.seen(event.event_id, event.time_ms):
            self.counts.duplicates += 1
            self._metrics.duplicates.inc()
            return
        self._observe_time(event)
        if demand is not None:
            self._capture(demand, _served(event))
        examples = parts.joiner.observe(event)
        if isinstance(event, Feedback):
            self._positives.observe(event, parts.feature_store)
        elif isinstance(event, Impression):
            self._positives.observe_shown(event)
        parts.feature_store.observe(event)
        if isinstance(event, ItemUpdate):
            parts.retrieval.observe_item(event)
        examples += parts.joiner.advance(parts.watermark.time_ms)
        self._reveal(examples)
        while self._step_is_due():
            self.step()

    def set_aside(self) -> None:
        """Note that an event became a dead letter; nothing else of it is known."""
        self.counts.dead_letters += 1

    def step(self) -> None:
        """Take one learning step with what waits; harmless when nothing does.

        1. Predict: score everything shown since the last step with the weights as they are.
        2. Measure: settled labels against what was predicted before they were known.
        3. Learn: the memory, the ranker, then the retrieval towers.
        4. Forget requests that no label can reach any more.
        """
        parts = self._parts
        if parts.reactions is not None:
            parts.reactions.advance(parts.watermark.newest_ms)
        groups = parts.batcher.take()
        actions = self._positives.take()
        self._pending.score(parts.ranking, parts.memory)

        measured = self._settlement.measure(groups)
        ranks = parts.retrieval.target_ranks(actions)
        for observer in parts.observers:
            observer.on_measured(measured)
            observer.on_ranks(actions, ranks)

        newest_ms = parts.watermark.newest_ms
        taught = self._settlement.teach(parts.memory, measured, newest_ms)
        ranking = parts.ranking.learn(self._settlement.labeled(groups))
        if parts.rewriting is not None:
            parts.rewriting.observe(self._settlement.taught(taught, newest_ms))
            parts.rewriting.advance(parts.ranking, parts.memory)
        retrieval = parts.retrieval.learn(actions)
        forgotten = self._settlement.forget(len(parts.batcher))
        for observer in parts.observers:
            observer.on_forget(forgotten)
        self._report(ranking, retrieval)

    def finish(self) -> None:
        """Settle every label as if no more events came, and learn from what waits.

        For the end of a replay: a live trainer saves what waits instead.
        """
        self._reveal(self._parts.joiner.advance(_END_OF_TIME_MS))
        while len(self._parts.batcher) or len(self._positives) or self._settlement.num_unmeasured:
            self.step()

    def _step_is_due(self) -> bool:
        parts = self._parts
        return (
            parts.batcher.ready(parts.watermark.newest_ms)
            or len(self._positives) >= self._config.max_positives
        )

    def _observe_time(self, event: Event) -> None:
        jumps = self._parts.watermark.jumps
        late = self._parts.watermark.observe(event.time_ms)
        self._metrics.clock_jumps.inc(self._parts.watermark.jumps - jumps)
        self.counts.events += 1
        self.counts.late += late
        self._metrics.events.labels(kind=_KINDS[type(event)]).inc()
        self._metrics.late_events.inc(late)
        watermark = self._parts.watermark
        self._metrics.event_time_seconds.set(watermark.newest_ms / 1_000)
        self._metrics.watermark_delay_seconds.set((watermark.newest_ms - watermark.time_ms) / 1_000)

    def _capture(self, demand: ScoreDemand, served_N: NDArray[np.float32] | None) -> None:
        parts, counts = self._parts, self.counts
        session = parts.sessions.assign(demand.user_id, demand.time_ms)
        request = parts.feature_store.request(
            demand.user_id, demand.item_ids, demand.time_ms, demand.context
        )
        captured = parts.ranking.capture(request)
        self._pending.add(
            demand.impression_id,
            PendingRequest(captured, organic=demand.organic, session=session, served_N=served_N),
        )
        told = Demand(
            demand.impression_id,
            counts.demands,
            session,
            request,
            served_N,
            Arrivals(counts.events, counts.duplicates, counts.dead_letters),
        )
        for observer in parts.observers:
            observer.on_demand(told)
        counts.demands += 1

    def _reveal(self, examples: Sequence[JoinedExample]) -> None:
        """Let labels that became known reach counters at once, and the next step."""
        parts = self._parts
        parts.batcher.add(examples)
        self.counts.examples += len(examples)
        for example in examples:
            self._metrics.examples.labels(role=example.role).inc()
        for observer in parts.observers:
            observer.on_examples(examples)
        for labeled in self._settlement.settle(examples, parts.joiner.take_finished()):
            parts.ranking.observe(labeled)

    def _report(self, ranking: LearnReport, retrieval: LearnReport) -> None:
        self.counts.steps += 1
        self.counts.quarantined += ranking.quarantined + retrieval.quarantined
        self._metrics.pending_impressions.set(len(self._pending))
        self._metrics.steps.inc()
        self._metrics.observe_learning("ranking", ranking)
        self._metrics.observe_learning("retrieval", retrieval)
        for observer in self._parts.observers:
            observer.on_step(self.counts.steps, ranking, retrieval)

    def save(self) -> State:
        """Return the loop's whole state; `load` continues as if nothing had happened."""
        parts = self._parts
        return {
            "counts": asdict(self.counts),
            "pending": self._pending.save(),
            "positives": self._positives.save(),
            "settlement": self._settlement.save(),
            "deduplicator": parts.deduplicator.save(),
            "watermark": parts.watermark.save(),
            "joiner": parts.joiner.save(),
            "sessions": parts.sessions.save(),
            "feature_store": parts.feature_store.save(),
            "batcher": parts.batcher.save(),
            "observers": {name: one.save() for name, one in self._observers()},
            "reactions": None if parts.reactions is None else parts.reactions.save(),
            "rewriting": None if parts.rewriting is None else parts.rewriting.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described; the learners are loaded apart.

        Raises:
            SnapshotError: others watched the loop then; nothing was loaded.
        """
        parts = self._parts
        names, found = [name for name, _ in self._observers()], [*state["observers"]]
        if sorted(names) != sorted(found):
            raise SnapshotError(
                f"snapshot: expected the states of observers {', '.join(names) or 'none'}, got "
                f"{', '.join(found) or 'none'}: it was made by another version or with other "
                "settings; use another data.dir"
            )
        self.counts = LoopCounts(**state["counts"])
        self._pending.load(state["pending"])
        self._positives.load(state["positives"])
        self._settlement.load(state["settlement"])
        for name in ("deduplicator", "watermark", "joiner", "sessions", "feature_store", "batcher"):
            getattr(parts, name).load(state[name])
        for name, observer in self._observers():
            observer.load(state["observers"][name])
        # Without a state nothing is in force: reactions were off then.
        if parts.reactions is not None and state.get("reactions") is not None:
            parts.reactions.load(state["reactions"])
        if parts.rewriting is not None and state.get("rewriting") is not None:
            parts.rewriting.load(state["rewriting"])

    def _observers(self) -> list[tuple[str, LoopObserver]]:
        observers = self._parts.observers
        return [(f"{index}-{type(one).__name__}", one) for index, one in enumerate(observers)]


def _served(event: Event) -> NDArray[np.float32] | None:
    """Return the scores that a server showed a list with; None where no server says so."""
    if not isinstance(event, Impression) or not event.snapshot_id:
        return None
    return np.array([item.score for item in event.items], np.float32)
