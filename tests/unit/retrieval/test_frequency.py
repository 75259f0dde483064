"""Streaming frequency: the sampling probability that logQ correction divides by."""

from __future__ import annotations

import numpy as np

from retrieval.frequency import StreamingFrequency


def learned(rows: np.ndarray, num_rows: int, rate: float = 0.05) -> StreamingFrequency:
    frequency = StreamingFrequency(rate)
    frequency.grow(num_rows)
    frequency.learn(rows)
    return frequency


def test_item_of_every_tenth_step_has_probability_a_tenth() -> None:
    rows = np.arange(1_000) % 10
    probability = learned(rows, 10).probability(np.arange(10))
    np.testing.assert_allclose(probability, 0.1, rtol=0.05)


def test_probabilities_follow_a_skewed_stream() -> None:
    expected = np.array([0.5, 0.3, 0.2])
    rows = np.random.default_rng(0).choice(3, size=20_000, p=expected)
    probability = learned(rows, 3, rate=0.005).probability(np.arange(3))
    np.testing.assert_allclose(probability, expected, rtol=0.15)


def test_probability_rises_and_falls_with_the_stream() -> None:
    before, after = np.arange(500) % 5, 5 + np.arange(500) % 5
    frequency = learned(np.concatenate([before, after]), 10)
    old, new = frequency.probability(np.array([0, 5]))
    assert 0.95 / 50 < old < 1.05 / 50
    assert new > 1 / 7


def test_item_never_seen_is_rarer_than_any_seen() -> None:
    probability = learned(np.array([0, 1, 0, 0]), 3).probability(np.arange(3))
    assert probability[2] < probability[1] < probability[0]


def test_estimate_does_not_depend_on_how_the_stream_is_cut() -> None:
    rows = np.random.default_rng(0).integers(5, size=100)
    whole, cut = learned(rows, 5), StreamingFrequency(0.05)
    cut.grow(5)
    for first in range(0, 100, 7):
        cut.learn(rows[first : first + 7])
    np.testing.assert_array_equal(whole.probability(np.arange(5)), cut.probability(np.arange(5)))
