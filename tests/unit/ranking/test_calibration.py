"""Streaming Platt scaling."""

from __future__ import annotations

import numpy as np
import pytest

from domain.errors import ConfigError
from domain.state import state_hash
from ranking.calibration import CalibrationConfig, PlattCalibrator


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def feed(
    calibrator: PlattCalibrator,
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


def test_nothing_is_corrected_before_the_first_label() -> None:
    logits = np.array([[-2.0, 0.5]], np.float32)
    calibrated = PlattCalibrator(CalibrationConfig(), 2).apply(logits)
    np.testing.assert_allclose(calibrated, sigmoid(logits), rtol=1e-6)


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.6, -0.5), (1.3, 0.8)])
def test_true_probabilities_are_found_when_logits_are_off(slope: float, offset: float) -> None:
    calibrator = PlattCalibrator(CalibrationConfig(), 1)
    feed(calibrator, slope, offset)
    logits = np.linspace(-2, 2, 9, dtype=np.float32)[:, None]
    true = sigmoid(slope * logits + offset)
    np.testing.assert_allclose(calibrator.apply(logits), true, atol=0.03)


def test_sampled_negatives_are_calibrated_to_the_unsampled_stream() -> None:
    calibrator = PlattCalibrator(CalibrationConfig(), 1)
    feed(calibrator, 1.0, -0.5, log_rate=float(np.log(0.2)))
    logits = np.array([[0.0], [1.0]], np.float32)
    np.testing.assert_allclose(calibrator.apply(logits), sigmoid(logits - 0.5), atol=0.03)


def test_calibration_follows_a_change() -> None:
    calibrator = PlattCalibrator(CalibrationConfig(half_life_examples=2_000), 1)
    feed(calibrator, 1.0, 1.0)
    feed(calibrator, 1.0, -1.0, seed=1)
    zero = np.zeros((1, 1), np.float32)
    assert calibrator.apply(zero)[0, 0] == pytest.approx(sigmoid(np.array(-1.0)), abs=0.04)


def test_order_is_never_turned_round() -> None:
    calibrator = PlattCalibrator(CalibrationConfig(), 1)
    feed(calibrator, -2.0, 0.0)
    low, high = calibrator.apply(np.array([[-1.0], [1.0]], np.float32))[:, 0]
    assert low < high


def test_head_without_known_labels_is_left_alone() -> None:
    calibrator = PlattCalibrator(CalibrationConfig(), 2)
    weights = np.array([[1.0, 0.0]], np.float32)
    labels = np.array([[1.0, np.nan]], np.float32)
    calibrator.update(np.ones((1, 2), np.float32), labels, weights, np.zeros(1, np.float32))
    p = calibrator.apply(np.ones((1, 2), np.float32))[0]
    assert p[0] > p[1] == pytest.approx(sigmoid(np.array(1.0)), rel=1e-6)


def test_state_survives_save_and_load() -> None:
    calibrator, restored = (PlattCalibrator(CalibrationConfig(), 1) for _ in range(2))
    feed(calibrator, 0.6, -0.5, batches=3)
    restored.load(calibrator.save())
    assert state_hash(restored.save()) == state_hash(calibrator.save())
    logits = np.ones((1, 1), np.float32)
    assert np.array_equal(restored.apply(logits), calibrator.apply(logits))


@pytest.mark.parametrize("key", ["half_life_examples", "prior_examples"])
def test_config_names_the_key_when_not_positive(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.calibration\.{key} must be positive"):
        CalibrationConfig(**{key: 0})
