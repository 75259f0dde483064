"""Detectors find a change of known moment and size, stay silent without one, and can be saved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import state_hash
from monitoring.drift_detectors import (
    DetectorName,
    DriftDetectorsConfig,
    StreamDetector,
    WatchedStream,
    change_point,
)
from monitoring.drift_signal import DriftSignal

DETECTORS: tuple[DetectorName, ...] = ("adwin", "page_hinkley", "kswin")
LOSS = WatchedStream(name="loss", kind="concept")
CONFIG = DriftDetectorsConfig(settle=0)


def noise(length: int, seed: int = 0) -> NDArray[np.float64]:
    """A loss around 0.6; one standard deviation is 0.05."""
    return np.random.default_rng(seed).normal(0.6, 0.05, length)


def shifted(at: int, deviations: float, length: int, seed: int = 0) -> NDArray[np.float64]:
    return noise(length, seed) + 0.05 * deviations * (np.arange(length) >= at)


def run(
    detector: StreamDetector, values: NDArray[np.float64], start: int = 0
) -> list[tuple[int, DriftSignal]]:
    """Return (index, signal); value i happens at second i."""
    signals = [
        (index, detector.update(float(value), 1_000 * index))
        for index, value in enumerate(values, start)
    ]
    return [(index, signal) for index, signal in signals if signal is not None]


@pytest.mark.parametrize(("name", "delay"), [("adwin", 60), ("page_hinkley", 30), ("kswin", 40)])
def test_detector_finds_a_shift_of_two_deviations_soon_and_says_when_it_began(
    name: DetectorName, delay: int
) -> None:
    # usual delays: 41, 17 and 24 values
    signals = run(StreamDetector(name, LOSS, CONFIG), shifted(300, 2.0, 450))
    assert len(signals) == 1
    index, signal = signals[0]
    assert 300 < index <= 300 + delay
    assert (signal.stream, signal.kind, signal.detector) == ("loss", "concept", name)
    assert signal.time_ms == 1_000 * index
    assert abs(signal.since_ms - 300_000) <= 3_000
    assert signal.before == pytest.approx(0.6, abs=0.02)
    assert signal.after == pytest.approx(0.7, abs=0.03)
    assert signal.deviations == pytest.approx(2.0, abs=0.5)
    assert signal.points_before + signal.points_after <= index + 1


@pytest.mark.parametrize(("name", "length"), [("adwin", 8_000), ("page_hinkley", 8_000)])
def test_detector_is_silent_on_noise_however_long(name: DetectorName, length: int) -> None:
    assert run(StreamDetector(name, LOSS, CONFIG), noise(length)) == []


def test_kswin_is_silent_on_noise() -> None:
    assert run(StreamDetector("kswin", LOSS, CONFIG), noise(1_000)) == []


@pytest.mark.parametrize("name", DETECTORS)
def test_detector_sees_the_same_whatever_the_scale_of_its_stream(name: DetectorName) -> None:
    values = shifted(200, 4.0, 300)
    plain = run(StreamDetector(name, LOSS, CONFIG), values)
    scaled = run(StreamDetector(name, LOSS, CONFIG), 1_000.0 * values - 5.0)
    assert [index for index, _ in plain] == [index for index, _ in scaled]
    assert plain


def test_detector_takes_the_new_level_as_normal_after_a_signal() -> None:
    there_and_back = np.concatenate([noise(300), noise(300, 1) + 0.2, noise(300, 2)])
    signals = run(StreamDetector("page_hinkley", LOSS, CONFIG), there_and_back)
    assert len(signals) == 2
    assert signals[0][1].after > signals[0][1].before
    assert signals[1][1].after < signals[1][1].before
    assert 600 < signals[1][0] < 620


def test_fall_is_no_signal_when_only_a_rise_is_bad_news() -> None:
    stream = WatchedStream(name="loss", kind="concept", alarm_on="rise")
    good, bad = shifted(300, -3.0, 450), shifted(300, 3.0, 450)
    assert run(StreamDetector("adwin", stream, CONFIG), good) == []
    assert len(run(StreamDetector("adwin", stream, CONFIG), bad)) == 1


def test_constant_stream_is_silent_until_it_moves() -> None:
    detector = StreamDetector("page_hinkley", LOSS, CONFIG)
    assert run(detector, np.zeros(500)) == []
    assert len(run(detector, np.full(20, 0.01), start=500)) == 1


@pytest.mark.parametrize("name", DETECTORS)
def test_load_continues_bit_for_bit_where_save_stood(name: DetectorName) -> None:
    config = replace(CONFIG, max_values=400)  # so that old values are forgotten on the way
    values = np.concatenate([shifted(200, 3.0, 480), noise(200, 1)])
    cuts = (215,) if name == "kswin" else (10, 190, 215, 450, 600)  # KSWIN is slow
    for cut in cuts:
        straight, before, after = (StreamDetector(name, LOSS, config) for _ in range(3))
        run(straight, values[:cut])
        run(before, values[:cut])
        after.load(before.save())
        rest = run(straight, values[cut:], start=cut)
        assert run(after, values[cut:], start=cut) == rest
        assert state_hash(after.save()) == state_hash(straight.save())


@pytest.mark.parametrize("name", ["adwin", "page_hinkley"])
def test_detector_keeps_no_more_values_than_configured(name: DetectorName) -> None:
    detector = StreamDetector(name, LOSS, replace(CONFIG, max_values=200))
    for value in noise(1_500):
        detector.update(float(value), 0)
        assert len(detector.save()["values"]) <= 200


def test_detector_still_finds_a_shift_just_after_it_forgot_old_values() -> None:
    detector = StreamDetector("page_hinkley", LOSS, replace(CONFIG, max_values=200))
    assert [index < 430 for index, _ in run(detector, shifted(402, 3.0, 500))] == [True]


def test_first_values_are_passed_over_also_across_a_restart() -> None:
    config = replace(CONFIG, settle=100)
    values = np.concatenate([np.linspace(5.0, 0.6, 100), shifted(200, 4.0, 300)])
    assert len(run(StreamDetector("page_hinkley", LOSS, CONFIG), values)) > 1
    [(index, _)] = run(StreamDetector("page_hinkley", LOSS, config), values)
    assert 300 < index < 320
    before, after = (StreamDetector("page_hinkley", LOSS, config) for _ in range(2))
    run(before, values[:60])
    after.load(before.save())
    assert [at for at, _ in run(after, values[60:], start=60)] == [index]


def test_change_point_is_where_the_mean_changes() -> None:
    assert change_point(np.array([0.0, 0.0, 0.0, 5.0, 5.0])) == 3
    assert change_point(np.array([1.0, 0.0])) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"adwin_delta": 0.0},
        {"kswin_alpha": 1.0},
        {"page_hinkley_slack": 0.0},
        {"page_hinkley_threshold": -1.0},
        {"settle": -1},
        {"warm_up": 1},
        {"kswin_window": 19},
        {"max_values": 199},
    ],
)
def test_config_names_the_key_when_a_value_is_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"^drift\.{next(iter(bad))} "):
        DriftDetectorsConfig(**bad)  # type: ignore[arg-type]
