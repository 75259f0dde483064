"""Pinned results of the error memory: a refactoring must not move them.

The codes are exact on every machine: they come from single float32 additions and multiplications
in a fixed order. The rest goes through logarithms, which may differ in the last digits.
"""

from __future__ import annotations

import numpy as np
import pytest

from memory.config import MemoryConfig
from memory.hashing import SignHash
from memory.learner import ErrorMemoryLearner

CODES = [[50, 31, 28], [58, 38, 38], [45, 54, 7], [5, 48, 28], [13, 48, 37]]
PLANES = [0.28067759, 2.56601143, -1.40236044]
FIRST_FULL_LAMBDA = 10
SUPPORT = [20.63296359, 14.06421765, 15.25357609]
ERRORS = [0.40771735, 0.49692884, 0.04218659]


def scattered(shape: tuple[int, ...], offset: int) -> np.ndarray:
    """Return numbers between -0.5 and 0.5 that follow no direction, exact on every machine."""
    n = np.arange(np.prod(shape)) + 1000 * offset
    return ((n * n * 7919 + n) % 1009 / 1009 - 0.5).reshape(shape).astype(np.float32)


def test_codes_stay_what_they_were() -> None:
    hash_ = SignHash(3, 6, 8, np.random.default_rng(0))
    hash_.use(scattered((8, 6, 3), offset=1))
    codes_NK = hash_.codes(scattered((5, 8), offset=2), np.full(8, 0.1, np.float32)).T
    assert codes_NK.tolist() == CODES


def test_the_hash_of_a_seed_stays_what_it_was() -> None:
    planes_DLK = ErrorMemoryLearner(MemoryConfig(), 8, 1, seed=7).save()["memory"]["planes"]
    assert planes_DLK[0, 0, :3].tolist() == pytest.approx(PLANES, rel=1e-6)


def test_a_small_stream_ends_where_it_ended() -> None:
    """Forty batches of eight; the base says a third, the truth follows the first coordinate."""
    learner = ErrorMemoryLearner(MemoryConfig(num_arrays=4, num_bits=5), 8, 1, seed=7)
    hidden_TND = scattered((40, 8, 8), offset=3)
    base_N1 = np.full((8, 1), 1 / 3, np.float32)
    path = []
    for step, hidden_ND in enumerate(hidden_TND):
        labels_N1 = (hidden_ND[:, :1] > 0).astype(np.float32)
        learner.learn(hidden_ND, base_N1, labels_N1, time_ms=step * 60_000)
        path.append(float(learner.lambdas[0]))
    read = learner.read(hidden_TND[3, :3])
    assert path.index(1.0) == FIRST_FULL_LAMBDA
    np.testing.assert_allclose(read.support[:, 0], SUPPORT, rtol=1e-5)
    error_N1 = learner.read_errors(hidden_TND[3, :3], base_N1[:3])
    np.testing.assert_allclose(error_N1[:, 0], ERRORS, rtol=1e-5)
