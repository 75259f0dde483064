"""The monitor: points of enough examples, one signal per change, a bounded list of live ones."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest

from domain.errors import ConfigError
from domain.state import state_hash
from monitoring.drift_detectors import DriftDetectorsConfig, WatchedStream
from monitoring.drift_monitor import DriftMonitor, DriftMonitorConfig
from monitoring.drift_signal import DriftSignal
from monitoring.drift_streams import ITEM_NOVELTY, observe_batch, standard_streams
from monitoring.metrics import Metrics

STREAMS = [WatchedStream(name=name, kind="label") for name in ("clicks", "likes")]
SECOND, HOUR = 1_000, 3_600_000
CONFIG = DriftMonitorConfig(
    point_examples=10, sensitivity=DriftDetectorsConfig(warm_up=20, max_values=200)
)


def feed(
    monitor: DriftMonitor, level: float, points: int, start_ms: int, stream: str = "clicks"
) -> list[DriftSignal]:
    """Feed points around `level`, a second apart; their noise is +-0.1 in turns."""
    return [
        signal
        for index in range(points)
        for signal in monitor.observe(
            stream, level + 0.1 * (-1) ** index, 10, start_ms + index * SECOND
        )
    ]


def test_monitor_gives_one_signal_per_change_although_detectors_agree() -> None:
    metrics = Metrics()
    monitor = DriftMonitor(STREAMS, CONFIG, metrics)
    assert feed(monitor, 0.5, 100, 0) == []
    signals = feed(monitor, 2.0, 100, 100 * SECOND)
    assert [signal.stream for signal in signals] == ["clicks"]
    assert signals[0].since_ms == 100 * SECOND
    assert monitor.live() == signals
    counted = metrics.registry.get_sample_value(
        "headrace_monitoring_drift_signals_total",
        {"detector": signals[0].detector, "stream": "clicks"},
    )
    assert counted == 1.0
    assert metrics.registry.get_sample_value("headrace_monitoring_drift_live_signals") == 1.0


def test_streams_do_not_disturb_each_other() -> None:
    monitor = DriftMonitor(STREAMS, CONFIG, Metrics())
    for second in range(100):
        feed(monitor, 0.5, 1, second * SECOND, "clicks")
        feed(monitor, 9.5, 1, second * SECOND, "likes")
    assert monitor.live() == []


def test_second_change_is_a_signal_only_after_the_refractory_period() -> None:
    def changes(refractory_ms: int) -> int:
        monitor = DriftMonitor(STREAMS, replace(CONFIG, refractory_ms=refractory_ms), Metrics())
        for part in range(4):
            feed(monitor, 0.5 + part % 2, 100, part * 100 * SECOND)
        return len(monitor.live())

    assert changes(0) == 3
    assert changes(150 * SECOND) == 2  # the second comes 100 s after the first
    assert changes(HOUR) == 1


def test_small_micro_batches_are_pooled_into_points_weighted_by_examples() -> None:
    monitor = DriftMonitor(STREAMS, CONFIG, Metrics())
    monitor.observe("clicks", 1.0, 3, 0)
    monitor.observe("clicks", 0.0, 6, 1)
    assert len(monitor.save()["streams"]["clicks"]["detectors"]["adwin"]["values"]) == 0
    monitor.observe("clicks", 0.5, 6, 2)
    state = monitor.save()["streams"]["clicks"]
    assert state["detectors"]["adwin"]["values"].tolist() == [(3.0 + 3.0) / 15]
    assert state["detectors"]["adwin"]["times_ms"].tolist() == [2]
    assert state["point"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("mean", "examples"), [(np.nan, 10), (np.inf, 10), (0.5, 0)])
def test_mean_that_says_nothing_is_passed_over(mean: float, examples: int) -> None:
    monitor = DriftMonitor(STREAMS, CONFIG, Metrics())
    before = state_hash(monitor.save())
    assert monitor.observe("clicks", mean, examples, 0) == []
    assert state_hash(monitor.save()) == before


def test_signals_stop_being_live_with_event_time_and_beyond_the_limit() -> None:
    metrics = Metrics()
    config = replace(CONFIG, refractory_ms=0, live_ms=HOUR, max_live=2)
    monitor = DriftMonitor(STREAMS, config, metrics)
    for part in range(6):
        feed(monitor, 0.5 + part % 2, 100, part * 100 * SECOND)
    assert len(monitor.live()) == 2
    feed(monitor, 1.5, 1, 400 * SECOND + HOUR)
    assert [signal.time_ms > 400 * SECOND for signal in monitor.live()] == [True] * 2
    feed(monitor, 1.5, 1, 600 * SECOND + HOUR)
    assert monitor.live() == []
    assert metrics.registry.get_sample_value("headrace_monitoring_drift_live_signals") == 0.0


def test_signal_is_logged_with_its_evidence_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    monitor = DriftMonitor(STREAMS, CONFIG, Metrics())
    with caplog.at_level(logging.WARNING):
        feed(monitor, 0.5, 100, 0)
        [signal] = feed(monitor, 2.0, 100, 100 * SECOND)
    [record] = caplog.records
    assert signal.describe() in record.getMessage()
    assert vars(record)["since_ms"] == signal.since_ms


def test_load_continues_bit_for_bit_where_save_stood() -> None:
    straight, before, after = (DriftMonitor(STREAMS, CONFIG, Metrics()) for _ in range(3))
    for monitor in (straight, before):
        feed(monitor, 0.5, 100, 0)
        feed(monitor, 2.0, 100, 100 * SECOND)
        monitor.observe("clicks", 0.7, 3, 200 * SECOND)
    after.load(before.save())
    assert after.live() == straight.live()
    assert after.live() != []
    for level, start_ms in ((2.0, 300 * SECOND), (0.0, HOUR)):
        assert feed(after, level, 100, start_ms) == feed(straight, level, 100, start_ms)
    assert state_hash(after.save()) == state_hash(straight.save())


def test_load_starts_new_streams_and_detectors_afresh() -> None:
    old = DriftMonitor(STREAMS[:1], replace(CONFIG, detectors=("adwin",)), Metrics())
    feed(old, 0.5, 50, 0)
    new = DriftMonitor(STREAMS, CONFIG, Metrics())
    new.load(old.save())
    streams = new.save()["streams"]
    assert len(streams["clicks"]["detectors"]["adwin"]["values"]) == 50
    assert len(streams["clicks"]["detectors"]["page_hinkley"]["values"]) == 0
    assert len(streams["likes"]["detectors"]["adwin"]["values"]) == 0


def test_stream_that_is_not_watched_is_refused() -> None:
    with pytest.raises(KeyError):
        DriftMonitor(STREAMS, CONFIG, Metrics()).observe("buys", 0.5, 10, 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"detectors": ("adwin", "oracle")},
        {"point_examples": 0},
        {"live_ms": 0},
        {"max_live": 0},
        {"refractory_ms": -1},
    ],
)
def test_config_names_the_key_when_a_value_is_out_of_range(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"^drift\.{next(iter(bad))} "):
        replace(CONFIG, **bad)  # type: ignore[arg-type]


def test_batch_feeds_every_standard_stream_with_its_mean() -> None:
    streams = standard_streams(["base"], ["click", "like"])
    monitor = DriftMonitor(streams, replace(CONFIG, point_examples=1), Metrics())
    labels = np.array([[1.0, np.nan], [0.0, np.nan], [0.0, 1.0]], np.float32)
    scores = np.array([[0.5, 0.9], [0.5, 0.9], [np.nan, 0.5]], np.float32)
    observe_batch(monitor, ["click", "like"], labels, {"base": scores}, 7)
    values = {
        name: state["detectors"]["adwin"]["values"].tolist()
        for name, state in monitor.save()["streams"].items()
    }
    assert values == {
        ITEM_NOVELTY: [],  # known to those who see items, not to those who see labels
        "label_rate/click": [0.5],
        "label_rate/like": [1.0],
        "loss/base/click": [pytest.approx(np.log(2))],
        "loss/base/like": [pytest.approx(np.log(2))],
        "score/base/click": [0.5],
        "score/base/like": [0.5],
        "calibration/base/click": [0.0],
        "calibration/base/like": [-0.5],
    }
