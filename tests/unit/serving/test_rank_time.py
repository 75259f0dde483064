from __future__ import annotations

import numpy as np
import pytest

from serving.rank_time import RankTimeEstimate


def test_rank_time_is_the_budget_before_anything_was_timed():
    assert RankTimeEstimate(0.02).expected_s() == pytest.approx(0.02)


def test_rank_time_settles_on_a_steady_series():
    estimate = RankTimeEstimate(0.5)
    for _ in range(100):
        estimate.observe(0.004)
    assert estimate.expected_s() == pytest.approx(0.004, rel=0.1)


def test_rank_time_stays_above_nearly_all_of_a_noisy_series():
    estimate = RankTimeEstimate(0.02)
    seconds = np.random.default_rng(7).normal(0.005, 0.001, 500)
    covered = []
    for one in seconds:
        covered.append(one <= estimate.expected_s())
        estimate.observe(float(one))
    assert np.mean(covered) > 0.97  # usually 0.99


def test_rank_time_becomes_hopeful_again_after_a_slow_spell_when_ranking_is_skipped():
    estimate = RankTimeEstimate(0.005)
    estimate.observe(2.0)
    assert estimate.expected_s() > 0.5
    skips = 0
    while estimate.expected_s() > 0.05:
        estimate.skipped()
        skips += 1
    assert skips < 100
