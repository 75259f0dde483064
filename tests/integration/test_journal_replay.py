"""A live run learned again from its log, in the order of its journal: the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event as StopSignal
from typing import Any

import pytest

from app.journal_replay import JournalOutcome, JournalPlace, replay_journal
from app.learners import LearnerConfigs, build_learners
from app.settings import Settings
from app.trainer_observers import build_observers
from app.trainer_wiring import TrainerPlace, build_loop, build_trainer
from domain.errors import JournalError
from domain.event_log import EventLog
from domain.events import Event
from monitoring.metrics import Metrics
from snapshot.local_store import LocalSnapshotStore
from stream.journal_files import JournalFolder
from stream.observer import LoopObserver
from stream.sqlite_log import SqliteLog
from tests.loop_trace import Trace
from tests.loop_worlds import tiny_settings, tiny_world
from tests.trainer_worlds import Crash, TickingClock

SETTINGS = (
    "trainer.max_records=25",
    "trainer.poll_timeout_s=0.001",
    "checkpoint.every_s=1",
    "snapshot.keep=3",
)


@pytest.fixture(scope="module")
def world() -> tuple[Any, list[Event]]:
    return tiny_world(40)


class LiveRun:
    """A data folder in which one trainer after another works, built as the process builds it."""

    def __init__(self, folder: Path, log: EventLog, schema: Any, *settings: str) -> None:
        self.folder = folder
        self.log = log
        self.schema = schema
        self.settings = self._settings(*settings)

    def _settings(self, *settings: str) -> Settings:
        folder = f"data.dir={str(self.folder)!r}"
        return tiny_settings(*SETTINGS, folder, *settings).model_copy(
            update={"schema_declared": self.schema}
        )

    def train(self, *settings: str, crash_at: int | None = None) -> None:
        """Train to the end of the log, or until the demand of this number comes up."""
        if settings:
            self.settings = self._settings(*settings)
        metrics, clock = Metrics(), TickingClock()
        learners = build_learners(self.schema, LearnerConfigs.of(self.settings))
        observers, _ = build_observers(self.settings, self.schema, learners, clock, metrics)
        loop = build_loop(self.settings, self.schema, learners, metrics, observers)
        if crash_at is not None:
            loop = build_loop(
                self.settings, self.schema, learners, metrics, [*observers, _crashing(crash_at)]
            )
        store = self.store()
        place = TrainerPlace(log=self.log, store=store, clock=clock, metrics=metrics)
        try:
            build_trainer(self.settings, loop, place).run(StopSignal(), until_end=True)
        finally:
            store.close()

    def store(self) -> LocalSnapshotStore:
        return LocalSnapshotStore(self.settings.data.snapshots, self.settings.snapshot)

    @property
    def journal(self) -> JournalFolder:
        return JournalFolder(self.settings.data.journal)

    def replay(self, snapshot_id: str = "current") -> JournalOutcome:
        place = JournalPlace(folder=self.journal, store=self.store(), log=self.log)
        return replay_journal(place, snapshot_id, lambda records, total: None)


def _crashing(ordinal: int) -> LoopObserver:
    watcher = Trace()

    def crash(demand: Any) -> None:
        if demand.ordinal == ordinal:
            raise Crash

    watcher.when_asked = crash
    return watcher


@pytest.fixture
def run(tmp_path: Path, world: Any) -> Iterator[LiveRun]:
    schema, events = world
    log = SqliteLog(tmp_path / "events.sqlite")
    log.append(events)
    yield LiveRun(tmp_path, log, schema)
    log.close()


def test_replay_of_a_journal_has_the_bits_of_the_live_run(run: LiveRun, world: Any) -> None:
    run.train()
    outcome = run.replay()
    assert outcome.equal
    assert set(outcome.live) == {"stream", "ranking", "memory", "retrieval"}
    assert outcome.live == outcome.replayed
    assert outcome.started_from == ""
    assert outcome.records == outcome.events == len(world[1])
    assert outcome.steps == run.store().load("current").manifest.step > 5
    assert outcome.last_equal_step == outcome.steps
