from __future__ import annotations

import threading

import pytest

from domain.errors import ConfigError, LogUnavailableError, OverloadedError
from domain.events import Feedback, UserUpdate
from serving.impression_log import ImpressionLog, ImpressionLogConfig
from stream.codec import decode
from stream.sqlite_log import SqliteLog


class GatedLog:
    """A real log whose appends wait at a gate, and fail while told to."""

    def __init__(self, log: SqliteLog) -> None:
        self._log = log
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.error: Exception | None = None
        self.sizes: list[int] = []

    def append(self, events) -> None:
        self.sizes.append(len(events))
        self.entered.set()
        assert self.gate.wait(5)
        if self.error is not None:
            raise self.error
        self._log.append(events)


@pytest.fixture
def log(tmp_path):
    with_file = SqliteLog(tmp_path / "log.sqlite")
    yield with_file
    with_file.close()


@pytest.fixture
def gated(log):
    return GatedLog(log)


def event(number: int) -> UserUpdate:
    return UserUpdate(event_id=f"e{number}", time_ms=1, user_id="u")


def started(log, **config) -> ImpressionLog:
    writer = ImpressionLog(log, ImpressionLogConfig(**config))
    writer.start()
    return writer


def stored_ids(log) -> list[str]:
    records = log.read({}, max_records=10_000, timeout_s=0.0)
    return [decode(record.value).event_id for record in records]


def test_impression_log_has_stored_the_events_when_write_returns(log):
    writer = started(log)
    writer.write([event(1), event(2)], timeout_s=5.0)
    assert stored_ids(log) == ["e1", "e2"]
    writer.stop(5.0)


def test_impression_log_shares_one_append_among_submissions_that_gathered(log, gated):
    writer = started(gated)
    first = writer.submit([event(0)])
    gated.entered.wait(5)  # the writer is busy with e0 while twenty more arrive
    rest = [writer.submit([event(number)]) for number in range(1, 21)]
    gated.gate.set()
    for future in (first, *rest):
        future.result(5)
    assert gated.sizes == [1, 20]
    assert stored_ids(log) == [f"e{number}" for number in range(21)]
    writer.stop(5.0)


def test_impression_log_never_splits_a_submission_over_two_appends(gated):
    writer = started(gated, max_batch_events=4)
    writer.submit([event(0)])
    gated.entered.wait(5)
    futures = [
        writer.submit([event(number), event(number + 1), event(number + 2)]) for number in (1, 4, 7)
    ]
    futures.append(writer.submit([event(number) for number in range(10, 16)]))
    gated.gate.set()
    for future in futures:
        future.result(5)
    assert gated.sizes == [1, 3, 3, 3, 6]
    writer.stop(5.0)


def test_impression_log_refuses_when_the_queue_is_full(gated):
    writer = started(gated, max_queued_events=3)
    writer.submit([event(0)])
    gated.entered.wait(5)
    kept = writer.submit([event(1), event(2)])
    with pytest.raises(OverloadedError, match="2 events are waiting"):
        writer.submit([event(3), event(4)])
    gated.gate.set()
    kept.result(5)
    writer.write([event(5)], timeout_s=5.0)  # and takes events again
    writer.stop(5.0)


def test_impression_log_tells_every_waiter_when_the_log_is_unavailable_and_goes_on(log, gated):
    writer = started(gated)
    gated.error = LogUnavailableError("no broker answers")
    futures = [writer.submit([event(0)])]
    gated.entered.wait(5)
    futures += [writer.submit([event(number)]) for number in (1, 2)]
    gated.gate.set()
    for future in futures:
        with pytest.raises(LogUnavailableError, match="no broker answers"):
            future.result(5)
    gated.error = None
    writer.write([event(3)], timeout_s=5.0)
    assert stored_ids(log) == ["e3"]
    writer.stop(5.0)


def test_impression_log_stores_the_others_when_one_submission_cannot_be_stored(log, gated):
    writer = started(gated)
    writer.submit([event(0)])
    gated.entered.wait(5)
    without_id = Feedback(event_id="bad", time_ms=1, user_id="u", item_id="", kind="click")
    good, bad, fine = (
        writer.submit([event(1)]),
        writer.submit([without_id]),
        writer.submit([event(2)]),
    )
    gated.gate.set()
    good.result(5)
    fine.result(5)
    with pytest.raises(LogUnavailableError, match="item_id"):
        bad.result(5)
    assert stored_ids(log) == ["e0", "e1", "e2"]
    writer.stop(5.0)


def test_impression_log_withdraws_events_that_were_not_begun_in_time(log, gated):
    writer = started(gated)
    first = writer.submit([event(0)])
    gated.entered.wait(5)
    with pytest.raises(LogUnavailableError, match="withdrawn"):
        writer.write([event(1)], timeout_s=0.02)
    gated.gate.set()
    first.result(5)
    writer.write([event(2)], timeout_s=5.0)
    assert stored_ids(log) == ["e0", "e2"]
    writer.stop(5.0)


def test_impression_log_keeps_nothing_of_what_was_withdrawn(log, gated):
    writer = started(gated, max_queued_events=2)
    first = writer.submit([event(0)])
    gated.entered.wait(5)
    for _ in range(5):  # the second of them would be refused if the first were still there
        with pytest.raises(LogUnavailableError, match="withdrawn"):
            writer.write([event(1), event(2)], timeout_s=0.01)
    gated.gate.set()
    first.result(5)
    writer.write([event(3)], timeout_s=5.0)
    assert stored_ids(log) == ["e0", "e3"]
    writer.stop(5.0)


def test_impression_log_says_so_when_events_may_still_be_stored(gated):
    writer = started(gated)
    with pytest.raises(LogUnavailableError, match="may still be stored"):
        writer.write([event(0)], timeout_s=0.2)
    gated.gate.set()
    writer.stop(5.0)


def test_impression_log_stores_what_it_took_before_it_stops(log, gated):
    writer = started(gated)
    futures = [writer.submit([event(number)]) for number in range(5)]
    gated.gate.set()
    writer.stop(5.0)
    assert all(future.done() for future in futures)
    assert stored_ids(log) == [f"e{number}" for number in range(5)]
    with pytest.raises(LogUnavailableError, match="stopping"):
        writer.submit([event(9)])


def test_impression_log_fails_what_it_could_not_write_before_it_had_to_stop(gated):
    writer = started(gated)
    writer.submit([event(0)])
    gated.entered.wait(5)
    left = writer.submit([event(1)])
    writer.stop(0.02)
    with pytest.raises(LogUnavailableError, match="stopped before"):
        left.result(5)
    gated.gate.set()


@pytest.mark.parametrize("name", ["max_queued_events", "max_batch_events"])
def test_impression_log_config_names_the_key_that_is_out_of_range(name):
    with pytest.raises(ConfigError, match=f"^impression_log.{name} must be at least 1, got 0"):
        ImpressionLogConfig(**{name: 0})


def test_impression_log_hands_on_what_is_stored_before_it_tells_who_waits(log):
    handed_on = []
    writer = ImpressionLog(log, ImpressionLogConfig(), handed_on.extend)
    stored = writer.submit([event(1), event(2)])
    stored.add_done_callback(lambda _: handed_on.append("told"))
    writer.start()
    stored.result(5)
    writer.stop(5.0)
    assert handed_on == [event(1), event(2), "told"]
    assert stored_ids(log) == ["e1", "e2"]


def test_impression_log_hands_nothing_on_that_was_not_stored(gated):
    gated.error = LogUnavailableError("no broker answers")
    gated.gate.set()
    handed_on = []
    writer = ImpressionLog(gated, ImpressionLogConfig(), handed_on.extend)
    writer.start()
    with pytest.raises(LogUnavailableError):
        writer.write([event(1)], timeout_s=5.0)
    writer.stop(5.0)
    assert handed_on == []


def test_impression_log_acknowledges_what_is_stored_whatever_comes_of_it_afterwards(log, caplog):
    def fail(events):
        raise RuntimeError("the feature store is broken")

    writer = ImpressionLog(log, ImpressionLogConfig(), fail)
    writer.start()
    for number in range(2):
        writer.write([event(number)], timeout_s=5.0)
    writer.stop(5.0)
    assert stored_ids(log) == ["e0", "e1"]
    assert "the feature store is broken" in caplog.text
