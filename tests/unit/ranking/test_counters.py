"""Label counters in worlds small enough to count on one's fingers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from domain.errors import ConfigError
from ranking.counters import CounterConfig, LabelCounters

HOUR_MS = 3_600_000


def observe(
    counters: LabelCounters, key: int, label: float, time_ms: int = 0, correction: bool = False
) -> None:
    counters.observe(
        np.array([[key]]), np.array([[label]], np.float32), np.array([correction]), time_ms
    )


def test_unknown_key_reads_as_zeros() -> None:
    counters = LabelCounters(CounterConfig(), 3)
    assert counters.read(np.array([[4, 0]]), 0).tolist() == [[[0.0] * 5] * 2]


def test_better_than_average_key_has_positive_log_odds() -> None:
    counters = LabelCounters(CounterConfig(), 1)
    for _ in range(20):
        observe(counters, 1, 1.0)
        observe(counters, 2, 0.0)
    good, bad = counters.read(np.array([1, 2]), 0)
    assert good[0] > 0.5
    assert bad[0] == pytest.approx(-good[0])
    assert good[1] == pytest.approx(math.log(21))


def test_recent_rate_fades_to_the_overall_rate() -> None:
    counters = LabelCounters(CounterConfig(half_life_ms=HOUR_MS), 1)
    for _ in range(20):
        observe(counters, 1, 1.0)
        observe(counters, 2, 0.0)
    now, later, much_later = (
        float(counters.read(np.array([1]), hours * HOUR_MS)[0, 2]) for hours in (0, 2, 40)
    )
    assert now > later > much_later
    assert much_later == pytest.approx(0.0, abs=1e-4)
    assert counters.read(np.array([1]), 40 * HOUR_MS)[0, 0] > 0.5


def test_activity_counts_positives_and_days_of_event_time() -> None:
    counters = LabelCounters(CounterConfig(), 1)
    day_ms = 24 * HOUR_MS
    for time_ms, label in [(0, 1.0), (HOUR_MS, 0.0), (day_ms, 1.0), (9 * day_ms, 0.0)]:
        observe(counters, 1, label, time_ms)
    observe(counters, 1, 1.0, 5 * day_ms)  # told of after the ninth day
    known, unknown, none = counters.read_activity(np.array([1, 2, 0]))
    assert np.expm1(known) == pytest.approx([3, 3])
    assert unknown.tolist() == none.tolist() == [0.0, 0.0]


def test_correction_adds_the_positive_but_not_a_second_showing() -> None:
    counters, direct = LabelCounters(CounterConfig(), 1), LabelCounters(CounterConfig(), 1)
    observe(counters, 1, 0.0)
    observe(counters, 1, 1.0, correction=True)
    observe(direct, 1, 1.0)
    assert np.array_equal(counters.read(np.array([1]), 0), direct.read(np.array([1]), 0))


def test_key_that_occurs_twice_in_one_example_counts_once() -> None:
    twice, once = LabelCounters(CounterConfig(), 1), LabelCounters(CounterConfig(), 1)
    label, final = np.ones((1, 1), np.float32), np.zeros(1, bool)
    twice.observe(np.array([[1, 1, 0]]), label, final, 0)
    once.observe(np.array([[1]]), label, final, 0)
    assert np.array_equal(twice.read(np.array([1]), 0), once.read(np.array([1]), 0))


def test_older_outcome_arriving_late_counts_as_faded() -> None:
    in_order, reverse = (LabelCounters(CounterConfig(), 1) for _ in range(2))
    moments = [(0, 1.0), (5 * HOUR_MS, 0.0), (6 * HOUR_MS, 1.0)]
    for time_ms, label in moments:
        observe(in_order, 1, label, time_ms)
    for time_ms, label in reversed(moments):
        observe(reverse, 1, label, time_ms)
    now = 7 * HOUR_MS
    np.testing.assert_allclose(
        in_order.read(np.array([1]), now), reverse.read(np.array([1]), now), rtol=1e-5
    )


@pytest.mark.parametrize(
    "key", ["max_entries", "half_life_ms", "prior_strength", "recent_prior_strength"]
)
def test_config_names_the_key_when_not_positive(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.counters\.{key} must be positive, got 0"):
        CounterConfig(**{key: 0})
