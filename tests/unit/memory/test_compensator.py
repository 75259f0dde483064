"""The two formulas, on numbers one can say aloud."""

from __future__ import annotations

import numpy as np
import pytest

from memory.compensator import compensate, estimate_errors
from memory.store import MemoryRead


def a_read(trust: float, mean_label: float, mean_base: float) -> MemoryRead:
    return MemoryRead(*(np.array([[x]]) for x in (trust, mean_label, mean_base, 0.0)))


@pytest.mark.parametrize(("gamma", "expected"), [(1.0, 0.8 - 0.3), (0.0, 0.8 - 0.6), (0.5, 0.35)])
def test_estimate_errors_compares_with_this_score_or_those_nearby_when_gamma_says_so(
    gamma: float, expected: float
) -> None:
    base_NH = np.array([[0.3]], np.float32)
    error_NH = estimate_errors(a_read(1.0, 0.8, 0.6), base_NH, gamma)
    assert error_NH.dtype == np.float32
    assert error_NH[0, 0] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_estimate_errors_is_zero_when_nothing_is_known(gamma: float) -> None:
    base_NH = np.array([[0.3]], np.float32)
    assert estimate_errors(a_read(0.0, 0.0, 0.0), base_NH, gamma)[0, 0] == 0.0


def test_compensate_mixes_base_and_label_rate_when_gamma_is_one() -> None:
    """y_pred = (1 - lambda) y_base + lambda ybar, the paper's remark."""
    base_NH = np.array([[0.3]], np.float32)
    error_NH = estimate_errors(a_read(1.0, 0.8, 0.6), base_NH, gamma=1.0)
    corrected_NH = compensate(base_NH, error_NH, np.array([0.25], np.float32))
    assert corrected_NH[0, 0] == pytest.approx(0.75 * 0.3 + 0.25 * 0.8, abs=1e-7)


def test_compensate_keeps_every_bit_of_a_head_when_its_lambda_is_zero() -> None:
    base_NH = np.random.default_rng(0).random((50, 2)).astype(np.float32)
    error_NH = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    corrected_NH = compensate(base_NH, error_NH, np.array([0.0, 0.5], np.float32))
    assert corrected_NH[:, 0].tobytes() == base_NH[:, 0].tobytes()
    assert (corrected_NH[:, 1] != base_NH[:, 1]).any()


def test_compensate_stays_a_probability_when_the_estimate_is_large() -> None:
    base_NH = np.array([[0.9], [0.1]], np.float32)
    error_NH = np.array([[5.0], [-5.0]], np.float32)
    assert compensate(base_NH, error_NH, np.ones(1, np.float32)).tolist() == [[1.0], [0.0]]
