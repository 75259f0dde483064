"""A trainer that publishes deltas, and a twin that follows it through files from a snapshot on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.learners import LearnerConfigs, Learners, build_learners
from domain.clock import ManualClock
from domain.deltas import Delta, DeltaPoint
from domain.errors import ConfigError, DeltaGapError, SnapshotError
from domain.requests import RankingRequest, RetrievalRequest, UserView
from domain.state import state_hash
from monitoring.metrics import Metrics
from snapshot.deltas import LocalDeltaStore
from snapshot.local_store import Snapshot
from stream.checkpoint import DELTA, CheckpointConfig, Checkpointer, CheckpointTargets
from stream.delta_publishing import DeltaPublishing, DeltasConfig, DeltaWatch
from tests.loop_worlds import lead, make_loop, tiny_settings, tiny_world
from tests.trainer_worlds import Workshop

SETTINGS = tiny_settings(
    "deltas.every_ms=3_000",
    "snapshot.keep=1_000",
    "checkpoint.every_s=100",
    "trainer.max_records=9",
)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    schema, events = tiny_world(60)
    workshop = Workshop(tmp_path, schema, SETTINGS)
    workshop.log.append(events)
    yield workshop
    workshop.close()


def point_of(snapshot: Snapshot) -> DeltaPoint:
    return DeltaPoint(**snapshot.manifest.extra[DELTA])


def learners_of(workshop: Workshop, snapshot: Snapshot) -> Learners:
    learners = build_learners(workshop.schema, LearnerConfigs.of(workshop.settings))
    for name in ("ranking", "memory", "retrieval"):
        getattr(learners, name).load(snapshot.states[name])
    return learners


def apply(learners: Learners, delta: Delta) -> None:
    for name, state in delta.states.items():
        getattr(learners, name).check_delta(state)
        getattr(learners, name).apply_delta(state)


def answers(learners: Any, time_ms: int) -> str:
    """Everything a server would say to a few users, as one hash."""
    said = {}
    for user in range(4):
        view = UserView(f"u{user}")
        found = learners.retrieval.retrieve(RetrievalRequest(view, time_ms, 10))
        asked = RankingRequest(view, found.item_ids, ({},) * len(found.item_ids), time_ms)
        scores = learners.ranking.predict([learners.ranking.capture(asked)])[0]
        said[view.user_id] = {
            "items": list(found.item_ids),
            "found": found.scores,
            "scores": scores.probabilities,
            "compensated": learners.memory.compensate(scores.hidden, scores.probabilities),
        }
    return state_hash(said)


def test_follower_says_what_the_trainer_would_say_at_every_snapshot_and_at_the_end(
    workshop: Workshop, tmp_path: Path
) -> None:
    workshop.run_to_end()
    store, deltas = workshop.store(), LocalDeltaStore(tmp_path / "deltas")
    snapshots = sorted(map(store.load, store.ids()), key=lambda one: point_of(one).number)
    assert len(snapshots) >= 3
    twin = learners_of(workshop, snapshots[0])
    for name in ("ranking", "memory", "retrieval"):
        getattr(twin, name).follow()
    point = point_of(snapshots[0])
    newest = deltas.newest()
    assert newest is not None
    for snapshot in snapshots[1:]:
        reached = point_of(snapshot)
        assert reached.chain == point.chain == newest.chain
        for delta in deltas.after(point, reached.number - point.number):
            apply(twin, delta)
        manifest = snapshot.manifest
        assert delta.point == reached
        assert (delta.positions, delta.step) == (manifest.positions, manifest.step)
        assert (delta.event_time_ms, delta.schema_hash) == (
            manifest.event_time_ms,
            manifest.schema_hash,
        )
        time_ms = manifest.event_time_ms
        assert answers(twin, time_ms) == answers(learners_of(workshop, snapshot), time_ms)
        point = reached
    assert point == newest
    assert newest.number > 10
    assert answers(twin, time_ms) == answers(workshop.loop.parts, time_ms)
    assert workshop.count("snapshot_deltas_total") == newest.number
    sizes = [path.stat().st_size for path in (tmp_path / "deltas" / newest.chain).iterdir()]
    assert workshop.count("snapshot_delta_bytes_total") == sum(sizes)


def test_restarted_trainer_begins_another_chain_and_soon_a_snapshot_to_join_it_at(
    workshop: Workshop, tmp_path: Path
) -> None:
    workshop.run_to_end()
    store, deltas = workshop.store(), LocalDeltaStore(tmp_path / "deltas")
    before = point_of(store.load())
    _, more = tiny_world(10, seed=2)
    workshop.log.append(more)
    trainer = workshop.trainer()
    with pytest.raises(DeltaGapError, match="has ended"):
        deltas.after(before, 1)
    trainer.run(_Never(), until_end=True)
    assert len(workshop.published) > 1, "the first one comes with the first records"
    after = point_of(store.load(workshop.published[0][0]))
    assert after.chain != before.chain
    assert deltas.after(after, 1)[0].point.number == after.number + 1


def test_trainer_in_a_silence_publishes_no_delta(workshop: Workshop, tmp_path: Path) -> None:
    workshop.run_to_end()
    workshop.run_to_end()
    newest = LocalDeltaStore(tmp_path / "deltas").newest()
    assert newest is not None
    assert newest.number == 0


def test_trainer_that_publishes_none_leaves_no_trace(tmp_path: Path) -> None:
    schema, events = tiny_world(20)
    workshop = Workshop(tmp_path, schema, tiny_settings("deltas.every_ms=0"))
    workshop.log.append(events)
    workshop.run_to_end()
    assert DELTA not in workshop.store().load().manifest.extra
    assert not (tmp_path / "deltas").exists()
    workshop.close()


# The publisher alone


class _Never:
    """Nobody asks to stop."""

    def is_set(self) -> bool:
        return False

    def wait(self, timeout: float | None = None) -> bool:
        return False


class Recorder:
    """Keeps what it is given; its disk can be full."""

    def __init__(self) -> None:
        self.chains = 0
        self.points: list[DeltaPoint] = []
        self.disk_is_full = False

    def begin_chain(self) -> str:
        self.chains += 1
        return f"chain {self.chains}"

    def publish(self, delta: Delta) -> int:
        if self.disk_is_full:
            raise SnapshotError("deltas: No space left on device")
        self.points.append(delta.point)
        return 7


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(5_000)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def publishing(recorder: Recorder, clock: ManualClock, metrics: Metrics) -> DeltaPublishing:
    schema, events = tiny_world(10)
    loop = lead(make_loop(schema), events)
    watch = DeltaWatch(clock=clock, metrics=metrics)
    deltas = DeltaPublishing(loop, recorder, DeltasConfig(every_ms=500), watch, {"e/0": 1})
    deltas.begin()
    return deltas


def test_config_has_no_negative_time() -> None:
    with pytest.raises(ConfigError, match=r"^deltas\.every_ms must not be negative, got -1"):
        DeltasConfig(every_ms=-1)


def test_delta_is_due_when_its_time_has_come(
    publishing: DeltaPublishing, clock: ManualClock, recorder: Recorder
) -> None:
    assert not publishing.due()
    clock.sleep(0.5)
    assert publishing.due()
    publishing.publish({"e/0": 2})
    assert not publishing.due()
    assert recorder.points == [DeltaPoint("chain 1", 1)]


def test_nothing_is_published_where_nothing_was_learned(
    publishing: DeltaPublishing, recorder: Recorder
) -> None:
    publishing.publish({"e/0": 1})
    assert recorder.points == []
    publishing.publish({"e/0": 2})
    publishing.publish({"e/0": 2})
    assert recorder.points == [DeltaPoint("chain 1", 1)]


def test_full_disk_and_a_hold_leave_a_number_out(
    publishing: DeltaPublishing, recorder: Recorder, metrics: Metrics
) -> None:
    publishing.publish({"e/0": 2})
    recorder.disk_is_full = True
    publishing.publish({"e/0": 3})
    recorder.disk_is_full = False
    publishing.publish({"e/0": 4})
    publishing.publish({"e/0": 5}, hold=True)
    publishing.publish({"e/0": 6})
    assert [point.number for point in recorder.points] == [1, 3, 5]
    read = metrics.registry.get_sample_value
    assert read("headrace_snapshot_delta_failures_total") == 1.0
    assert read("headrace_snapshot_deltas_total") == 3.0
    assert read("headrace_snapshot_delta_bytes_total") == 21.0


def test_servers_sent_back_to_an_earlier_snapshot_are_not_led_on_from_it(
    publishing: DeltaPublishing, recorder: Recorder, clock: ManualClock, metrics: Metrics
) -> None:
    class Reactions:
        holding = True

        def take_roll_back_ms(self) -> int | None:
            return 1

    class Store:
        def roll_back_before(self, event_time_ms: int) -> str:
            return f"a snapshot before {event_time_ms}"

    loop: Any = type("Loop", (), {"parts": type("Parts", (), {"reactions": Reactions()})})()
    store: Any = Store()
    targets = CheckpointTargets(store=store, log=store, deltas=publishing)
    checkpointer = Checkpointer(loop, targets, CheckpointConfig(), clock, metrics)
    publishing.publish({"e/0": 2})
    checkpointer.roll_back_if_asked()
    assert publishing.point == DeltaPoint("chain 2", 0)
    clock.sleep(1.0)
    checkpointer.publish_delta_if_due({"e/0": 3})
    assert recorder.points == [DeltaPoint("chain 1", 1)], "held back, as snapshots are"
    assert publishing.point == DeltaPoint("chain 2", 1)
