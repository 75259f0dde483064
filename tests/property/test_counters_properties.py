"""The label counters against counts kept in dictionaries, one outcome at a time."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.counters import CounterConfig, LabelCounters

HALF_LIFE_MS = 1_000
CONFIG = CounterConfig(half_life_ms=HALF_LIFE_MS, prior_strength=4.0, recent_prior_strength=2.0)
HEADS = 2

labels = st.sampled_from([0.0, 1.0, math.nan])
outcomes = st.lists(
    st.tuples(
        st.lists(st.integers(0, 6), min_size=1, max_size=4),
        st.tuples(labels, labels),
        st.integers(0, 5_000),
    ),
    max_size=25,
)
Outcomes = list[tuple[list[int], tuple[float, float], int]]


def observe(counters: LabelCounters, outcome: tuple[list[int], tuple[float, float], int]) -> None:
    keys, label, time_ms = outcome
    counters.observe(
        np.array([keys], np.int64),
        np.array([label], np.float32),
        np.zeros(1, bool),
        time_ms,
    )


def log_odds(positive: float, shown: float, rate: float, strength: float) -> float:
    smoothed = (positive + strength * rate) / (shown + strength)
    return math.log(smoothed / (1 - smoothed)) - math.log(rate / (1 - rate))


def slow_read(history: Outcomes, key: int, now: int) -> list[float]:
    """Work out one key's numbers from the whole list of outcomes."""
    shown, positive = defaultdict[int, float](float), defaultdict[int, float](float)
    total, total_positive = [2.0] * HEADS, [1.0] * HEADS
    recent_shown = recent_positive = 0.0
    newest = max((time for keys, _, time in history if key in keys), default=0)
    for keys, label, time in history:
        for head in range(HEADS):
            if not math.isnan(label[head]):
                total[head] += 1
                total_positive[head] += label[head]
                if key in keys:
                    shown[head] += 1
                    positive[head] += label[head]
        if key in keys and not math.isnan(label[0]):
            # What is read before the newest outcome's time has not faded below its time yet.
            weight = 0.5 ** ((max(now, newest) - time) / HALF_LIFE_MS)
            recent_shown += weight
            recent_positive += weight * label[0]
    if key == 0 or not any(key in keys for keys, _, _ in history):
        return [0.0] * (HEADS + 2)
    rates = [p / t for p, t in zip(total_positive, total, strict=True)]
    return [
        *(log_odds(positive[h], shown[h], rates[h], 4.0) for h in range(HEADS)),
        math.log1p(shown[0]),
        log_odds(recent_positive, recent_shown, rates[0], 2.0),
    ]


@given(outcomes, st.integers(0, 8_000))
@settings(max_examples=80)
def test_counters_equal_counting_by_hand(history: Outcomes, now: int) -> None:
    counters = LabelCounters(CONFIG, HEADS)
    for outcome in history:
        observe(counters, outcome)
    keys = np.arange(0, 8)
    expected = [slow_read(history, int(key), now) for key in keys]
    np.testing.assert_allclose(counters.read(keys, now), expected, atol=2e-4)


@given(outcomes, st.integers(0, 8_000))
@settings(max_examples=40)
def test_counters_read_alike_after_save_and_load(history: Outcomes, now: int) -> None:
    counters, restored = LabelCounters(CONFIG, HEADS), LabelCounters(CONFIG, HEADS)
    for outcome in history[:10]:
        observe(counters, outcome)
    restored.load(counters.save())
    for outcome in history[10:]:
        observe(counters, outcome)
        observe(restored, outcome)
    keys = np.arange(0, 8)
    assert np.array_equal(counters.read(keys, now), restored.read(keys, now))


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=200))
@settings(max_examples=30)
def test_counters_keep_the_newest_entries_within_their_bound(keys: list[int]) -> None:
    config = CounterConfig(max_entries=20)
    counters = LabelCounters(config, 1)
    for time_ms, key in enumerate(keys):
        counters.observe(np.array([[key]]), np.ones((1, 1), np.float32), np.zeros(1, bool), time_ms)
        assert len(counters) <= 20
    newest = list(dict.fromkeys(reversed(keys)))[:20]
    assert counters.read(np.array(newest), len(keys))[:, 1].all()
