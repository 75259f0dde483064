"""What the pages are drawn from: metrics of the past, drift records, snapshots and reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

from domain.clock import Clock
from monitoring.drift_signal import DriftSignal
from monitoring.metric_history import Frame, HistoryReader, Source
from monitoring.reaction_store import read_reactions
from monitoring.reactions import Reaction
from monitoring.signal_store import SignalStore

T = TypeVar("T")

TRAINER = "trainer"
WEEK_MS = 7 * 24 * 3_600_000
_NEAR_A_WEEK_MS = 2 * 3_600_000
_SIGNALS = 200
_REACTIONS = 50
_SHORTEST_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRow:
    """One snapshot.

    Attributes:
        event_time_ms: newest event in it; 0 when it has learned nothing.
        problem: why it cannot be served; empty when its manifest is sound.
    """

    snapshot_id: str
    step: int = 0
    event_time_ms: int = 0
    events: int = 0
    size_bytes: int = 0
    is_current: bool = False
    problem: str = ""


class SnapshotCare(Protocol):
    """Snapshots, as the dashboard may look at and choose among them."""

    def rows(self) -> Sequence[SnapshotRow]:
        """Return all snapshots, oldest first."""

    def promote(self, snapshot_id: str) -> None:
        """Make a sound snapshot the served one.

        Raises:
            SnapshotError: it is gone or damaged; what was served stays so.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where records lie.

    Attributes:
        title: what the deployment is called on the page: its data folder.
    """

    title: str
    history: Path
    drift: Path
    reports: Path


class Records:
    """Access to everything that pages show."""

    def __init__(self, places: Places, snapshots: SnapshotCare, clock: Clock) -> None:
        self.places = places
        self.snapshots = snapshots
        self.clock = clock
        self.history = HistoryReader(places.history)

    def drift(self, read: Callable[[SignalStore], list[T]]) -> list[T]:
        """Return what `read` finds in the drift records; nothing when nothing was written yet.

        Raises:
            ConfigError: the file is none of ours.
        """
        if not self.places.drift.exists():
            return []
        with closing(SignalStore(self.places.drift, read_only=True)) as store:
            return read(store)


class Look:
    """One look at the records: everything on a page belongs to the same moment and span.

    Attributes:
        now_ms: processing time of the look.
        span_ms: how far back curves go; 0 is all there is.
    """

    def __init__(self, records: Records, span_ms: int) -> None:
        self.records = records
        self.span_ms = span_ms
        self.now_ms = records.clock.now_ms()
        self._frames: dict[str, Frame] = {}

    @cached_property
    def sources(self) -> list[Source]:
        """Return every process with records, trainer and servers."""
        return self.records.history.sources()

    @property
    def servers(self) -> list[Source]:
        """Return the servers, those that run first."""
        servers = [source for source in self.sources if source.name != TRAINER]
        return sorted(servers, key=lambda one: (not one.is_running(self.now_ms), -one.newest_ms))

    @property
    def trainer(self) -> Source | None:
        """Return the trainer, None when it has kept no records."""
        return next((source for source in self.sources if source.name == TRAINER), None)

    @cached_property
    def until_ms(self) -> int:
        """Return where curves end: now while something runs, else at the newest record."""
        if any(source.is_running(self.now_ms) for source in self.sources) or not self.sources:
            return self.now_ms
        return max(source.newest_ms for source in self.sources)

    @cached_property
    def since_ms(self) -> int:
        """Return where curves begin: at the first record, if that is within the span."""
        times = [self.frame(source.name).times_ms for source in self.sources]
        first_ms = min((int(one[0]) for one in times if len(one)), default=self.until_ms)
        return min(first_ms, self.until_ms - _SHORTEST_MS)

    def frame(self, source: str) -> Frame:
        """Return a process's samples of the span."""
        if source not in self._frames:
            since_ms = self.until_ms - self.span_ms if self.span_ms else 0
            self._frames[source] = self.records.history.frame(source, since_ms, self.until_ms)
        return self._frames[source]

    @property
    def trained(self) -> Frame:
        """Return the trainer's samples of the span."""
        return self.frame(TRAINER)

    def a_week_ago(self) -> Frame:
        """Return the trainer's sample of a week before its newest, alone or not at all."""
        trainer = self.trainer
        newest_ms = trainer.newest_ms if trainer else self.until_ms
        return self.records.history.sample_near(TRAINER, newest_ms - WEEK_MS, _NEAR_A_WEEK_MS)

    @cached_property
    def signals(self) -> list[DriftSignal]:
        """Return the newest drift signals, newest first."""
        return self.records.drift(lambda store: store.list(limit=_SIGNALS))

    @cached_property
    def reactions(self) -> list[Reaction]:
        """Return what the trainer did about drift lately, newest first."""
        path = self.records.places.drift
        return read_reactions(path, _REACTIONS) if path.exists() else []

    @property
    def num_live_signals(self) -> int:
        """Return how many drift signals are live, as the trainer counts them."""
        if not self.records.places.drift.exists():
            return int(self.trained.last("headrace_monitoring_drift_live_signals") or 0)
        return len(self.live_signals)

    @property
    def live_signals(self) -> list[DriftSignal]:
        """Return those that have not ended."""
        return [signal for signal in self.signals if signal.ended_ms is None]
