"""Trainers on a real embedded log and a real snapshot folder, and the ways in which they fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event as StopSignal
from typing import Any, cast

from app.settings import Settings
from app.trainer_wiring import TrainerPlace, build_trainer
from domain.clock import Clock
from domain.deltas import DeltaPublisher
from domain.errors import LogUnavailableError, SnapshotError
from domain.event_log import Positions
from domain.features import FeatureSchema
from monitoring.metrics import Metrics
from snapshot.local_store import LocalSnapshotStore
from stream.observer import LoopObserver
from stream.sqlite_log import SqliteLog
from stream.train_loop import TrainLoop
from stream.trainer import Trainer
from tests.loop_worlds import make_loop


class Crash(BaseException):
    """The process is gone: nobody catches this, and nothing runs after it."""


def nothing() -> None:
    """Go on."""


class TickingClock:
    """Every look at the stopwatch takes a second, so that time passes without waiting."""

    def __init__(self) -> None:
        self.ticks = 0

    def now_ms(self) -> int:
        return 1_000_000 + self.ticks

    def stopwatch_s(self) -> float:
        self.ticks += 1
        return float(self.ticks)

    def sleep(self, seconds: float) -> None:
        """Return at once."""


class FaultyLog:
    """Passes everything on to a log, after calling what was asked for before a verb."""

    def __init__(self, log: SqliteLog, **before: Callable[[], None]) -> None:
        self._log = log
        self._before = before

    def __getattr__(self, verb: str) -> Any:
        self._before.get(verb, nothing)()
        return getattr(self._log, verb)


class FaultyStore:
    """Passes everything on to a store, after calling what was asked for around a publish."""

    def __init__(
        self,
        store: LocalSnapshotStore,
        before: Callable[[], None],
        after: Callable[[], None],
    ) -> None:
        self._store = store
        self._before = before
        self._after = after
        self.published: list[tuple[str, Positions]] = []

    def publish(self, states: Any, **facts: Any) -> str:
        self._before()
        snapshot_id = self._store.publish(states, **facts)
        self.published.append((snapshot_id, dict(facts["positions"])))
        self._after()
        return snapshot_id

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._store, verb)


def on_calls(numbers: Sequence[int], error: BaseException) -> Callable[[], None]:
    """Something to call that fails at the calls of these numbers, counted from 1."""
    calls = 0

    def call() -> None:
        nonlocal calls
        calls += 1
        if calls in numbers:
            raise error

    return call


def unavailable(*numbers: int) -> Callable[[], None]:
    """A log that is away at these calls."""
    return on_calls(numbers, LogUnavailableError("the log is away"))


def disk_full(*numbers: int) -> Callable[[], None]:
    """A disk that is full at these calls."""
    return on_calls(numbers, SnapshotError("snapshots: No space left on device"))


class Workshop:
    """A folder with a log and snapshots, in which one trainer after another works.

    Attributes:
        loop: of the last trainer.
        published: (snapshot id, positions) of everything the last trainer published.
    """

    def __init__(self, folder: Path, schema: FeatureSchema, settings: Settings) -> None:
        self.schema = schema
        self.settings = settings
        self._data = replace(settings.data, dir=str(folder))
        self.log = SqliteLog(folder / "events.sqlite")
        self.snapshots = folder / "snapshots"
        self.loop: TrainLoop = make_loop(schema, settings)
        self._metrics = Metrics()
        self._writer = LocalSnapshotStore(self.snapshots)

    def trainer(
        self,
        *,
        log: Any = None,
        before_publish: Callable[[], None] = nothing,
        after_publish: Callable[[], None] = nothing,
        observers: Sequence[LoopObserver] = (),
        clock: Clock | None = None,
        delta_publisher: DeltaPublisher | None = None,
    ) -> Trainer:
        """A new process: a loop that has seen nothing, and a trainer that goes on from the disk."""
        self._writer.close()  # the process before is gone, and its lock with it
        self._writer = self.store()
        self._metrics = Metrics()
        self.loop = make_loop(self.schema, self.settings, observers)
        store = FaultyStore(self._writer, before_publish, after_publish)
        self.published = store.published
        place = TrainerPlace(
            log=log or self.log,
            store=cast(LocalSnapshotStore, store),
            clock=clock or TickingClock(),
            metrics=self._metrics,
            delta_publisher=delta_publisher,
        )
        settings = self.settings.model_copy(update={"data": self._data})
        return build_trainer(settings, self.loop, place)

    def run_to_end(self, **faults: Any) -> Trainer:
        """Train until the log's end is reached."""
        trainer = self.trainer(**faults)
        trainer.run(StopSignal(), until_end=True)
        return trainer

    def store(self) -> LocalSnapshotStore:
        """The snapshot folder as a new process sees it."""
        return LocalSnapshotStore(self.snapshots, self.settings.snapshot)

    def count(self, name: str, **labels: str) -> float:
        """The value of a metric of the last trainer; 0 when it was never touched."""
        return self._metrics.registry.get_sample_value(f"headrace_{name}", labels) or 0.0

    def close(self) -> None:
        """End the last process."""
        self._writer.close()
        self.log.close()
