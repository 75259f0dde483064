from __future__ import annotations

import threading

import pytest

from domain.clock import ManualClock
from domain.errors import (
    ConfigError,
    InvalidRequestError,
    LogUnavailableError,
    OverloadedError,
)
from domain.events import Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from serving.impression_log import ImpressionLog, ImpressionLogConfig
from serving.publish import Publisher, PublisherConfig
from stream.codec import decode
from stream.sqlite_log import SqliteLog
from tests.unit.serving.worlds import SCHEMA, count, serving_metrics

NOW_MS = 1_000_000


class Counter:
    def __init__(self, tmp_path) -> None:
        self.log = SqliteLog(tmp_path / "log.sqlite")
        self.impression_log = ImpressionLog(self.log, ImpressionLogConfig())
        self.metrics = serving_metrics()

    def publisher(self, **config) -> Publisher:
        return Publisher(
            self.impression_log,
            SCHEMA,
            ManualClock(NOW_MS),
            PublisherConfig(**config),
            self.metrics,
        )

    def stored(self) -> list:
        return [decode(record.value) for record in self.log.read({}, max_records=99, timeout_s=0.0)]


@pytest.fixture
def counter(tmp_path):
    made = Counter(tmp_path)
    yield made
    made.impression_log.stop(5.0)
    made.log.close()


def feedback(**changes) -> Feedback:
    given = {"event_id": "f", "time_ms": 1, "user_id": "ann", "item_id": "i1", "kind": "click"}
    return Feedback(**{**given, **changes})


def test_publish_has_stored_all_events_in_order_when_it_returns(counter):
    counter.impression_log.start()
    events = [feedback(event_id=f"f{number}") for number in range(5)]
    counter.publisher().publish(events)
    assert counter.stored() == events
    counter.publisher().publish([])


SHOWN = Impression(
    event_id="s",
    time_ms=1,
    user_id="ann",
    items=(ShownItem(item_id="i1", position=0), ShownItem(item_id="i" * 600, position=1)),
)


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (feedback(time_ms=NOW_MS + 60_001), "time_ms"),
        (feedback(event_id="e" * 513), "event_id"),
        (feedback(user_id="u" * 513), "feedback.user_id"),
        (feedback(item_id="i" * 513), "feedback.item_id"),
        (feedback(context={"tub": "a"}), "feedback.context.tub"),
        (SHOWN, "impression.items[1].item_id"),
        (
            ItemUpdate(event_id="n", time_ms=1, item_id="i1", features={"tags": "a"}),
            "item_update.features.tags",
        ),
        (
            UserUpdate(event_id="u", time_ms=1, user_id="ann", features={"tab": "a"}),
            "user_update.features.tab",
        ),
    ],
)
def test_publish_stores_nothing_and_names_the_field_of_a_bad_event(counter, event, field):
    counter.impression_log.start()
    with pytest.raises(InvalidRequestError) as caught:
        counter.publisher().publish([feedback(), feedback(event_id="g"), event])
    assert caught.value.field == f"events[2].{field}"
    assert counter.stored() == []


def test_publish_takes_event_times_within_the_tolerance(counter):
    counter.impression_log.start()
    counter.publisher().publish([feedback(time_ms=NOW_MS + 60_000)])
    assert len(counter.stored()) == 1


def test_publish_gives_up_when_the_log_does_not_answer_in_time(counter):
    with pytest.raises(LogUnavailableError, match=r"within 0\.010 s"):
        counter.publisher(log_timeout_ms=10).publish([feedback()])
    with pytest.raises(LogUnavailableError, match=r"within 0\.018 s"):
        counter.publisher().publish([feedback()], deadline_s=0.02)


def test_publish_refuses_when_too_many_requests_wait_for_the_log(counter):
    publisher = counter.publisher(max_concurrency=1)
    waiting = threading.Thread(target=publisher.publish, args=([feedback()],))
    waiting.start()
    while not publisher._admission._inside:
        pass
    with pytest.raises(OverloadedError):
        publisher.publish([feedback(event_id="g")])
    assert count(counter.metrics.refused) == 1
    counter.impression_log.start()
    waiting.join(5)
    assert counter.stored() == [feedback()]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_events": 0}, "publisher.max_events must be at least 1, got 0"),
        ({"future_tolerance_ms": -1}, "publisher.future_tolerance_ms must be at least 0, got -1"),
    ],
)
def test_publisher_config_names_the_key_that_is_out_of_range(setting, message):
    with pytest.raises(ConfigError, match=message):
        PublisherConfig(**setting)
