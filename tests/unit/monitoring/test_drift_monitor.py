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
from monitoring.drift_sinks import ListSink
from monitoring.drift_streams import observe_batch, standard_streams
from monitoring.metrics import Metrics

STREAMS = [WatchedStream(name=name, kind="label") for name in ("clicks", "likes")]
SECOND, HOUR = 1_000, 3_600_000
CONFIG = DriftMonitorConfig(
    point_examples=10, sensitivity=DriftDetectorsConfig(settle=0, warm_up=20, max_values=200)
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


def test_change_that_comes_back_ends_its_signal_and_is_no_second_one() -> None:
    sink = ListSink()
    monitor = DriftMonitor(STREAMS, CONFIG, Metrics(), [sink])
    feed(monitor, 0.5, 100, 0)
    [signal] = feed(monitor, 2.0, 100, 100 * SECOND)
    assert monitor.live() == [signal]
    assert feed(monitor, 0.5, 100, 200 * SECOND) == []
    assert monitor.live() == []
    [told] = sink.signals
    assert 200 * SECOND < (told.ended_ms or 0) <= 221 * SECOND
    assert replace(told, ended_ms=None) == signal


def test_signal_ends_by_itself_when_the_stream_goes_back_too_gently_for_a_detector() -> None:
    rise = WatchedStream(name="loss", kind="concept", alarm_on="rise")
    monitor = DriftMonitor([rise], CONFIG, Metrics())
    feed(monitor, 0.5, 100, 0, "loss")
    assert len(feed(monitor, 2.0, 50, 100 * SECOND, "loss")) == 1
    feed(monitor, 0.5, 10, 150 * SECOND, "loss")
    assert len(monitor.live()) == 1  # half of the newest points are still high
    feed(monitor, 0.5, 10, 160 * SECOND, "loss")
    assert monitor.live() == []


def test_live_signal_grows_when_its_stream_moves_on() -> None:
    metrics = Metrics()
    monitor = DriftMonitor(STREAMS, CONFIG, metrics)
    feed(monitor, 0.5, 100, 0)
    [signal] = feed(monitor, 0.8, 100, 100 * SECOND)
    assert feed(monitor, 2.5, 100, 200 * SECOND) == []
    [grown] = monitor.live()
    assert (grown.since_ms, grown.before) == (signal.since_ms, signal.before)
    assert grown.after > signal.after
    assert grown.deviations / signal.deviations == pytest.approx(
        (grown.after - grown.before) / (signal.after - signal.before)
    )
    shown = metrics.registry.get_sample_value(
        "headrace_monitoring_drift_live_severity", {"stream": "clicks"}
    )
    assert shown == {"small": 1.0, "medium": 2.0, "large": 3.0}[grown.severity]


def test_change_after_a_part_of_the_way_back_is_a_signal_of_its_own() -> None:
    rise = WatchedStream(name="loss", kind="concept", alarm_on="rise")
    sink = ListSink()
    monitor = DriftMonitor([rise], replace(CONFIG, refractory_ms=0), Metrics(), [sink])
    for level, start_s in ((0.5, 0), (2.5, 100), (1.5, 200), (3.0, 300)):
        feed(monitor, level, 100, start_s * SECOND, "loss")
    first, second = sink.signals
    assert (first.since_ms, first.ended_ms) == (100 * SECOND, 300 * SECOND)
    assert (second.since_ms, second.ended_ms) == (300 * SECOND, None)
    assert second.before == pytest.approx(1.5, abs=0.1)


def test_second_change_is_a_signal_only_after_the_refractory_period() -> None:
    def changes(refractory_ms: int) -> int:
        sink = ListSink()
        config = replace(CONFIG, refractory_ms=refractory_ms)
        monitor = DriftMonitor(STREAMS, config, Metrics(), [sink])
        for part in range(8):
            feed(monitor, 0.5 + part % 2, 100, part * 100 * SECOND)
        return len(sink.signals)

    assert changes(0) == 4
    assert changes(350 * SECOND) == 2  # they come 200 s after each other
    assert changes(HOUR) == 1


def test_explanation_is_asked_for_when_a_signal_is_given() -> None:
    asked: list[DriftSignal] = []

    def explain(signal: DriftSignal) -> tuple[tuple[str, float], ...]:
        asked.append(signal)
        return (("item.category", 1.0),)

    monitor = DriftMonitor(STREAMS, CONFIG, Metrics(), explain=explain)
    feed(monitor, 0.5, 100, 0)
    [signal] = feed(monitor, 2.0, 100, 100 * SECOND)
    assert signal.contributors == (("item.category", 1.0),)
    assert len(asked) == 1


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


def test_signal_of_a_level_that_stays_ends_when_it_is_normal_by_now() -> None:
    metrics = Metrics()
    sink = ListSink()
    monitor = DriftMonitor(STREAMS, replace(CONFIG, live_ms=HOUR), metrics, [sink])
    feed(monitor, 0.5, 100, 0)
    [signal] = feed(monitor, 2.0, 100, 100 * SECOND)
    feed(monitor, 2.0, 1, signal.time_ms + HOUR)
    assert monitor.live() == [signal]
    feed(monitor, 2.0, 1, signal.time_ms + HOUR + 1)
    assert monitor.live() == []
    assert sink.signals[0].ended_ms == signal.time_ms + HOUR + 1
    told = metrics.registry.get_sample_value
    assert told("headrace_monitoring_drift_live_signals") == 0.0
    assert told("headrace_monitoring_drift_live_severity", {"stream": "clicks"}) == 0.0
    assert told("headrace_monitoring_drift_ended_total", {"stream": "clicks"}) == 1.0


def test_oldest_live_signal_is_ended_beyond_the_limit() -> None:
    monitor = DriftMonitor(STREAMS, replace(CONFIG, max_live=1), Metrics())
    for stream, start_ms in (("clicks", 0), ("likes", HOUR)):
        feed(monitor, 0.5, 100, start_ms, stream)
        feed(monitor, 2.0, 100, start_ms + 100 * SECOND, stream)
    assert [signal.stream for signal in monitor.live()] == ["likes"]


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
        {"recover_points": 0},
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
    # the others are fed by those who see lists, whole windows or the learners themselves
    assert {name: points for name, points in values.items() if points} == {
        "label_rate/click": [0.5],
        "label_rate/like": [1.0],
        "loss/base/click": [pytest.approx(np.log(2))],
        "loss/base/like": [pytest.approx(np.log(2))],
        "score/base/click": [0.5],
        "score/base/like": [0.5],
        "calibration/base/click": [0.0],
        "calibration/base/like": [-0.5],
    }
