"""Publish over a real gRPC server into a real log."""

from __future__ import annotations

import threading

import pytest

from domain.events import Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from protos.headrace.v1 import events_pb2
from stream.codec import decode
from stream.sqlite_log import SqliteLog
from tests.unit.serving.running_server import RunningServer
from tests.unit.serving.worlds import CLOCK


@pytest.fixture
def server(tmp_path):
    running = RunningServer(tmp_path)
    running.start()
    yield running
    running.close()


def test_publish_stores_events_of_every_kind_as_they_were_sent(server):
    events = [
        Impression(
            event_id="s",
            time_ms=1,
            user_id="ann",
            items=(ShownItem(item_id="i1", position=0, score=0.5, probability=0.25),),
            context={"tab": "home", "hour": 7.0},
            snapshot_id="other-system",
        ),
        Feedback(
            event_id="f",
            time_ms=2,
            user_id="ann",
            item_id="i1",
            kind="like",
            value=0.0,
            impression_id="s",
        ),
        ItemUpdate(event_id="n", time_ms=3, item_id="i1", features={"tags": ("a", "b")}),
        UserUpdate(event_id="u", time_ms=4, user_id="ann", features={"age": 30.0}),
    ]
    assert server.publish(*events) == ["s", "f", "n", "u"]
    assert server.stored() == events


def test_publish_fills_in_ids_and_times_that_were_not_given(server):
    before_ms = CLOCK.now_ms()
    request = events_pb2.PublishRequest()
    for _ in range(2):
        request.events.add().user_update.user_id = "ann"
    ids = list(server.events.Publish(request, timeout=5.0).event_ids)
    stored = server.stored()
    assert [event.event_id for event in stored] == ids
    assert len(set(ids)) == 2
    assert all(before_ms <= event.time_ms <= CLOCK.now_ms() for event in stored)


def test_publish_takes_a_thousand_events_at_once_and_none_at_all(server):
    events = [UserUpdate(event_id=f"u{n}", time_ms=1, user_id=f"user{n}") for n in range(1_000)]
    assert server.publish(*events) == [event.event_id for event in events]
    assert server.publish() == []
    assert server.stored() == events


def test_published_events_are_seen_by_another_reader_of_the_log(server, tmp_path):
    server.click("ann", "i1")
    other = SqliteLog(tmp_path / "log.sqlite")
    (record,) = other.read({}, max_records=10, timeout_s=0.0)
    other.close()
    assert decode(record.value).item_id == "i1"


def test_publish_keeps_the_order_within_each_callers_events(server):
    def publish(caller: int) -> None:
        for number in range(10):
            server.publish(
                UserUpdate(event_id=f"{caller}-{number}", time_ms=1, user_id=f"u{caller}")
            )

    callers = [threading.Thread(target=publish, args=(caller,)) for caller in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    stored = [event.event_id.split("-") for event in server.stored()]
    for caller in range(6):
        numbers = [int(number) for who, number in stored if int(who) == caller]
        assert numbers == list(range(10))
