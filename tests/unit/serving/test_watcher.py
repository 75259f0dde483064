from __future__ import annotations

import logging
import time

import pytest

from domain.clock import SystemClock
from domain.deltas import DeltaPoint
from domain.errors import ConfigError, LogUnavailableError, SnapshotDamagedError, SnapshotError
from domain.events import Feedback
from domain.features import FeatureSchema
from serving.live_models import LiveModelSlot, standing
from serving.tail import LogTail, TailConfig
from serving.watcher import SnapshotPlace, SnapshotWatcher, WatcherConfig, WatcherParts
from stream.sqlite_log import PARTITION, SqliteLog
from tests.unit.serving.delta_worlds import CHAIN, following
from tests.unit.serving.worlds import (
    CLOCK,
    SCHEMA,
    Broken,
    NanRanker,
    Shelf,
    count,
    make_models,
    serving_metrics,
)


class Stopwatch(SystemClock):
    """A clock whose stopwatch shows what it is told."""

    now_s = 0.0

    def stopwatch_s(self) -> float:
        return self.now_s


class Post:
    """A watcher with a real log and tail, and a shelf of snapshots."""

    def __init__(self, tmp_path) -> None:
        self.log = SqliteLog(tmp_path / "log.sqlite")
        self.slot = LiveModelSlot()
        self.metrics = serving_metrics()
        self.tail = LogTail(self.log, self.slot, CLOCK, TailConfig(poll_timeout_ms=5), self.metrics)
        self.shelf = Shelf()
        parts = WatcherParts(
            source=self.shelf, schema=SCHEMA, slot=self.slot, tail=self.tail, log=self.log
        )
        self.clock = Stopwatch()
        self.watcher = SnapshotWatcher(parts, self.clock, WatcherConfig(poll_ms=5), self.metrics)

    def click(self, number: int, user_id: str) -> None:
        self.log.append(
            [
                Feedback(
                    event_id=f"c{number}",
                    time_ms=1_000 + number,
                    user_id=user_id,
                    item_id="i1",
                    kind="click",
                )
            ]
        )


@pytest.fixture
def post(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    made = Post(tmp_path)
    yield made
    made.watcher.stop()
    made.tail.stop()
    made.log.close()


def test_watcher_waits_while_there_is_no_snapshot(post):
    assert not post.watcher.look_once()
    assert post.slot.snapshot_id == ""


def test_watcher_takes_a_snapshot_into_service_once(post, caplog):
    post.shelf.put("s1")
    assert post.watcher.look_once()
    assert not post.watcher.look_once()
    assert (post.slot.snapshot_id, post.shelf.loads) == ("s1", ["s1"])
    assert count(post.metrics.snapshot_swaps) == 1
    assert 'event="snapshot live" snapshot=s1' in caplog.text


def test_watcher_replays_the_log_into_a_new_bundle_before_it_answers(post):
    for number in range(4):
        post.click(number, f"u{number}")
    seen_at_swap = []
    post.slot.add_listener(
        lambda models: seen_at_swap.append(
            [bool(models.feature_store.seen(f"u{number}")) for number in range(4)]
        )
    )
    post.shelf.put("s1", lambda: make_models("s1", positions={PARTITION: 1}))
    post.watcher.look_once()
    assert seen_at_swap == [[False, True, True, True]]
    assert post.tail.positions == {PARTITION: 4}


def test_watcher_warms_up_with_unknown_and_lately_active_users_before_the_swap(post):
    models = make_models("s1")
    live_at_ranking = []
    capture = models.ranker.capture
    models.ranker.capture = lambda request: (
        live_at_ranking.append((request.user.user_id, post.slot.snapshot_id)),
        capture(request),
    )[1]
    post.click(1, "ann")
    post.shelf.put("s1", lambda: models)
    assert post.watcher.look_once()
    assert live_at_ranking == [("", ""), ("ann", "")]


def test_watcher_follows_a_rollback(post):
    post.shelf.put("s1")
    post.watcher.look_once()
    post.shelf.put("s2")
    post.watcher.look_once()
    post.shelf.current = "s1"
    assert post.watcher.look_once()
    assert post.slot.snapshot_id == "s1"


def poison(**parts):
    return lambda: make_models("s2", **parts)


def unloadable():
    raise MemoryError("a length field says 8 EiB")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (None, "checksum differs"),
        (poison(schema=FeatureSchema()), f"configured with schema {SCHEMA.hash}"),
        (poison(ranker=NanRanker()), "not finite"),
        (poison(ranker=Broken()), "capture is broken"),
        (poison(retriever=Broken()), "retrieve is broken"),
        (poison(memory=Broken()), "compensate is broken"),
        (poison(positions={PARTITION: 77}), "read events/0 up to 77, but the log ends at 1"),
        (unloadable, "8 EiB"),
    ],
    ids=["damaged", "schema", "nan", "ranker", "retriever", "memory", "positions", "unloadable"],
)
def test_watcher_refuses_a_bad_snapshot_once_and_the_old_one_goes_on(post, caplog, make, reason):
    post.shelf.put("s1")
    post.watcher.look_once()
    post.click(1, "ann")
    if make is None:
        post.shelf.put_damaged("s2")
    else:
        post.shelf.put("s2", make)
    for _ in range(3):
        assert not post.watcher.look_once()
    assert post.slot.snapshot_id == "s1"
    assert post.shelf.loads == ["s1", "s2"]
    assert post.watcher.refused_ids == ("s2",)
    assert count(post.metrics.snapshot_refused) == 1
    assert caplog.text.count('event="snapshot refused" snapshot=s2') == 1
    assert reason in caplog.text
    post.shelf.put("s3")
    assert post.watcher.look_once()


def test_watcher_begins_with_the_newest_whole_snapshot_when_the_current_one_is_damaged(
    post, caplog
):
    for name in ("s1", "s2"):
        post.shelf.put(name)
    for name in ("s3", "s4"):
        post.shelf.put_damaged(name)
    assert [post.watcher.look_once() for _ in range(4)] == [False, False, True, False]
    assert post.slot.snapshot_id == "s2"
    assert post.shelf.loads == ["s4", "s3", "s2"]
    assert 'event="snapshot stands in" snapshot=s2 instead_of=s4' in caplog.text
    post.shelf.put("s5")
    assert post.watcher.look_once()
    assert post.slot.snapshot_id == "s5"


def test_watcher_puts_nothing_in_place_of_a_snapshot_that_belongs_to_others(post):
    post.shelf.put("s1")
    post.shelf.put("s2", lambda: make_models("s2", schema=FeatureSchema()))
    assert [post.watcher.look_once() for _ in range(3)] == [False, False, False]
    assert (post.slot.snapshot_id, post.shelf.loads) == ("", ["s2"])


def test_watcher_tries_again_when_only_the_log_was_away(post, caplog):
    class Away:
        def end_positions(self):
            raise LogUnavailableError("no broker answers")

    post.shelf.put("s1")
    parts, post.watcher._parts = (
        post.watcher._parts,
        WatcherParts(source=post.shelf, schema=SCHEMA, slot=post.slot, tail=post.tail, log=Away()),
    )
    for _ in range(3):
        assert not post.watcher.look_once()
    assert post.watcher.refused_ids == ()
    assert caplog.text.count('event="snapshot s1 waits for the log"') == 1
    post.watcher._parts = parts
    assert post.watcher.look_once()


def test_watcher_goes_on_when_snapshots_cannot_be_listed_for_a_while(post, caplog):
    post.shelf.put("s1")
    current_id, errors = post.shelf.current_id, [SnapshotError("CURRENT is empty"), OSError("NFS")]

    def flaky():
        if errors:
            raise errors.pop()
        return current_id()

    post.shelf.current_id = flaky
    assert [post.watcher.look_once() for _ in range(3)] == [False, False, True]
    assert "CURRENT is empty" in caplog.text


def test_watcher_remembers_a_bounded_number_of_refusals(post):
    for number in range(300):
        post.shelf.put_damaged(f"bad{number}")
        post.watcher.look_once()
    assert len(post.watcher.refused_ids) == 256
    assert post.watcher.refused_ids[-1] == "bad299"


def test_watcher_thread_takes_new_snapshots_by_itself(post):
    post.watcher.start()
    for snapshot_id in ("s1", "s2"):
        post.shelf.put(snapshot_id)
        deadline = time.monotonic() + 5
        while post.slot.snapshot_id != snapshot_id:
            assert time.monotonic() < deadline
            time.sleep(0.002)


def in_chain(post, snapshot_id: str, number: int, *, newest: bool = True) -> None:
    """Publish a snapshot that stands at a place in the chain; `newest` until told otherwise."""
    post.shelf.put(snapshot_id, lambda: following(snapshot_id, number))
    post.shelf.places[snapshot_id] = SnapshotPlace(DeltaPoint(CHAIN, number), newest)


def lead_to(post, number: int) -> None:
    """What the follower does."""
    live = post.slot.current()
    base = live.base_point
    post.slot.restate(live, **standing(live.on_disk_id, base, DeltaPoint(CHAIN, number)))


def outdated(post, snapshot_id: str) -> None:
    place = post.shelf.places[snapshot_id]
    post.shelf.places[snapshot_id] = SnapshotPlace(place.point, newest=False)


def test_watcher_notes_a_snapshot_that_deltas_have_led_to_and_does_not_load_it(post, caplog):
    in_chain(post, "s1", 3)
    assert post.watcher.look_once()
    assert post.slot.current().following
    for snapshot_id, number, said in (("s2", 5, "s2+7"), ("s3", 7, "s3")):
        lead_to(post, 7)
        outdated(post, list(post.shelf.makers)[-1])
        in_chain(post, snapshot_id, number)
        models = post.slot.current().retriever
        assert not post.watcher.look_once()
        assert post.slot.current().snapshot_id == said
        assert post.slot.current().retriever is models
    assert post.shelf.loads == ["s1"]
    assert caplog.text.count('event="snapshot contained"') == 2
    assert not post.watcher.look_once()
    assert caplog.text.count('event="snapshot contained"') == 2


def test_watcher_gives_deltas_some_time_to_lead_to_a_new_snapshot_then_loads_it(post):
    in_chain(post, "s1", 3)
    post.watcher.look_once()
    in_chain(post, "s2", 5)
    post.clock.now_s = 10.0
    assert not post.watcher.look_once()
    post.clock.now_s = 12.9
    assert not post.watcher.look_once()
    lead_to(post, 4)
    post.clock.now_s = 13.0
    assert post.watcher.look_once()
    assert post.shelf.loads == ["s1", "s2"]
    assert post.slot.current().snapshot_id == "s2"


def test_watcher_loads_at_once_when_nothing_leads_there(post):
    """Following has ended at a gap; or another trainer's chain has begun."""
    in_chain(post, "s1", 3)
    post.watcher.look_once()
    post.slot.restate(post.slot.current(), following=False)
    in_chain(post, "s2", 5)
    assert post.watcher.look_once()
    post.shelf.put("s3", lambda: following("s3", 1))
    post.shelf.places["s3"] = SnapshotPlace(DeltaPoint("another", 1), newest=True)
    assert post.watcher.look_once()
    assert post.shelf.loads == ["s1", "s2", "s3"]


def test_watcher_follows_an_operator_back_and_leads_no_further_until_the_trainer_goes_on(post):
    in_chain(post, "s1", 3)
    post.watcher.look_once()
    lead_to(post, 9)
    outdated(post, "s1")
    in_chain(post, "s2", 8)
    post.watcher.look_once()
    post.shelf.current = "s1"  # rolled back
    assert post.watcher.look_once()
    live = post.slot.current()
    assert (live.snapshot_id, live.following) == ("s1", False)
    assert not post.watcher.look_once()
    outdated(post, "s2")
    in_chain(post, "s3", 12)
    assert post.watcher.look_once()
    assert post.slot.current().following
    assert post.shelf.loads == ["s1", "s1", "s3"]


def test_watcher_goes_back_to_the_very_snapshot_that_deltas_lead_on_from(post):
    """The trainer publishes s2, an operator takes s1 again before the server has seen s2.

    A moment in which s2 is there and not yet current is no operator.
    """
    in_chain(post, "s1", 3)
    post.watcher.look_once()
    lead_to(post, 4)
    outdated(post, "s1")
    post.clock.now_s = 10.0
    assert not post.watcher.look_once()
    post.clock.now_s = 12.0
    assert not post.watcher.look_once()
    assert post.slot.current().snapshot_id == "s1+4"
    post.clock.now_s = 13.0
    assert post.watcher.look_once()
    live = post.slot.current()
    assert (live.snapshot_id, live.following) == ("s1", False)
    post.clock.now_s = 99.0
    assert not post.watcher.look_once()


def test_watcher_replaces_models_that_a_delta_spoiled(post):
    in_chain(post, "s1", 3)
    post.watcher.look_once()
    lead_to(post, 9)
    post.slot.restate(post.slot.current(), following=False, spoiled=True)
    assert post.watcher.look_once()
    live = post.slot.current()
    assert (live.snapshot_id, live.following, live.spoiled) == ("s1", True, False)
    lead_to(post, 4)
    post.slot.restate(live, spoiled=True)
    post.shelf.put_damaged("s2")
    assert [post.watcher.look_once() for _ in range(3)] == [False, True, False]
    assert post.slot.current().snapshot_id == "s1"


def test_watcher_refuses_a_snapshot_whose_place_cannot_be_read(post):
    in_chain(post, "s1", 3)
    post.watcher.look_once()
    post.shelf.put_damaged("s2")

    def damaged(snapshot_id):
        raise SnapshotDamagedError(f"{snapshot_id}: manifest.json: checksum differs")

    post.shelf.place_of = damaged
    assert [post.watcher.look_once() for _ in range(3)] == [False, False, False]
    assert post.watcher.refused_ids == ("s2",)


@pytest.mark.parametrize("name", ["poll_ms", "patience_ms", "warm_up_candidates", "max_records"])
def test_watcher_config_names_the_key_that_is_out_of_range(name):
    with pytest.raises(ConfigError, match=f"^watcher.{name} must be at least 1, got 0"):
        WatcherConfig(**{name: 0})
