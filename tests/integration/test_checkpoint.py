"""The act of checkpointing: what a snapshot is told, in which order, and what a failure costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from domain.clock import ManualClock
from domain.errors import ConfigError, LogUnavailableError, SnapshotError
from domain.features import schema_from_mapping
from domain.state import State, state_hash
from monitoring.metrics import Metrics
from snapshot.local_store import LocalSnapshotStore
from stream.checkpoint import CheckpointConfig, Checkpointer, CheckpointTargets, restore, states_of
from stream.train_loop import TrainLoop
from tests.loop_worlds import (
    hashes_of,
    lead,
    live_quality,
    make_loop,
    tiny_settings,
    tiny_world,
    with_organic,
)

POSITIONS = {"events/0": 17, "events/1": 4}


class Journal:
    """A snapshot store and a log in one, that write down what they are told and in which order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.states: dict[str, State] = {}
        self.disk_is_full = self.log_is_away = False

    def publish(self, states: Mapping[str, State], **facts: Any) -> str:
        self.told.append(("publish", facts))
        if self.disk_is_full:
            raise SnapshotError("snapshots: No space left on device")
        self.states = dict(states)
        return "the-snapshot"

    def size_bytes(self, snapshot_id: str) -> int:
        assert snapshot_id == "the-snapshot"
        return 12_345

    def commit(self, positions: dict[str, int]) -> None:
        self.told.append(("commit", dict(positions)))
        if self.log_is_away:
            raise LogUnavailableError("the log is away")

    @property
    def order(self) -> list[str]:
        return [verb for verb, _ in self.told]


@pytest.fixture(scope="module")
def loop() -> TrainLoop:
    schema, events = tiny_world(30)
    return lead(make_loop(schema), events)


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(5_000)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def checkpointer(
    loop: TrainLoop, journal: Journal, clock: ManualClock, metrics: Metrics
) -> Checkpointer:
    targets = CheckpointTargets(store=journal, log=journal, extra={"learners": {"seed": 42}})
    return Checkpointer(loop, targets, CheckpointConfig(every_s=30.0), clock, metrics)


def test_snapshot_is_published_before_its_positions_are_committed(
    checkpointer: Checkpointer, journal: Journal
) -> None:
    assert checkpointer.checkpoint(POSITIONS) == "the-snapshot"
    assert journal.order == ["publish", "commit"]
    assert journal.told[1][1] == POSITIONS


def test_snapshot_is_told_where_it_was_taken_and_how_to_build_what_it_holds(
    checkpointer: Checkpointer, journal: Journal, loop: TrainLoop
) -> None:
    checkpointer.checkpoint(POSITIONS)
    facts = journal.told[0][1]
    assert facts["positions"] == POSITIONS
    assert facts["step"] == loop.counts.steps > 0
    assert facts["event_time_ms"] == loop.parts.watermark.newest_ms > 0
    assert facts["schema_hash"] == loop.parts.schema.hash
    extra = json.loads(json.dumps(facts["extra"]))
    assert schema_from_mapping(extra["schema"]) == loop.parts.schema
    assert extra["learners"] == {"seed": 42}
    assert (extra["events"], extra["examples"]) == (loop.counts.events, loop.counts.examples)


def test_positions_are_not_committed_when_the_snapshot_was_not_published(
    checkpointer: Checkpointer, journal: Journal
) -> None:
    journal.disk_is_full = True
    with pytest.raises(SnapshotError, match="No space left"):
        checkpointer.checkpoint(POSITIONS)
    assert journal.order == ["publish"]


def test_snapshot_counts_although_its_positions_could_not_be_committed(
    checkpointer: Checkpointer, journal: Journal
) -> None:
    journal.log_is_away = True
    assert checkpointer.checkpoint(POSITIONS) == "the-snapshot"
    assert not checkpointer.due()


def test_checkpoint_is_due_when_its_time_has_come_whether_the_last_one_worked_or_not(
    checkpointer: Checkpointer, journal: Journal, clock: ManualClock
) -> None:
    assert not checkpointer.due()
    clock.sleep(29.9)
    assert not checkpointer.due()
    clock.sleep(0.1)
    assert checkpointer.due()
    checkpointer.checkpoint(POSITIONS)
    assert not checkpointer.due()
    clock.sleep(30.0)
    assert checkpointer.due()
    journal.disk_is_full = True
    with pytest.raises(SnapshotError):
        checkpointer.checkpoint(POSITIONS)
    assert not checkpointer.due()


def test_age_is_counted_from_what_was_published_not_from_what_was_tried(
    checkpointer: Checkpointer, journal: Journal, clock: ManualClock
) -> None:
    checkpointer.checkpoint(POSITIONS)
    clock.sleep(30.0)
    journal.disk_is_full = True
    with pytest.raises(SnapshotError):
        checkpointer.checkpoint(POSITIONS)
    clock.sleep(5.0)
    assert checkpointer.age_s == pytest.approx(35.0)


def test_checkpoint_reports_its_size_and_step(
    checkpointer: Checkpointer, metrics: Metrics, loop: TrainLoop
) -> None:
    checkpointer.checkpoint(POSITIONS)
    for name, value in (("size_bytes", 12_345.0), ("last_step", float(loop.counts.steps))):
        assert metrics.registry.get_sample_value(f"headrace_snapshot_{name}") == value


def test_checkpoint_changes_nothing_in_what_is_checkpointed(loop: TrainLoop) -> None:
    before = hashes_of(loop)
    states_of(loop)
    assert hashes_of(loop) == before


@pytest.mark.parametrize("policy", ["wait", "fast"])
def test_loop_comes_back_from_the_disk_and_goes_on_to_the_same_bits(
    tmp_path: Path, policy: str
) -> None:
    schema, events = tiny_world(40)
    events = with_organic(events)
    settings = tiny_settings(f"joiner.policy={policy}")

    def fresh() -> TrainLoop:
        return make_loop(schema, settings, (live_quality(schema, settings),))

    untouched = lead(fresh(), events[:100])
    store = LocalSnapshotStore(tmp_path)
    states = states_of(untouched)
    store.publish(
        states, positions=POSITIONS, step=1, event_time_ms=events[99].time_ms, schema_hash="h"
    )
    stored = LocalSnapshotStore(tmp_path).load("current").states
    assert {name: state_hash(state) for name, state in stored.items()} == {
        name: state_hash(state) for name, state in states.items()
    }
    again = fresh()
    restore(again, dict(stored))
    assert again.counts == untouched.counts
    assert hashes_of(lead(again, events[100:])) == hashes_of(lead(untouched, events[100:]))
    store.close()


def test_config_names_the_key_when_not_positive() -> None:
    with pytest.raises(ConfigError, match=r"^checkpoint\.every_s must be positive, got 0"):
        CheckpointConfig(every_s=0)


def test_snapshot_that_others_watched_is_refused_in_one_line() -> None:
    schema, _ = tiny_world(1)
    watched = make_loop(schema, observers=[live_quality(schema, tiny_settings())])
    with pytest.raises(SnapshotError, match="observers none, got 0-LiveQuality: it was made by"):
        restore(make_loop(schema), states_of(watched))
