"""`headrace replay` at work: a dataset through the real loop, and a table of what it showed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from app.errors import stop_on_signals
from app.learners import LearnerConfigs, Learners, build_learners
from app.process_setup import VERSION
from app.ranker_variants import RankerWish, build_variants
from app.reactions_wiring import build_reactions
from app.replay_start import ReplayStart
from app.settings import Settings
from app.trainer_observers import drift_watch
from app.trainer_wiring import build_loop
from domain.clock import SystemClock
from domain.errors import ConfigError, DatasetError
from domain.features import FeatureSchema
from monitoring.drift_signal import signal_to_plain
from monitoring.drift_sinks import ListSink
from monitoring.log_setup import set_up_logging
from monitoring.metrics import Metrics
from monitoring.reactions import ReactionList
from replay.baselines import CounterBaseline
from replay.dataset import Dataset
from replay.intervals import BootstrapConfig
from replay.next_item import NextItemWatch
from replay.prequential import Prequential
from replay.rankers_side_by_side import RankersSideBySide
from replay.records import ReplayRecords, records_path
from replay.report import measure
from replay.report_markdown import markdown
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
    """

    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    keep_partial: bool = False
    command: str = ""
    start: ReplayStart | None = None
    rankers: tuple[RankerWish, ...] = ()

    @property
    def snapshot_id(self) -> str:
        """Return the id of the snapshot to go on from, "" when there is none."""
        return "" if self.start is None else self.start.snapshot_id


@dataclass(frozen=True, slots=True)
class _Parts:
    """What takes part in a replay."""

    learners: Learners
    prequential: Prequential
    watched: SideBySide
    rankers: RankersSideBySide
    signals: ListSink
    done: ReactionList
    loop: TrainLoop


def run_replay(
    settings: Settings, dataset: Dataset, console: Console, wishes: ReplayWishes | None = None
) -> ReplayOutcome:
    """Replay a dataset and return the report.

    Raises:
        DatasetError: the dataset has no events that ask for a score.
        KeyboardInterrupt: it was interrupted, and no partial report is wanted.
    """
    wishes = wishes or ReplayWishes()
    set_up_logging(replace(settings.log, level="error"))
    clock = SystemClock()
    started_s = clock.stopwatch_s()
    if wishes.start is None:
        settings = fit_to(dataset, settings)
    with console.status("counting what will be scored"):
        num_demands = _count(dataset)
    parts = _build(settings, dataset.schema, num_demands // 2, wishes)
    counts = _lead(dataset, parts.loop, console, wishes.keep_partial)
    if counts.first_dead_letter:
        console.print(f"First dead letter: {counts.first_dead_letter}", soft_wrap=True)
    seen = parts.prequential.num_demands
    total = seen if counts.interrupted else num_demands
    records = parts.prequential.records(total // 2, total, parts.watched.ranks())
    with console.status("measuring, with intervals"):
        numbers = _numbers(parts, records, wishes)
    partial = f"interrupted after {seen:,} of {num_demands:,} lists; halves are halves of those"
    report = {
        **_what_was_replayed(dataset, parts.loop, counts, settings),
        **({"snapshot": wishes.snapshot_id} if wishes.start is not None else {}),
        **({"partial": partial} if counts.interrupted else {}),
        "seconds": round(clock.stopwatch_s() - started_s, 1),
        **numbers,
        "command": wishes.command,
        "version": VERSION,
        "changed": _changed(settings),
        "configuration": settings.model_dump(mode="json"),
    }
    return ReplayOutcome(report, counts, records)


def _count(dataset: Dataset) -> int:
    num_demands = count_demands(dataset.events(), dataset.schema)
    if num_demands == 0:
        raise DatasetError(
            f"{dataset.name}: nothing in it asks for a score (no impressions, and no feedback of "
            f"the kinds {', '.join(head.feedback_kind for head in dataset.schema.heads)})"
        )
    return num_demands


def _build(
    settings: Settings, schema: FeatureSchema, split_at: int, wishes: ReplayWishes
) -> _Parts:
    """Build the loop that a trainer has, with retriever and ranker watched.

    Baselines would know less than a snapshot that others learned, so there are none beside it.
    """
    start, stopwatch = wishes.start, SystemClock().stopwatch_s
    learners = build_learners(schema, LearnerConfigs.of(settings))
    asked = build_variants(schema, settings.ranking, wishes.rankers, stopwatch)
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
    return _Parts(learners, prequential, watched, rankers, signals, done, loop)


def _lead(dataset: Dataset, loop: TrainLoop, console: Console, keep_partial: bool) -> ReplayCounts:
    # Stopped between two events, so that no event is half learned when the numbers are made; and
    # by a flag, because an exception out of nowhere may be lost in a callback of a library.
    with _progress(console, dataset.num_events_hint) as progress, stop_on_signals() as stop:
        counts = replay_events(dataset.events(), loop, progress, stop.is_set)
    if counts.interrupted and not keep_partial:
        raise KeyboardInterrupt
    return counts


def _numbers(parts: _Parts, records: ReplayRecords, wishes: ReplayWishes) -> dict[str, Any]:
    split_at, catalog = records.split_at, parts.learners.retrieval.num_items
    return {
        "variants": parts.prequential.variants(split_at, records.num_demands),
        "retrieval": {**parts.prequential.retrieval(split_at), "catalog": catalog},
        "costs": parts.rankers.costs(OnlineVariant.name),
        "asked_variants": {wish.name: list(wish.changes) for wish in wishes.rankers},
        "words": in_words(
            records,
            wishes.bootstrap,
            snapshot_id=wishes.snapshot_id,
            asked=[wish.name for wish in wishes.rankers],
        ),
        **measure(records, wishes.bootstrap),
        "next_item": parts.watched.next_item(),
        "recommended_lists": parts.watched.lists(catalog),
        "drift_signals": [
            {**signal_to_plain(one), "severity": one.severity, "sentence": one.describe()}
            for one in parts.signals.signals
        ],
        "reactions": [{**asdict(one), "sentence": one.describe()} for one in parts.done.reactions],
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
def _progress(console: Console, total: int) -> Iterator[Any]:
    columns = (
        TextColumn("replaying {task.fields[event_time]}"),
        BarColumn(bar_width=16),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    # Drawing a bar over and over suits a terminal, not a file that standard error goes to.
    shown = Progress(
        *columns,
        console=console,
        refresh_per_second=2,
        transient=True,
        disable=not console.is_terminal,
    )
    with shown as bar:
        task = bar.add_task("replay", total=total, event_time="", rate="")

        def show(events: int, time_ms: int) -> None:
            moment = datetime.fromtimestamp(time_ms / 1_000, UTC)
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{events / elapsed:,.0f} events/s" if elapsed > 0 else ""
            bar.update(task, completed=events, event_time=f"{moment:%Y-%m-%d %H:%M}", rate=rate)

        yield show


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print the second half as Markdown, which a terminal can show and an issue can hold."""
    text = markdown(report, intervals=False)
    console.print(text, soft_wrap=True, highlight=False, markup=False, end="")


def write_markdown(report: dict[str, Any], path: Path) -> None:
    """Write the same with intervals.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(markdown(report, intervals=True))
    except OSError as error:
        raise ConfigError(f"--markdown {path}: cannot be written: {error.strerror}") from error


def write_report(outcome: ReplayOutcome, path: Path) -> None:
    """Write the report as JSON, and the records beside it.

    Raises:
        ConfigError: a file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(outcome.report, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written: {error.strerror}") from error
    outcome.records.save(records_path(path))


def write_html(report: dict[str, Any], path: Path) -> None:
    """Write the report as a page.

    Raises:
        ConfigError: the file cannot be written.
    """
    # Imported here because plotly takes a while, which only a page should cost.
    from replay.report_html import page

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(report))
    except OSError as error:
        raise ConfigError(f"--html {path}: cannot be written: {error.strerror}") from error
