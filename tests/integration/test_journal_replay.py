"""A live run learned again from its log, in the order of its journal: the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event as StopSignal
from typing import Any

import pytest

from app.journal_replay import JournalOutcome, JournalPlace, replay_journal
from app.journal_run import run_journal_replay
from app.learners import LearnerConfigs, build_learners
from app.settings import Settings
from app.trainer_observers import build_observers
from app.trainer_wiring import TrainerPlace, build_loop, build_trainer
from domain.errors import JournalError
from domain.events import Event
from monitoring.metrics import Metrics
from snapshot.local_store import LocalSnapshotStore
from stream.journal_files import JournalFolder
from stream.sqlite_log import PARTITION, SqliteLog
from tests.loop_worlds import tiny_settings, tiny_world
from tests.trainer_worlds import Crash, FaultyLog, TickingClock, on_calls

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

    def __init__(self, folder: Path, log: SqliteLog, schema: Any, *settings: str) -> None:
        self.folder = folder
        self.log = log
        self.schema = schema
        self.settings = self._settings(*settings)

    def _settings(self, *settings: str) -> Settings:
        folder = f"data.dir={str(self.folder)!r}"
        return tiny_settings(*SETTINGS, folder, *settings).model_copy(
            update={"schema_declared": self.schema}
        )

    def train(self, *settings: str, log: Any = None) -> None:
        """Train to the end of the log; settings given stay for the trainers after it."""
        if settings:
            self.settings = self._settings(*settings)
        metrics, clock = Metrics(), TickingClock()
        learners = build_learners(self.schema, LearnerConfigs.of(self.settings))
        observers, _ = build_observers(self.settings, self.schema, learners, clock, metrics)
        loop = build_loop(self.settings, self.schema, learners, metrics, observers)
        store = self.store()
        place = TrainerPlace(log=log or self.log, store=store, clock=clock, metrics=metrics)
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


@pytest.fixture
def run(tmp_path: Path, world: Any) -> Iterator[LiveRun]:
    schema, events = world
    log = SqliteLog(tmp_path / "events.sqlite")
    log.append(events[:100])
    yield LiveRun(tmp_path, log, schema)
    log.close()


def test_replay_of_a_journal_has_the_bits_of_the_live_run(run: LiveRun, world: Any) -> None:
    run.train()
    run.log.append_raw([("x", b"no event")])
    run.log.append(world[1][100:])
    run.train()
    outcome = run.replay()
    assert outcome.equal
    assert set(outcome.live) == {"stream", "ranking", "memory", "retrieval"}
    assert outcome.started_from == ""
    assert outcome.records == outcome.events == len(world[1]) + 1
    assert outcome.steps == run.store().load("current").manifest.step > 5
    assert outcome.last_equal_step == outcome.steps


def test_replay_can_be_asked_for_an_older_snapshot(run: LiveRun) -> None:
    run.train()
    older = run.store().ids()[0]
    outcome = run.replay(older)
    assert outcome.equal
    assert outcome.snapshot_id == older
    assert outcome.records < run.replay().records


def test_run_that_crashed_and_was_restarted_with_other_settings_is_replayed_as_it_was(
    run: LiveRun, world: Any
) -> None:
    with pytest.raises(Crash):
        run.train(log=FaultyLog(run.log, commit=on_calls([3], Crash())))
    run.train("batcher.max_examples=20")
    run.log.append(world[1][100:])
    run.train("joiner.policy=fast", "batcher.max_examples=20")
    outcome = run.replay()
    assert outcome.equal
    assert outcome.records == len(world[1])
    name = run.store().load("current").manifest.extra["journal"]
    settings = [segment.settings for _, segment in run.journal.chain(name)]
    assert len({str(one) for one in settings}) == 3


def test_chain_follows_a_roll_back(run: LiveRun, world: Any) -> None:
    run.train()
    run.store().rollback()
    run.train()
    run.log.append(world[1][100:])
    run.train()
    outcome = run.replay()
    assert outcome.equal
    assert outcome.records == len(world[1])


def test_replay_begins_with_a_snapshot_when_the_beginning_is_no_longer_kept(
    run: LiveRun, world: Any
) -> None:
    run.train()
    oldest = run.store().ids()[0]
    position = run.store().load(oldest, components=()).manifest.positions[PARTITION]
    name = run.store().load(oldest, components=()).manifest.extra["journal"]
    run.journal.remove(run.journal.chain(name)[0][0])
    run.log.append(world[1][100:])
    run.train("snapshot.keep=100")
    outcome = run.replay()
    assert outcome.equal
    assert outcome.started_from == oldest
    assert outcome.records == len(world[1]) - position
    run.log.drop_before(position + 1)
    assert run.replay().started_from > oldest
    run.log.drop_before(len(world[1]) - 1)
    with pytest.raises(JournalError, match="nothing to begin a replay with: the log no longer"):
        run.replay()


def test_gap_that_was_skipped_is_replayed_from_behind_it(run: LiveRun, world: Any) -> None:
    run.train("snapshot.keep=100")
    run.log.append(world[1][100:])
    run.log.drop_before(120)
    run.train("trainer.on_gap=skip", "snapshot.keep=100")
    outcome = run.replay()
    assert outcome.equal
    assert outcome.records == len(world[1]) - 120


def test_other_log_is_found_out_and_the_step_is_named(run: LiveRun, world: Any) -> None:
    run.train()
    other = SqliteLog(run.folder / "other.sqlite")
    # One impression fewer, from where on its user is another one.
    events = [one for one in world[1][:100] if one.event_id != world[1][60].event_id]
    other.append([*events, world[1][100]])
    run.log, mine = other, run.log
    outcome = run.replay()
    assert not outcome.equal
    assert outcome.live["stream"] != outcome.replayed["stream"]
    run.log = mine
    other.close()


def test_snapshot_without_a_journal_says_so(run: LiveRun) -> None:
    run.train("journal.enabled=false")
    with pytest.raises(JournalError, match="names no segment of a journal"):
        run.replay()


def test_missing_segment_is_named(run: LiveRun) -> None:
    run.train()
    run.journal.remove(run.store().load("current").manifest.extra["journal"])
    with pytest.raises(JournalError, match="the file is missing"):
        run.replay()


def test_command_prints_a_table_and_its_status_says_whether_all_is_equal(
    run: LiveRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run.train()
    journal = run.settings.data.journal
    assert run_journal_replay(run.settings, journal, "current") == 0
    said = capsys.readouterr().out
    assert "equal to the bit" in said
    assert said.count("yes") == 4
    other = run._settings(f"data.log=sqlite:///{run.folder}/other.sqlite")
    log = SqliteLog(run.folder / "other.sqlite")
    log.append_raw([("x", b"no event")] * 100)
    log.close()
    assert run_journal_replay(other, journal, "current") == 1
    said = capsys.readouterr().out
    assert "NOT EQUAL: step 1 was taken after another event" in said
