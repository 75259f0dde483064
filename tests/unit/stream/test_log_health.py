"""What is said of a log that does not answer: one line per change, and a reason for /readyz."""

from __future__ import annotations

import logging
from threading import Event as StopSignal

import pytest

from domain.clock import ManualClock
from domain.errors import LogUnavailableError
from monitoring.metrics import Metrics
from stream.log_health import LogHealth
from stream.trainer_config import TrainerConfig

AWAY = LogUnavailableError("kafka://b:9092: no brokers")


class Waits(StopSignal):
    """A stop signal that never comes; remembers how long it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout)
        return False


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def health(clock: ManualClock, metrics: Metrics) -> LogHealth:
    return LogHealth(TrainerConfig(unready_after_s=5.0), clock, metrics)


def test_readiness_waits_for_the_first_answer(health: LogHealth) -> None:
    assert health.readiness() == "the event log has not answered yet"
    health.asks("read")
    health.answered("read")
    assert health.readiness() == ""


def test_silence_of_some_seconds_makes_it_unready_and_an_answer_ready_again(
    health: LogHealth, clock: ManualClock
) -> None:
    health.asks("read")
    health.answered("read")
    health.asks("read")
    clock.sleep(5.0)
    assert health.readiness() == ""
    clock.sleep(2.0)
    assert health.readiness() == "the event log has not answered a read for 7 s"
    health.failed("read", AWAY, Waits())
    health.asks("read")  # once more: the silence goes on
    assert health.readiness().endswith("a read for 7 s: kafka://b:9092: no brokers")
    health.answered("read")
    assert health.readiness() == ""


def test_log_that_is_read_but_takes_no_dead_letters_is_not_ready(
    health: LogHealth, clock: ManualClock
) -> None:
    health.asks("write")
    clock.sleep(6.0)
    health.asks("read")
    health.answered("read")
    assert health.readiness() == "the event log has not answered a write for 6 s"


def test_waits_double_up_to_ten_seconds_and_begin_anew_after_an_answer(health: LogHealth) -> None:
    stop = Waits()
    for _ in range(8):
        health.asks("read")
        health.failed("read", AWAY, stop)
    assert stop.seconds == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    health.answered("read")
    health.failed("read", AWAY, stop)
    assert stop.seconds[-1] == 0.2


def test_one_line_is_logged_per_change_and_every_failure_is_counted(
    health: LogHealth, metrics: Metrics, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        health.asks("read")
        clock.sleep(1.0)
        health.failed("read", AWAY, Waits())
    health.answered("read")
    health.answered("read")
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("WARNING", "log unavailable, trying until it is back"),
        ("INFO", "log available again"),
    ]
    value = metrics.registry.get_sample_value
    assert value("headrace_stream_log_failures_total") == 3.0
    name = "headrace_stream_last_error_time_seconds"
    assert value(name, {"kind": "log_unavailable"}) == clock.now_ms() / 1_000
