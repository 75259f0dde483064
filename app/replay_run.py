"""`headrace replay` at work: a dataset through the real loop, and a table of what it showed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from threading import Event as StopSignal
from typing import Any

from rich.console import Console

from app.errors import stop_on_signals
from app.learners import LearnerConfigs, Learners, build_learners
from app.process_setup import VERSION
from app.progress_bar import progress_bar
from app.ranker_variants import NETWORK, TREES, RankerWish, build_rivals, build_variants
from app.reactions_wiring import build_reactions
from app.replay_checkpoints import ReplayCheckpoints, ReplayState, Timer, libraries
from app.replay_start import ReplayStart
from app.settings import Settings
from app.trainer_observers import drift_watch
from app.trainer_wiring import build_loop
from domain.clock import Clock, SystemClock
from domain.errors import DatasetError, SnapshotError
from domain.features import FeatureSchema
from monitoring.drift_signal import signal_to_plain
from monitoring.drift_sinks import ListSink
from monitoring.log_setup import set_up_logging
from monitoring.metrics import Metrics
from monitoring.reactions import ReactionList
from ranking.learner import RankingModel
from replay.baselines import CounterBaseline
from replay.dataset import Dataset
from replay.event_digest import EventDigest
from replay.intervals import BootstrapConfig
from replay.next_item import NextItemWatch
from replay.prequential import Prequential
from replay.rankers_side_by_side import RankersSideBySide
from replay.records import ReplayRecords
from replay.report import measure
from replay.retrieval_baselines import RetrievalBaselines
from replay.river_baselines import FACTORISATION, LOGISTIC, RiverVariant
from replay.run import ReplayCounts, count_demands, replay_events
from replay.side_by_side import SideBySide
from replay.variants import CounterVariant, FrozenVariant, MemoryVariant, OnlineVariant, Variant
from replay.words import in_words
from stream.train_loop import TrainLoop


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """What a replay measured; `report` is what is written as JSON, `records` are kept beside it."""

    report: dict[str, Any]
    counts: ReplayCounts
    records: ReplayRecords


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayWishes:
    """What a replay is asked for beside its numbers.

    Attributes:
        bootstrap: how sure intervals are to be.
        keep_partial: whether Ctrl-C ends it with a report on what was replayed by then.
        command: the command line that would do the same again.
        start: the snapshot to go on from, with the settings as they are; None to begin with
            nothing learned, with settings fitted to the recording.
        rankers: rankers with other settings that take part; none beside a snapshot.
        rivals: whether boosted trees and a plain network take part; not beside a snapshot.
        checkpoints: where to secure what was done, and perhaps to go on from; None does neither.
        write: takes partial reports now and then, while there are checkpoints.
    """

    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    keep_partial: bool = False
    command: str = ""
    start: ReplayStart | None = None
    rankers: tuple[RankerWish, ...] = ()
    rivals: bool = False
    checkpoints: ReplayCheckpoints | None = None
    write: Callable[[ReplayOutcome], None] | None = None

    @property
    def names(self) -> list[str]:
        """Return the names of the further rankers that take part."""
        return [*([TREES, NETWORK] if self.rivals else []), *(wish.name for wish in self.rankers)]

    @property
    def snapshot_id(self) -> str:
        """Return the id of the snapshot to go on from, "" when there is none."""
        return "" if self.start is None else self.start.snapshot_id


def run_replay(
    settings: Settings, dataset: Dataset, console: Console, wishes: ReplayWishes | None = None
) -> ReplayOutcome:
    """Replay a dataset and return the report.

    Raises:
        DatasetError: the dataset has no events that ask for a score.
        ConfigError: it was to go on with another replay than this one.
        KeyboardInterrupt: it was interrupted, and no partial report is wanted.
    """
    wishes = wishes or ReplayWishes()
    set_up_logging(replace(settings.log, level="error"))
    clock = SystemClock()
    began_s = clock.stopwatch_s()
    if wishes.start is None:
        settings = fit_to(dataset, settings)
    digest = EventDigest()
    with console.status("counting what will be scored"):
        num_demands = _count(dataset, digest if wishes.checkpoints is not None else None)
    request = _Request(settings, dataset, wishes, num_demands, digest.hex)
    learners, state = _build(request)
    run = _Run(request, learners, state, clock, console)
    run.spent_s -= began_s
    run.begin_or_go_on()
    run.lead()
    return run.outcome("interrupted after" if run.counts.interrupted else "")


@dataclass(frozen=True, slots=True)
class _Request:
    """What is replayed: all that was decided before the first event."""

    settings: Settings
    dataset: Dataset
    wishes: ReplayWishes
    num_demands: int
    digest: str

    def about(self) -> dict[str, Any]:
        """Return what must be the same for a replay to go on, as JSON values."""
        dataset, settings = self.dataset, self.settings.model_dump(mode="json")
        # How often the work is secured changes nothing, nor does what is said of it.
        settings = {key: value for key, value in settings.items() if key not in ("replay", "log")}
        return {
            "version": VERSION,
            "libraries": libraries(),
            "dataset": dataset.name,
            "lists": self.num_demands,
            "events": self.digest,
            "schema": dataset.schema.hash,
            "snapshot": self.wishes.snapshot_id,
            "variants": {wish.name: list(wish.changes) for wish in self.wishes.rankers},
            "settings": settings,
        }


@dataclass(slots=True)
class _Run:
    """A replay on its way.

    Attributes:
        counts: what was met so far.
        spent_s: what makes a reading of the stopwatch the seconds that were spent.
    """

    request: _Request
    learners: Learners
    state: ReplayState
    clock: Clock
    console: Console
    counts: ReplayCounts = field(default_factory=ReplayCounts)
    spent_s: float = 0.0

    @property
    def seconds(self) -> float:
        """Return the processing time spent, with that of earlier lives up to their checkpoint."""
        return self.clock.stopwatch_s() + self.spent_s

    def begin_or_go_on(self) -> None:
        """Take the work folder; become what its checkpoint says when it is to go on."""
        checkpoints = self.request.wishes.checkpoints
        if checkpoints is None:
            return
        for problem in checkpoints.problems:
            self._say(f"Checkpoint passed over: {problem}")
        if not checkpoints.is_resumed:
            if checkpoints.begin():
                self._say(f"Begins at the beginning: what lay in {checkpoints.folder} is deleted.")
            return
        self.counts, seconds = checkpoints.resume(self.request.about(), self.state)
        self.spent_s += seconds
        self._say(f"Goes on after {self.counts.records:,} events.")

    def lead(self) -> None:
        """Lead the events that are left through the loop.

        Raises:
            KeyboardInterrupt: it was interrupted, and no partial report is wanted.
        """
        dataset, wishes = self.request.dataset, self.request.wishes
        config = self.request.settings.replay
        checkpoint = Timer(self.clock, config.checkpoint_every_s)
        report = Timer(self.clock, config.report_every_s)

        # Stopped between two events, so that no event is half learned when the numbers are made;
        # and by a flag, because an exception out of nowhere may be lost in a callback of a library.
        def pause(stop: StopSignal) -> bool:
            if stop.is_set():
                self._checkpoint()
                return True
            if checkpoint.due():
                began_s = self.clock.stopwatch_s()
                self._checkpoint()
                checkpoint.done(began_s)
            if config.report_every_s and report.due():
                began_s = self.clock.stopwatch_s()
                self._write_partial()
                report.done(began_s)
            return False

        begun = self.counts.records
        hint = dataset.num_events_hint
        with _progress(self.console, hint, begun) as progress, stop_on_signals() as stop:
            replay_events(
                dataset.events(), self.state.loop, progress, lambda: pause(stop), self.counts
            )
        if self.counts.interrupted and not wishes.keep_partial:
            raise KeyboardInterrupt
        if self.counts.first_dead_letter:
            self._say(f"First dead letter: {self.counts.first_dead_letter}")

    def _checkpoint(self) -> None:
        """Secure what was done; a disk that refuses costs the checkpoint, not the replay."""
        checkpoints = self.request.wishes.checkpoints
        if checkpoints is None or not self.counts.records:
            return
        try:
            checkpoints.save(self.request.about(), self.state, self.counts, self.seconds)
        except SnapshotError as error:
            self._say(f"No checkpoint: {error}")

    def _write_partial(self) -> None:
        wishes = self.request.wishes
        if wishes.write is not None and wishes.checkpoints is not None:
            wishes.write(self.outcome("not at its end yet, after"))

    def outcome(self, partial: str) -> ReplayOutcome:
        """Measure what was recorded by now.

        Args:
            partial: how a report on part of the stream says so; "" for one on all of it.
        """
        request, state = self.request, self.state
        seen = state.prequential.num_demands
        total = seen if partial else request.num_demands
        records = state.prequential.records(total // 2, total, state.watched.ranks())
        with self.console.status("measuring, with intervals"):
            numbers = _numbers(self.learners, state, records, request.wishes)
        told = f"{partial} {seen:,} of {request.num_demands:,} lists; halves are halves of those"
        wishes, settings = request.wishes, request.settings
        report = {
            **_what_was_replayed(request.dataset, state.loop, self.counts, settings),
            **({"snapshot": wishes.snapshot_id} if wishes.start is not None else {}),
            **({"partial": told} if partial else {}),
            "seconds": round(self.seconds, 1),
            **numbers,
            "command": wishes.command,
            "version": VERSION,
            "changed": _changed(settings),
            "configuration": settings.model_dump(mode="json"),
        }
        return ReplayOutcome(report, self.counts, records)

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)


def _count(dataset: Dataset, digest: EventDigest | None) -> int:
    events = dataset.events() if digest is None else digest.passing(dataset.events())
    num_demands = count_demands(events, dataset.schema)
    if num_demands == 0:
        raise DatasetError(
            f"{dataset.name}: nothing in it asks for a score (no impressions, and no feedback of "
            f"the kinds {', '.join(head.feedback_kind for head in dataset.schema.heads)})"
        )
    return num_demands


def _build(request: _Request) -> tuple[Learners, ReplayState]:
    """Build the loop that a trainer has, with retriever and ranker watched.

    Baselines would know less than a snapshot that others learned, so there are none beside it.
    """
    settings, schema, wishes = request.settings, request.dataset.schema, request.wishes
    split_at, start, stopwatch = request.num_demands // 2, wishes.start, SystemClock().stopwatch_s
    learners = build_learners(schema, LearnerConfigs.of(settings))
    asked = build_variants(schema, settings.ranking, wishes.rankers, stopwatch)
    if wishes.rivals:
        asked = [*build_rivals(schema, settings.ranking, settings.seed, stopwatch), *asked]
    rankers = RankersSideBySide(learners.ranking, asked, stopwatch)
    heads = tuple(head.name for head in schema.heads)
    baselines = [] if start is not None else _baselines(schema, settings.seed)
    frozen_from = split_at if start is None else 0
    frozen = FrozenVariant(learners.ranking.copy, lambda demand: demand.ordinal >= frozen_from)
    variants = [*baselines, *asked, frozen, OnlineVariant(), MemoryVariant()]
    prequential = Prequential(variants, heads=heads)
    watched = SideBySide(
        learners.retrieval,
        RetrievalBaselines() if start is None else None,
        lambda: prequential.num_demands > split_at,
        NextItemWatch() if settings.evaluation.next_item and start is None else None,
    )
    signals, done, metrics = ListSink(), ReactionList(), Metrics()
    reactions = build_reactions(settings, learners, metrics, (done,))
    hearers = (signals,) if reactions is None else (signals, reactions)
    observers = (prequential, drift_watch(settings, schema, learners, metrics, hearers))
    loop = build_loop(settings, schema, learners, metrics, observers, reactions)
    parts = replace(loop.parts, ranking=rankers, retrieval=watched)
    loop = TrainLoop(parts, settings.train_loop, metrics)
    if start is not None:
        start.restore(loop)
    rankers.know_captures(loop.captured)
    return learners, ReplayState(loop, prequential, watched, rankers, signals, done)


def _numbers(
    learners: Learners, state: ReplayState, records: ReplayRecords, wishes: ReplayWishes
) -> dict[str, Any]:
    split_at, catalog = records.split_at, learners.retrieval.num_items
    return {
        "variants": state.prequential.variants(split_at, records.num_demands),
        "retrieval": {**state.prequential.retrieval(split_at), "catalog": catalog},
        "costs": state.rankers.costs(OnlineVariant.name),
        "asked_variants": {wish.name: list(wish.changes) for wish in wishes.rankers},
        "words": in_words(
            records,
            wishes.bootstrap,
            snapshot_id=wishes.snapshot_id,
            asked=wishes.names,
        ),
        **measure(records, wishes.bootstrap),
        "calibration_errors": _calibration_errors(learners.ranking, records.examples.heads),
        "next_item": state.watched.next_item(),
        "recommended_lists": state.watched.lists(catalog),
        "drift_signals": [
            {**signal_to_plain(one), "severity": one.severity, "sentence": one.describe()}
            for one in state.signals.signals
        ],
        "reactions": [{**asdict(one), "sentence": one.describe()} for one in state.done.reactions],
    }


def _calibration_errors(ranking: RankingModel, heads: Sequence[str]) -> dict[str, Any]:
    """Return how far each head's recent probabilities were off; None where nothing was learned."""
    before_H, after_H = ranking.calibration_errors.tolist()
    return {
        head: {
            "before": None if math.isnan(before) else before,
            "after": None if math.isnan(after) else after,
        }
        for head, before, after in zip(heads, before_H, after_H, strict=True)
    }


def _changed(settings: Settings) -> list[str]:
    """Return the settings that are not the default, as `--set` takes them."""
    ours, defaults = settings.model_dump(mode="json"), Settings().model_dump(mode="json")
    return sorted(_differences(ours, defaults, ""))


def _differences(ours: Any, defaults: Any, path: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(defaults, dict):
        for key, value in ours.items():
            yield from _differences(value, defaults.get(key), f"{path}.{key}" if path else key)
    elif ours != defaults:
        yield f"{path}={json.dumps(ours)}"


# Recorded logs are samples, far sparser than the traffic they were taken from: with the linger of
# a live system most steps would learn from one or two examples.
REPLAY_LINGER_MS = 60 * 60 * 1000


def fit_to(dataset: Dataset, settings: Settings) -> Settings:
    """Return settings for replaying a dataset.

    The attribution window becomes as wide as the log's labels are late, and micro-batches wait
    longer to fill. A value that is not the default was chosen, and stays.
    """
    updates: dict[str, Any] = {}
    joiner, batcher, defaults = settings.joiner, settings.batcher, Settings()
    window_ms = dataset.joiner_hints.attribution_window_ms
    is_default = joiner.attribution_window_ms == defaults.joiner.attribution_window_ms
    if window_ms is not None and is_default:
        # Feedback exactly as late as the window no longer counts.
        updates["joiner"] = replace(joiner, attribution_window_ms=window_ms + 1)
    if batcher.linger_ms == defaults.batcher.linger_ms:
        updates["batcher"] = replace(batcher, linger_ms=REPLAY_LINGER_MS)
    return settings.model_copy(update=updates)


def _baselines(schema: FeatureSchema, seed: int) -> list[Variant]:
    keys = [("item",), ("user", "item")]
    if any(field.name == "tab" for field in schema.of("context")):
        keys = [("item",), ("item", "tab"), ("user", "item", "tab")]
    counters = [
        CounterVariant(CounterBaseline(f"counters/{'+'.join(key)}", key, schema)) for key in keys
    ]
    return [*counters, *(RiverVariant(name, schema, seed) for name in (LOGISTIC, FACTORISATION))]


def _what_was_replayed(
    dataset: Dataset, loop: TrainLoop, counts: ReplayCounts, settings: Settings
) -> dict[str, Any]:
    return {
        "dataset": dataset.name,
        "seed": settings.seed,
        "schema_hash": dataset.schema.hash,
        "events": loop.counts.events,
        "demands": loop.counts.demands,
        "examples": loop.counts.examples,
        "duplicates": loop.counts.duplicates,
        "late": loop.counts.late,
        "dead_letters": counts.dead_letters,
        "quarantined": loop.counts.quarantined,
    }


@contextmanager
def _progress(console: Console, total: int, begun: int) -> Iterator[Any]:
    shown = progress_bar(console, "replaying {task.fields[event_time]}", "{task.fields[rate]}")
    with shown as bar:
        task = bar.add_task("replay", total=total, event_time="", rate="")

        def show(events: int, time_ms: int) -> None:
            moment = datetime.fromtimestamp(time_ms / 1_000, UTC)
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{(events - begun) / elapsed:,.0f} events/s" if elapsed > 0 else ""
            bar.update(task, completed=events, event_time=f"{moment:%Y-%m-%d %H:%M}", rate=rate)

        yield show
