"""Served scores beside the trainer's: what is compared, and what the comparison says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from monitoring import quality
from monitoring.score_skew import ScoreSkew, are_rankers


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_equal_scores_are_no_distance_apart_and_in_one_order() -> None:
    score_N = floats(0.1, 0.5, 0.3)
    point = ScoreSkew(examples=3).update(score_N, score_N)
    assert point is not None
    assert (point.distance, point.order) == (0.0, pytest.approx(1.0))


def test_distance_is_the_mean_over_log_odds() -> None:
    # log-odds of 1/2, 3/4 and 9/10 are ln 1, ln 3 and ln 9
    point = ScoreSkew(examples=2).update(floats(0.5, 0.9), floats(0.75, 0.75))
    assert point is not None
    assert point.distance == pytest.approx(np.log(3.0), rel=1e-6)
    assert point.order is None, "the trainer says the same of both"


def test_turned_round_is_minus_one_and_what_is_not_known_is_left_out() -> None:
    skew = ScoreSkew(examples=3)
    assert skew.update(floats(0.1, np.nan, 0.2), floats(0.9, 0.5, 0.8)) is None
    point = skew.update(floats(0.3), floats(0.7))
    assert point is not None
    assert point.order == pytest.approx(-1.0)


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        (floats(0.9, 0.2), True),
        (floats(2.5, 1.4), False),  # popularity: times the average
        (floats(-0.5, -7.0), False),  # retrieval: logits
        (floats(0.0, 0.0), False),  # not known
        (floats(1.0), False),
    ],
)
def test_only_probabilities_are_the_rankers(served: np.ndarray, expected: bool) -> None:
    assert are_rankers(served) is expected


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a_N = rng.integers(0, 6, 40)  # many ties
    b_N = a_N + rng.normal(0.0, 2.0, 40).round()
    expected = spearmanr(a_N, b_N).statistic
    assert quality.rank_correlation(a_N, b_N) == pytest.approx(expected)


def test_restart_in_the_middle_of_a_window_changes_nothing() -> None:
    served_N, trained_N = floats(0.1, 0.2, 0.3, 0.4), floats(0.2, 0.1, 0.5, 0.3)
    whole, first, again = (ScoreSkew(examples=4) for _ in range(3))
    first.update(served_N[:1], trained_N[:1])
    again.load(first.save())
    expected = whole.update(served_N, trained_N)
    assert expected is not None
    assert again.update(served_N[1:], trained_N[1:]) == expected
