"""Streaming calibration: what Platt scaling and isotonic regression promise, and each alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import ConfigError
from domain.state import state_hash
from domain.state_reading import StateReader
from ranking.calibration import (
    CalibrationConfig,
    Calibrator,
    Method,
    NoCalibrator,
    build_calibrator,
    pooled_adjacent_violators,
)
from ranking.calibration_error import CalibrationErrorMeter

METHODS: tuple[Method, ...] = ("platt", "isotonic")
both = pytest.mark.parametrize("method", METHODS)


def make(method: Method, num_heads: int = 1, half_life: int = 20_000) -> Calibrator:
    config = CalibrationConfig(method=method, half_life_examples=half_life)
    return build_calibrator(config, num_heads)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def feed(
    calibrator: Calibrator,
    slope: float,
    offset: float,
    batches: int = 80,
    log_rate: float = 0.0,
    seed: int = 0,
) -> None:
    """Show labels whose true logit is slope * logit + offset, sampled at a rate."""
    rng = np.random.default_rng(seed)
    for _ in range(batches):
        logits = rng.normal(size=(256, 1)).astype(np.float32)
        p = sigmoid(slope * logits + offset - log_rate)
        labels = (rng.random(p.shape) < p).astype(np.float32)
        ones = np.ones_like(labels)
        calibrator.update(logits, labels, ones, np.full(256, log_rate, np.float32))


@pytest.mark.parametrize("method", [*METHODS, "none"])
def test_nothing_is_corrected_before_the_first_label(method: Method) -> None:
    logits = np.array([[-2.0, 0.5], [9.0, -30.0]], np.float32)
    calibrated = make(method, 2).apply(logits)
    np.testing.assert_allclose(calibrated, sigmoid(logits), rtol=1e-5)


@both
@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.6, -0.5), (1.3, 0.8)])
def test_true_probabilities_are_found_when_logits_are_off(
    method: Method, slope: float, offset: float
) -> None:
    calibrator = make(method)
    feed(calibrator, slope, offset)
    logits = np.linspace(-2, 2, 9, dtype=np.float32)[:, None]
    true = sigmoid(slope * logits + offset)
    # Two numbers are found sooner than a whole curve.
    close = 0.03 if method == "platt" else 0.06
    np.testing.assert_allclose(calibrator.apply(logits), true, atol=close)


@both
def test_sampled_negatives_are_calibrated_to_the_unsampled_stream(method: Method) -> None:
    calibrator = make(method)
    feed(calibrator, 1.0, -0.5, log_rate=float(np.log(0.2)))
    logits = np.array([[0.0], [1.0]], np.float32)
    np.testing.assert_allclose(calibrator.apply(logits), sigmoid(logits - 0.5), atol=0.05)


@both
def test_calibration_follows_a_change(method: Method) -> None:
    calibrator = make(method, half_life=2_000)
    feed(calibrator, 1.0, 1.0)
    feed(calibrator, 1.0, -1.0, seed=1)
    zero = np.zeros((1, 1), np.float32)
    assert calibrator.apply(zero)[0, 0] == pytest.approx(sigmoid(np.array(-1.0)), abs=0.06)


@both
def test_order_is_never_turned_round(method: Method) -> None:
    calibrator = make(method)
    feed(calibrator, -2.0, 0.0)
    low, high = calibrator.apply(np.array([[-1.0], [1.0]], np.float32))[:, 0]
    assert low < high


@both
def test_head_without_known_labels_is_left_alone(method: Method) -> None:
    calibrator = make(method, 2)
    weights = np.array([[1.0, 0.0]], np.float32)
    labels = np.array([[1.0, np.nan]], np.float32)
    calibrator.update(np.ones((1, 2), np.float32), labels, weights, np.zeros(1, np.float32))
    p = calibrator.apply(np.ones((1, 2), np.float32))[0]
    assert p[0] > p[1] == pytest.approx(sigmoid(np.array(1.0)), rel=1e-6)


@both
def test_state_survives_save_and_load(method: Method) -> None:
    calibrator, restored = make(method), make(method)
    feed(calibrator, 0.6, -0.5, batches=3)
    restored.load(calibrator.save())
    assert state_hash(restored.save()) == state_hash(calibrator.save())
    logits = np.ones((1, 1), np.float32)
    assert np.array_equal(restored.apply(logits), calibrator.apply(logits))
    followed = make(method)
    followed.load(followed.read_delta(StateReader(calibrator.save(), "calibrator")))
    assert np.array_equal(followed.apply(logits), calibrator.apply(logits))


def test_isotonic_finds_a_shape_that_no_slope_and_offset_have() -> None:
    """Above a logit of 0 half of all are positive, however sure the network is; below few are."""
    rng = np.random.default_rng(0)
    errors = {}
    for method in METHODS:
        calibrator = make(method)
        for _ in range(100):
            logits = rng.uniform(-3, 3, (256, 1)).astype(np.float32)
            p = np.where(logits > 0, 0.5, sigmoid(logits - 1))
            labels = (rng.random(p.shape) < p).astype(np.float32)
            calibrator.update(logits, labels, np.ones_like(labels), np.zeros(256, np.float32))
        asked = np.linspace(-2.5, 2.5, 11, dtype=np.float32)[:, None]
        true = np.where(asked > 0, 0.5, sigmoid(asked - 1))
        errors[method] = float(np.abs(calibrator.apply(asked) - true).mean())
    assert errors["isotonic"] < 0.04 < errors["platt"]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 10)), min_size=1, max_size=12),
)
def test_pooled_values_rise_keep_the_mean_and_are_nearest(pairs: list[tuple[float, float]]) -> None:
    value, weight = (np.array(part) for part in zip(*pairs, strict=True))
    pooled = pooled_adjacent_violators(value, weight)
    assert (np.diff(pooled) >= -1e-12).all()
    assert np.average(pooled, weights=weight) == pytest.approx(np.average(value, weights=weight))
    # The oracle: the greatest, over starts, of the least, over ends, of weighted means.
    size = len(value)
    mean = {
        (a, b): np.average(value[a : b + 1], weights=weight[a : b + 1])
        for a in range(size)
        for b in range(a, size)
    }
    for k in range(size):
        minmax = max(min(mean[a, b] for b in range(k, size)) for a in range(k + 1))
        assert pooled[k] == pytest.approx(minmax, abs=1e-9)


def test_meter_sees_what_calibration_is_worth_and_forgets() -> None:
    rng = np.random.default_rng(0)
    calibrator, meter = make("platt"), CalibrationErrorMeter(2_000, 1)
    assert np.isnan(meter.get()).all()
    for _ in range(100):
        logits = rng.normal(size=(256, 1)).astype(np.float32)
        labels = (rng.random(logits.shape) < sigmoid(0.5 * logits - 1)).astype(np.float32)
        ones = np.ones_like(labels)
        meter.update(sigmoid(logits), calibrator.apply(logits), labels, ones)
        calibrator.update(logits, labels, ones, np.zeros(256, np.float32))
    before, after = meter.get()[:, 0]
    assert before > 0.15 > 0.04 > after
    restored = CalibrationErrorMeter(2_000, 1)
    restored.load(meter.save())
    np.testing.assert_array_equal(restored.get(), meter.get())
    unknown = np.full((4, 1), np.nan, np.float32)
    meter.update(unknown, unknown, unknown, np.zeros((4, 1), np.float32))
    assert np.isfinite(meter.get()).all()


def test_none_learns_nothing() -> None:
    calibrator = build_calibrator(CalibrationConfig(method="none"), 1)
    assert isinstance(calibrator, NoCalibrator)
    feed(calibrator, 0.6, -0.5, batches=3)
    logits = np.ones((1, 1), np.float32)
    np.testing.assert_allclose(calibrator.apply(logits), sigmoid(logits), rtol=1e-6)


@pytest.mark.parametrize("key", ["half_life_examples", "prior_examples"])
def test_config_names_the_key_when_not_positive(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.calibration\.{key} must be positive"):
        CalibrationConfig(**{key: 0})  # type: ignore[arg-type]


def test_config_names_the_method() -> None:
    with pytest.raises(ConfigError, match=r"^ranking\.calibration\.method must be platt, isotonic"):
        CalibrationConfig(method="beta")  # type: ignore[arg-type]
