from __future__ import annotations

import logging
import threading
import time

import numpy as np
import pytest

from domain.deltas import DeltaPoint
from domain.errors import ConfigError
from domain.event_log import Record
from domain.events import ItemUpdate
from serving.apply_events import apply_records
from serving.delta_follower import DeltaFollower, DeltaFollowerConfig
from serving.live_models import LiveModelSlot
from serving.stages import compensate, score_items
from stream.codec import encode
from tests.unit.serving.delta_worlds import (
    CHAIN,
    FollowingMemory,
    FollowingRanker,
    Shelved,
    delta,
    following,
)
from tests.unit.serving.worlds import ITEMS, Broken, count, make_models, serving_metrics


class Noon:
    """A clock that stands at 10,000 ms; its stopwatch does not."""

    def now_ms(self) -> int:
        return 10_000

    def stopwatch_s(self) -> float:
        return time.monotonic()


class Road:
    """A live bundle, a shelf of deltas and a follower between them."""

    def __init__(self, models=None, **config) -> None:
        self.slot = LiveModelSlot()
        self.shelved = Shelved()
        self.metrics = serving_metrics().freshness
        self.follower = DeltaFollower(
            self.shelved, self.slot, Noon(), DeltaFollowerConfig(**config), self.metrics
        )
        self.slot.swap(models or following())

    @property
    def models(self):
        return self.slot.current()

    def score(self, item_id: str = "i7") -> float:
        """What Rank would say of an item."""
        scores = score_items(self.models, "ann", (item_id,), 1, {})
        return round(float(compensate(self.models, scores)[0, 0]), 4)


@pytest.fixture
def road(caplog):
    caplog.set_level(logging.INFO)
    made = Road()
    yield made
    made.follower.stop()


def test_deltas_are_applied_in_order_and_answers_say_how_far_they_come(road):
    assert (road.models.snapshot_id, road.score()) == ("s1", 0.0)
    road.shelved.put(delta(1), delta(2, memory={"shift": 0.5}, event_time_ms=9_000))
    assert road.follower.follow_once() == 2
    assert (road.models.snapshot_id, road.models.event_time_ms) == ("s1+2", 9_000)
    assert road.score() == pytest.approx(0.14 + 0.5)
    assert road.models.point == DeltaPoint(CHAIN, 2)
    assert road.follower.follow_once() == 0
    road.shelved.put(delta(3, memory={"shift": 0.0}, event_time_ms=8_000))
    assert road.follower.follow_once() == 1
    assert (road.models.snapshot_id, road.models.event_time_ms) == ("s1+3", 9_000)
    assert count(road.metrics.deltas_applied) == 3


def test_a_request_that_has_begun_keeps_what_it_was_told(road):
    begun = road.models
    road.shelved.put(delta(1))
    road.follower.follow_once()
    assert (begun.snapshot_id, road.models.snapshot_id) == ("s1", "s1+1")
    assert begun.ranker is road.models.ranker
    assert begun.lock is road.models.lock


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"memory": {}}, "memory: expected a shift"),
        ({"ranking": {"scale": "steep"}}, "ranking: expected a scale"),
        ({"tower": {}}, "has states of tower; expected only ranking, memory, retrieval"),
        ({"schema_hash": "other"}, "belongs to schema other"),
        ({"point": DeltaPoint(CHAIN, 3)}, "number=2"),
    ],
)
def test_a_delta_that_does_not_fit_changes_nothing_and_is_spoken_of_once(road, caplog, bad, reason):
    road.shelved.put(delta(1), delta(2, **bad), delta(3))
    road.shelved.deltas[2] = delta(2, **bad)
    assert road.follower.follow_once() == 1
    for _ in range(3):
        assert road.follower.follow_once() == 0
    assert (road.models.snapshot_id, road.score()) == ("s1+1", 0.07)
    assert not road.models.following
    assert not road.models.spoiled
    assert count(road.metrics.deltas_refused) == 1
    assert caplog.text.count('event="delta refused"') == 1
    assert reason in caplog.text


def test_a_damaged_delta_is_refused_once_and_the_models_before_it_go_on(road, caplog):
    road.shelved.put(delta(1), delta(2))
    road.shelved.damaged = {2}
    assert [road.follower.follow_once() for _ in range(4)] == [1, 0, 0, 0]
    assert road.score() == 0.07
    assert count(road.metrics.deltas_refused) == 1
    assert caplog.text.count("checksum differs") == 1
    road.slot.swap(following("s1", 1))  # loaded again: the same delta is still no good
    assert road.follower.follow_once() == 0
    assert not road.models.following
    assert count(road.metrics.deltas_refused) == 1
    road.slot.swap(following("s2", 2))
    road.shelved.put(delta(3))
    assert road.follower.follow_once() == 1


def test_a_gap_ends_following_until_there_is_a_snapshot_behind_it(road, caplog):
    road.shelved.put(delta(5))
    road.shelved.first = 5
    assert [road.follower.follow_once() for _ in range(3)] == [0, 0, 0]
    assert count(road.metrics.delta_gaps) == 1
    assert caplog.text.count('event="delta gap" chain=c after=0') == 1
    assert road.score() == 0.0
    road.slot.swap(following("s2", 4))
    assert road.follower.follow_once() == 1
    assert road.models.snapshot_id == "s2+5"


def test_models_that_are_not_to_be_followed_stay_as_they_are():
    for models in (make_models("s1"), following(following=False)):
        road = Road(models)
        road.shelved.put(delta(1))
        assert road.follower.follow_once() == 0
        assert road.shelved.looks == 0
        assert road.models.snapshot_id == "s1"


@pytest.mark.parametrize("at", ["apply_delta", "retrieve"])
def test_models_that_fail_half_way_are_to_be_replaced(caplog, at):
    broken = following().retriever
    road = Road(following(retriever=Broken(broken, at)))
    road.shelved.put(delta(1))
    assert road.follower.follow_once() == 0
    assert road.models.spoiled
    assert not road.models.following
    assert count(road.metrics.deltas_refused) == 1
    assert "is broken" in caplog.text


def test_weights_that_answer_nothing_are_found_and_not_applied_again(road, caplog):
    road.shelved.put(delta(1), delta(2, ranking={"scale": float("nan")}))
    road.follower.follow_once()
    assert road.models.spoiled
    assert 'event="delta cannot answer" delta=2' in caplog.text
    road.slot.swap(following("s1", 0))  # what the watcher does
    assert [road.follower.follow_once() for _ in range(3)] == [1, 0, 0]
    assert (road.models.snapshot_id, road.score(), road.models.spoiled) == ("s1+1", 0.07, False)
    assert count(road.metrics.deltas_refused) == 1


def update(number: int, item_id: str, *, available: bool = True) -> ItemUpdate:
    return ItemUpdate(event_id=f"e{number}", time_ms=1, item_id=item_id, available=available)


def records(*updates: ItemUpdate) -> list[Record]:
    return [Record("items/0", int(one.event_id[1:]), one.item_id, encode(one)) for one in updates]


def test_items_that_the_trainer_has_not_come_to_outlive_a_delta(road):
    """The log says: i20, i21, i3 withdrawn; the trainer has come to the first."""
    apply_records(
        road.models,
        records(update(0, "i20"), update(1, "i21"), update(2, "i3", available=False)),
    )
    road.shelved.put(delta(1, positions={"items/0": 1}, retrieval={"items": ["i20"]}))
    road.follower.follow_once()
    catalog = road.models.retriever
    assert catalog.item_ids == [*(one for one in ITEMS if one != "i3"), "i20", "i21"]
    assert not road.models.unsettled.is_set()
    catalog.observed.clear()
    road.shelved.put(delta(2, positions={"items/0": 3}, retrieval={"items": ["i21"]}))
    road.follower.follow_once()
    assert catalog.observed == []  # the trainer knows it all
    assert len(road.models.ahead) == 0


def test_how_late_weights_are_is_measured_when_they_know_of_something_new(road):
    weights = {"path": "weights"}
    road.shelved.put(delta(1, event_time_ms=9_000), delta(2, event_time_ms=9_000))
    road.shelved.put(delta(3, event_time_ms=9_500))
    road.follower.follow_once()
    assert road.metrics.seconds.labels(**weights)._sum.get() == pytest.approx(1.0 + 0.5)
    assert road.metrics.missed.labels(**weights)._value.get() == 0.0
    late = Road(target_ms=900)
    late.shelved.put(delta(1, event_time_ms=9_000))
    late.follower.follow_once()
    assert late.metrics.missed.labels(**weights)._value.get() == 1.0


def test_no_ranking_sees_half_a_delta_and_none_fails():
    class Halves(FollowingRanker):
        """Two numbers that must be equal whenever somebody ranks."""

        left = right = 0.0
        torn = False

        def apply_delta(self, state):
            self.left = state["scale"]
            time.sleep(0.001)
            self.right = state["scale"]

        def predict(self, captured):
            before = self.left
            time.sleep(0.0005)
            self.torn |= not before == self.left == self.right
            return super().predict(captured)

    ranker = Halves()
    road = Road(following(ranker=ranker), patience_ms=0)
    stop, ranked = threading.Event(), []

    def rank() -> None:
        while not stop.is_set():
            ranked.append(road.score())

    threads = [threading.Thread(target=rank) for _ in range(3)]
    for thread in threads:
        thread.start()
    road.follower.start()
    for number in range(1, 31):
        road.shelved.put(delta(number))
    deadline = time.monotonic() + 10
    while road.models.point.number < 30:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join(5)
    assert ranked
    assert np.isfinite(ranked).all()
    assert not ranker.torn


def test_a_delta_waits_for_a_moment_without_rankings_and_holds_none_back_meanwhile():
    entered, go_on = threading.Event(), threading.Event()

    class Slow(FollowingRanker):
        def predict(self, captured):
            if captured[0].user_id == "slow":
                entered.set()
                assert go_on.wait(5)
            return super().predict(captured)

    road = Road(following(ranker=Slow(scale=0.0), memory=FollowingMemory()), patience_ms=10_000)
    models = road.models
    slow = threading.Thread(target=lambda: score_items(models, "slow", ("i1",), 1, {}))
    slow.start()
    assert entered.wait(5)
    road.shelved.put(delta(1))
    road.follower.start()
    for _ in range(20):
        assert road.score() == 0.0  # answered at once, by the models before the delta
    go_on.set()
    slow.join(5)
    deadline = time.monotonic() + 10
    while road.models.point.number < 1:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert road.score() == 0.07


def test_following_goes_on_after_what_nobody_expected(road, caplog):
    after, road.shelved.after = road.shelved.after, lambda point, limit: 1 // 0
    road.follower.start()
    deadline = time.monotonic() + 5
    while road.models.following:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert "ZeroDivisionError" in caplog.text
    road.shelved.after = after
    road.shelved.put(delta(3))
    road.slot.swap(following("s2", 2))
    while road.models.snapshot_id != "s2+3":
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("name", ["poll_ms", "batch", "target_ms"])
def test_delta_follower_config_names_the_key_that_is_out_of_range(name):
    with pytest.raises(ConfigError, match=f"^delta_follower.{name} must be at least 1, got 0"):
        DeltaFollowerConfig(**{name: 0})
    with pytest.raises(ConfigError, match=r"^delta_follower\.patience_ms must be at least 0"):
        DeltaFollowerConfig(patience_ms=-1)
