"""The pure quality functions: worked by hand, against scikit-learn, and on worlds with a trap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from monitoring import quality


@pytest.fixture
def labels_and_scores() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2,000 examples, a fifth of them positive, scored somewhat better than chance, with ties."""
    rng = np.random.default_rng(5)
    labels = (rng.random(2_000) < 0.2).astype(np.float64)
    logits = rng.normal(-1.5, 1.0, 2_000) + 0.8 * labels
    return labels, np.round(1.0 / (1.0 + np.exp(-logits)), 2)


def test_auc_counts_pairs_and_half_of_ties_when_worked_by_hand() -> None:
    # pairs: (.9, .1) won, (.9, .4) won, (.4, .1) won, (.4, .4) tied
    assert quality.auc([1, 0, 1, 0], [0.9, 0.1, 0.4, 0.4]) == 3.5 / 4
    assert quality.auc([1, 0], [0.2, 0.8]) == 0.0
    assert quality.auc([1, 0, 0], [0.5, 0.5, 0.5]) == 0.5


def test_auc_agrees_with_scikit_learn_when_there_are_ties(
    labels_and_scores: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    labels, scores = labels_and_scores
    assert len(np.unique(scores)) < len(scores) / 10  # ties there are
    assert quality.auc(labels, scores) == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12
    )


def test_auc_agrees_with_scikit_learn_when_examples_have_weights(
    labels_and_scores: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    labels, scores = labels_and_scores
    weights = np.random.default_rng(6).gamma(1.0, size=len(labels))
    weighted = quality.auc(labels, scores, weights)
    assert weighted == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12
    )
    assert weighted != pytest.approx(quality.auc(labels, scores), abs=1e-4)


def test_auc_counts_an_example_twice_when_its_weight_is_two() -> None:
    once = quality.auc([1, 0, 0, 1], [0.6, 0.5, 0.7, 0.2], [2, 1, 1, 1])
    assert once == quality.auc([1, 1, 0, 0, 1], [0.6, 0.6, 0.5, 0.7, 0.2])


@pytest.mark.parametrize("labels", [[], [1], [0, 0], [1, 1, 1]])
def test_measures_that_need_both_classes_return_none_when_one_is_missing(
    labels: list[int],
) -> None:
    scores = [0.5] * len(labels)
    assert quality.auc(labels, scores) is None
    assert quality.gauc(labels, scores, [0] * len(labels)) is None
    assert quality.normalized_entropy(labels, scores) is None


def test_auc_returns_none_when_all_positives_weigh_nothing() -> None:
    assert quality.auc([1, 0], [0.9, 0.1], [0.0, 1.0]) is None


def test_gauc_weights_groups_by_size_and_skips_those_of_one_class_when_worked_by_hand() -> None:
    labels = [1, 0, 1, 0, 0, 1, 1]
    scores = [0.9, 0.1, 0.2, 0.8, 0.3, 0.9, 0.1]
    groups = ["a", "a", "b", "b", "b", "c", "c"]  # AUC 1 of 2 rows, AUC 0 of 3 rows, no AUC
    assert quality.gauc(labels, scores, groups) == 2 / 5


def test_gauc_equals_scikit_learn_averaged_by_hand_when_groups_are_many(
    labels_and_scores: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    labels, scores = labels_and_scores
    groups = np.random.default_rng(7).integers(0, 150, len(labels))
    total = weight = 0.0
    for group in range(150):
        mine = groups == group
        if 0 < labels[mine].sum() < mine.sum():
            total += mine.sum() * sklearn_metrics.roc_auc_score(labels[mine], scores[mine])
            weight += mine.sum()
    assert quality.gauc(labels, scores, groups) == pytest.approx(total / weight, abs=1e-12)


def test_naive_user_gauc_is_worst_possible_when_a_model_adapts_within_the_group() -> None:
    """The trap: one click in two impressions, scored by the user's own smoothed click rate.

    Whichever came first lowers the score of what is yet to come: after the click the other, which
    is no click, is scored higher; after the non-click, the click is scored lower. Both orders are
    ranked wrong. With both scored before either label is known, the scores tie: chance.
    """

    def own_rate(known: list[int]) -> float:
        return (sum(known) + 1) / (len(known) + 2)

    labels = [1, 0, 0, 1]
    users = ["ann", "ann", "bob", "bob"]
    at_once = [own_rate([]), own_rate([1]), own_rate([]), own_rate([0])]
    delayed = [own_rate([]), own_rate([]), own_rate([]), own_rate([])]
    assert quality.naive_user_gauc(labels, at_once, users) == 0.0
    assert quality.gauc(labels, delayed, users) == 0.5


def test_log_loss_agrees_with_scikit_learn(
    labels_and_scores: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    labels, scores = labels_and_scores
    expected = sklearn_metrics.log_loss(labels, scores.clip(1e-7, 1 - 1e-7))
    assert quality.log_loss(labels, scores) == pytest.approx(expected, abs=1e-12)


def test_log_loss_stays_finite_when_a_sure_prediction_is_wrong() -> None:
    assert quality.log_loss([0], [1.0]) == pytest.approx(math.log(1e7), rel=1e-6)
    assert quality.log_loss([1], [0.0]) == pytest.approx(math.log(1e7), rel=1e-6)
    assert quality.log_loss([], []) is None


def test_normalized_entropy_is_one_when_the_mean_rate_is_predicted() -> None:
    assert quality.normalized_entropy([1, 0, 0, 0], [0.25] * 4) == pytest.approx(1.0)
    assert quality.normalized_entropy([1, 0, 0, 0], [0.9, 0.1, 0.1, 0.1]) == pytest.approx(
        4 * -math.log(0.9) / (-math.log(0.25) - 3 * math.log(0.75))
    )


def test_calibration_ratio_is_predicted_over_actual_when_worked_by_hand() -> None:
    assert quality.calibration_ratio([1, 0, 1, 0], [0.2, 0.1, 0.5, 0.2]) == pytest.approx(0.5)
    assert quality.calibration_ratio([0, 0], [0.2, 0.1]) is None
    assert quality.calibration_ratio([], []) is None


def test_expected_calibration_error_weighs_bins_by_size_when_worked_by_hand() -> None:
    # bin [0, .5): predicted .2, actual 1/2, 2 examples; bin [.5, 1]: predicted .9, actual 1, 2
    error = quality.expected_calibration_error([1, 0, 1, 1], [0.2, 0.2, 0.8, 1.0], num_bins=2)
    assert error == pytest.approx(0.5 * 0.3 + 0.5 * 0.1)
    assert quality.expected_calibration_error([], []) is None


def test_rank_measures_count_misses_and_leave_out_the_unevaluated_when_worked_by_hand() -> None:
    ranks = [1, 3, 21, -1, 0, 0]
    assert quality.recall_at_k(ranks, 20) == 2 / 4
    assert quality.recall_at_k(ranks, 2) == 1 / 4
    assert quality.ndcg_at_k(ranks, 20) == pytest.approx((1 + 1 / 2) / 4)
    assert quality.mrr(ranks) == pytest.approx((1 + 1 / 3 + 1 / 21) / 4)


def test_ndcg_agrees_with_scikit_learn_when_there_is_one_target() -> None:
    rng = np.random.default_rng(8)
    truth, scores = np.zeros((50, 30)), rng.random((50, 30))
    truth[:, 4] = 1.0
    ranks = 1 + (scores > scores[:, [4]]).sum(axis=1)
    assert quality.ndcg_at_k(ranks, 10) == pytest.approx(
        sklearn_metrics.ndcg_score(truth, scores, k=10)
    )


@pytest.mark.parametrize("ranks", [[], [0, 0]])
def test_rank_measures_return_none_when_nothing_was_evaluated(ranks: list[int]) -> None:
    assert quality.recall_at_k(ranks, 20) is None
    assert quality.ndcg_at_k(ranks, 20) is None
    assert quality.mrr(ranks) is None


@pytest.mark.parametrize(
    ("labels", "scores"),
    [([0.5], [0.5]), ([math.nan], [0.5]), ([1.0], [math.nan]), ([1.0, 0.0], [0.5])],
    ids=["soft label", "unknown label", "no score", "lengths"],
)
def test_measures_refuse_what_they_cannot_mean(labels: list[float], scores: list[float]) -> None:
    with pytest.raises(AssertionError):
        quality.auc(labels, scores)


def test_log_loss_refuses_scores_that_are_no_probabilities() -> None:
    with pytest.raises(AssertionError, match="probabilities"):
        quality.log_loss([1, 0], [1.5, 0.5])
