"""Quality of scores: pure functions on arrays.

Each returns None, never NaN, when there is nothing to compute; its docstring says when that is.
Labels are 0 or 1, scores of the binary measures that need probabilities lie in [0, 1]; anything
else is a mistake of ours and fails an assertion. Unknown labels (NaN) are for the caller to remove.

Ranks are 1-based; as in `RetrievalLearner.target_ranks`, -1 is a miss and 0 was not evaluated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

PROBABILITY_FLOOR = 1e-7
"""Log loss takes probabilities as at least this far from 0 and 1: a float32 sigmoid does reach 1,
and one example may then cost 16 nats instead of infinity."""


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Return the chance that a positive is scored above a negative; ties count one half.

    This is the Mann-Whitney statistic with mid-ranks, the area under the ROC curve. With weights,
    a pair counts as often as the product of its two weights.

    Returns:
        None when there is no positive or no negative (of positive weight).

    >>> auc([1, 0, 1, 0], [0.9, 0.1, 0.4, 0.4])
    0.875
    """
    label_N, score_N = _checked(labels, scores)
    weight_N = np.ones(len(label_N)) if weights is None else np.asarray(weights, np.float64)
    assert weight_N.shape == label_N.shape, "one weight per label"
    _, level_N = np.unique(score_N, return_inverse=True)
    positives_L = np.bincount(level_N, weight_N * label_N)
    negatives_L = np.bincount(level_N, weight_N * (1.0 - label_N))
    return auc_of_levels(positives_L, negatives_L)


def auc_of_levels(
    positives_L: NDArray[np.floating | np.integer], negatives_L: NDArray[np.floating | np.integer]
) -> float | None:
    """Return the AUC of L score levels, lowest first, from the weight of labels at each level.

    Returns:
        None when there is no positive or no negative.
    """
    pairs = float(positives_L.sum()) * float(negatives_L.sum())
    if not pairs > 0.0:
        return None
    below_L = np.cumsum(negatives_L) - negatives_L
    won = (positives_L * (below_L + 0.5 * negatives_L)).sum(dtype=np.float64)
    return float(won / pairs)


def gauc(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> float | None:
    """Return AUC per group, averaged with the group's size as weight; G groups.

    Groups with one class only have no AUC and are left out, weight and all (Zhu et al., Optimized
    Cost per Click in Taobao Display Advertising, 2017).

    It is a fair measure only if every impression of a group was scored before any label of that
    group was known. Otherwise a model that adapts to the user is punished for it: within few
    impressions each click already counted makes the remaining ones less likely to be clicks, so
    "she clicks a lot" ranks her own impressions worse than chance. Hence labels with their real
    delay, and sessions as groups (`SessionIds`): a session's labels are settled after it ended.

    Returns:
        None when no group has both a positive and a negative.

    >>> gauc([1, 0, 1, 0, 0, 1], [0.9, 0.1, 0.2, 0.8, 0.3, 0.9], [7, 7, 8, 8, 8, 9])
    0.4
    """
    weighted_auc, weight = gauc_sums(labels, scores, groups)
    return weighted_auc / weight if weight else None


def gauc_sums(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> tuple[float, int]:
    """Return GAUC as numerator and denominator, which add up over disjoint groups.

    The denominator is the number of examples in groups with both classes.
    """
    size_G, auc_G = auc_per_group(labels, scores, groups)
    speaks_G = ~np.isnan(auc_G)
    return float((size_G * auc_G)[speaks_G].sum()), int(size_G[speaks_G].sum())


def auc_per_group(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return size and AUC of each group in order of group, NaN where it has one class only.

    >>> auc_per_group([1, 0, 1], [0.9, 0.1, 0.4], ["a", "a", "b"])
    (array([2, 1]), array([ 1., nan]))
    """
    label_N, score_N = _checked(labels, scores)
    if len(label_N) == 0:
        return np.zeros(0, np.int64), np.zeros(0)
    _, group_N = np.unique(np.asarray(groups), return_inverse=True)
    assert group_N.shape == label_N.shape, "one group per label"

    order_N = np.lexsort((score_N, group_N))  # one sort for all groups
    label_N, score_N, group_N = label_N[order_N], score_N[order_N], group_N[order_N]
    opens_N = np.ones(len(group_N), bool)  # where a new group begins, or a new score within it
    opens_N[1:] = (group_N[1:] != group_N[:-1]) | (score_N[1:] != score_N[:-1])
    start_L = np.flatnonzero(opens_N)

    positives_L = np.add.reduceat(label_N, start_L)
    negatives_L = np.add.reduceat(1.0 - label_N, start_L)
    group_L = group_N[start_L]
    positives_G, negatives_G = np.bincount(group_L, positives_L), np.bincount(group_L, negatives_L)
    before_G = np.cumsum(negatives_G) - negatives_G
    below_L = np.cumsum(negatives_L) - negatives_L - before_G[group_L]
    won_G = np.bincount(group_L, positives_L * (below_L + 0.5 * negatives_L))

    pairs_G = positives_G * negatives_G
    auc_G = np.divide(won_G, pairs_G, out=np.full(len(pairs_G), np.nan), where=pairs_G > 0)
    return np.bincount(group_N), auc_G


def naive_user_gauc(labels: ArrayLike, scores: ArrayLike, users: ArrayLike) -> float | None:
    """Return GAUC with all of a user's impressions as one group, which is *not* fair in a stream.

    Known in the literature simply as GAUC, and sound there: a fixed test set scored by a fixed
    model. Prequentially, impressions of one user are scored before and after her labels became
    known, and the trap described at `gauc` bites: on the KuaiRand-Pure log, a user's own click rate
    gets .22 here. Report it only beside `gauc` by session, under this name.

    Returns:
        None when no user has both a positive and a negative.
    """
    return gauc(labels, scores, users)


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return the mean negative log-likelihood in nats; see `PROBABILITY_FLOOR`.

    Returns:
        None when there is no example.

    >>> round(log_loss([1, 0], [0.5, 0.5]), 4)
    0.6931
    """
    loss_N = log_losses(labels, probabilities)
    return float(loss_N.mean()) if len(loss_N) else None


def log_losses(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return the negative log-likelihood of each example in nats, (N,)."""
    label_N, probability_N = _checked(labels, probabilities, probabilities=True)
    clipped_N = probability_N.clip(PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
    loss_N: NDArray[np.float64] = -np.where(label_N == 1.0, np.log(clipped_N), np.log1p(-clipped_N))
    return loss_N


def entropy(rate: float) -> float:
    """Return the log loss, in nats, of always predicting the true rate of positives.

    >>> entropy(0.0), round(entropy(0.5), 4)
    (0.0, 0.6931)
    """
    return float(sum(p * np.log(1.0 / p) for p in (rate, 1.0 - rate) if p > 0.0))


def normalized_entropy(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return log loss over the log loss of always predicting the mean rate; below 1 is useful.

    He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, 2014, section 2.

    Returns:
        None when there are labels of one class only: the mean rate then loses nothing.
    """
    label_N = np.asarray(labels, np.float64)
    return relative_loss(log_loss(label_N, probabilities), float(label_N.sum()), len(label_N))


def relative_loss(loss: float | None, positives: float, examples: int) -> float | None:
    """Return a log loss over that of predicting the rate positives / examples.

    Returns:
        None when there is no loss, or labels of one class only.
    """
    if loss is None or not 0 < positives < examples:
        return None
    return loss / entropy(positives / examples)


def calibration_ratio(labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """Return mean prediction over mean label; 1 is right, above 1 promises too much.

    Returns:
        None when there is no positive label.

    >>> calibration_ratio([1, 0, 0, 0], [0.5, 0.5, 0.5, 0.5])
    2.0
    """
    label_N, probability_N = _checked(labels, probabilities, probabilities=True)
    positives = label_N.sum()
    return float(probability_N.sum() / positives) if positives > 0 else None


def expected_calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, num_bins: int = 15
) -> float | None:
    """Return the mean distance of prediction and rate, over bins of equal width.

    Each bin weighs as much as it holds examples (Naeini et al., Obtaining Well Calibrated
    Probabilities Using Bayesian Binning, 2015; 15 bins as in Guo et al., 2017).

    Returns:
        None when there is no example.

    >>> expected_calibration_error([1, 0, 1, 1], [0.75, 0.75, 0.75, 0.75])
    0.0
    """
    label_N, probability_N = _checked(labels, probabilities, probabilities=True)
    if len(label_N) == 0:
        return None
    bin_N = calibration_bins(probability_N, num_bins)
    gap_B = np.bincount(bin_N, probability_N - label_N, minlength=num_bins)
    return float(np.abs(gap_B).sum() / len(label_N))


def calibration_bins(probability_N: NDArray[np.float64], num_bins: int) -> NDArray[np.int64]:
    """Return the bin of each probability: bin b is [b / num_bins, (b + 1) / num_bins)."""
    return np.minimum((probability_N * num_bins).astype(np.int64), num_bins - 1)


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Return Spearman's rank correlation of two scores of the same N things; ties share a rank.

    Returns:
        None when one of them says the same of everything.

    >>> rank_correlation([0.1, 0.2, 0.3], [5.0, 6.0, 9.0])
    1.0
    """
    rank_a_N, rank_b_N = _centred_ranks(a), _centred_ranks(b)
    assert rank_a_N.shape == rank_b_N.shape, "two scores of the same things"
    scale = float(np.sqrt((rank_a_N @ rank_a_N) * (rank_b_N @ rank_b_N)))
    return float(rank_a_N @ rank_b_N) / scale if scale else None


def _centred_ranks(scores: ArrayLike) -> NDArray[np.float64]:
    score_N = np.asarray(scores, np.float64)
    assert np.isfinite(score_N).all(), "scores: expected finite numbers only"
    _, level_N, count_L = np.unique(score_N, return_inverse=True, return_counts=True)
    middle_L = np.cumsum(count_L) - 0.5 * count_L
    rank_N: NDArray[np.float64] = middle_L[level_N] - 0.5 * len(score_N)
    return rank_N


def recall_at_k(ranks: ArrayLike, k: int) -> float | None:
    """Return the share of targets among the first k; with one target each, also the hit rate.

    Returns:
        None when nothing was evaluated.

    >>> recall_at_k([1, 21, -1, 0], k=20)
    0.3333333333333333
    """
    rank_M = _evaluated(ranks)
    return float((rank_M <= k).mean()) if len(rank_M) else None


def ndcg_at_k(ranks: ArrayLike, k: int) -> float | None:
    """Return the mean of 1 / log2(1 + rank) for ranks up to k, else 0: one target each.

    Returns:
        None when nothing was evaluated.

    >>> ndcg_at_k([1, 3, 11], k=10)
    0.5
    """
    rank_M = _evaluated(ranks)
    if len(rank_M) == 0:
        return None
    return float(np.where(rank_M <= k, 1.0 / np.log2(1.0 + rank_M), 0.0).mean())


def mrr(ranks: ArrayLike) -> float | None:
    """Return the mean reciprocal rank; a miss counts 0.

    Returns:
        None when nothing was evaluated.

    >>> mrr([1, 4, -1, 0])
    0.4166666666666667
    """
    rank_M = _evaluated(ranks)
    return float((1.0 / rank_M).mean()) if len(rank_M) else None


def _checked(
    labels: ArrayLike, scores: ArrayLike, *, probabilities: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    label_N, score_N = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    assert label_N.ndim == 1, f"labels: expected one dimension, got {label_N.ndim}"
    assert label_N.shape == score_N.shape, f"{len(label_N)} labels but {score_N.shape} scores"
    assert ((label_N == 0.0) | (label_N == 1.0)).all(), "labels: expected 0 and 1 only"
    assert np.isfinite(score_N).all(), "scores: expected finite numbers only"
    if probabilities:
        assert ((score_N >= 0.0) & (score_N <= 1.0)).all(), "expected probabilities in [0, 1]"
    return label_N, score_N


def _evaluated(ranks: ArrayLike) -> NDArray[np.float64]:
    """Return ranks without those not evaluated; a miss is an infinite rank."""
    rank_M = np.asarray(ranks, np.float64)
    rank_M = rank_M[rank_M != 0]
    return np.where(rank_M < 0, np.inf, rank_M)
