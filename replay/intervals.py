"""Bootstrap over users: how far a number would move had other users come by.

Impressions of one user hang together, so users are drawn, not impressions. A draw gives each user a
weight (how often she was drawn); every measure is computed from weighted sums, all scores under the
same draws, so that the difference of two scores has an interval of its own (Efron and Tibshirani,
An Introduction to the Bootstrap, 1993, percentile intervals).

What it does not know: another seed of the same model. Only users are drawn, see `replay.compare`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from monitoring import quality

METRICS = ("auc", "gauc", "naive_gauc", "ne", "log_loss", "calibration", "ece")
"""Measures of a head, in the order of the columns of `Draws`."""

CALIBRATION_BINS = 15
_TAIL = 2.5
_LEAST_DEFINED = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapConfig:
    """How many draws an interval rests on.

    Attributes:
        num_draws: draws of users; 200 give the ends of a 95 % interval to about a tenth of its
            width. 0 leaves intervals out.
        seed: seed of the draws; equal seeds over equal users are equal draws.
    """

    num_draws: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_draws < 0:
            raise ConfigError(f"bootstrap.num_draws must not be negative, got {self.num_draws}")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; what is None has its reason beside it.

    Attributes:
        reason: why there is no value, or no interval; "" when there are both.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""

    def to_plain(self) -> dict[str, float | str | None]:
        """Return JSON values; the reason only where there is one."""
        plain: dict[str, float | str | None] = {
            "value": self.value,
            "low": self.low,
            "high": self.high,
        }
        return plain | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """N examples of one head with known labels, and who saw them in which session."""

    label_N: NDArray[np.floating]
    session_N: NDArray[np.integer]
    user_N: NDArray[np.integer]

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Examples:
        """Return some of the examples."""
        return Examples(self.label_N[rows], self.session_N[rows], self.user_N[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """The measures of one score: over all users, and under each of D draws; NaN is undefined.

    Attributes:
        value_M: the measures in the order of their names.
        draw_DM: the same under each draw.
    """

    value_M: NDArray[np.float64]
    draw_DM: NDArray[np.float64]


def user_weights(num_users: int, config: BootstrapConfig) -> Iterator[NDArray[np.float64]]:
    """Yield, for each draw, how often each of U users was drawn, float64 (U,)."""
    if num_users < 2:
        return
    generator = np.random.default_rng(config.seed)
    for _ in range(config.num_draws):
        drawn = generator.integers(0, num_users, num_users)
        yield np.bincount(drawn, minlength=num_users).astype(np.float64)


def draw_measures(
    examples: Examples, scores: Mapping[str, NDArray[np.floating]], config: BootstrapConfig
) -> dict[str, Draws]:
    """Return the measures (`METRICS`) of every score, all under the same draws of users.

    Args:
        examples: N examples.
        scores: probabilities (N,) by name.
        config: how many draws.
    """
    users, code_N = np.unique(examples.user_N, return_inverse=True)
    sums = {
        name: _UserSums(examples, score_N, code_N, len(users)) for name, score_N in scores.items()
    }
    ones_U = np.ones(len(users))
    values = {name: one.measures(ones_U) for name, one in sums.items()}
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in scores}
    if len(code_N):
        for weight_U in user_weights(len(users), config):
            for name, one in sums.items():
                drawn[name].append(one.measures(weight_U))
    return {
        name: Draws(values[name], np.array(drawn[name]).reshape(-1, len(METRICS)))
        for name in scores
    }


class _UserSums:
    """What a user adds to each measure, so that a draw costs one product and one pass."""

    def __init__(
        self,
        examples: Examples,
        scores: NDArray[np.floating],
        code_N: NDArray[np.integer],
        num_users: int,
    ) -> None:
        label_N = np.asarray(examples.label_N, np.float64)
        score_N = np.asarray(scores, np.float64)

        def per_user(value_N: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.bincount(code_N, value_N, num_users).astype(np.float64, copy=False)

        size_G, auc_G = quality.auc_per_group(label_N, score_N, examples.session_N)
        # A session belongs to one user; sessions of one class have no say (NaN -> 0, weight 0).
        speaks_G = ~np.isnan(auc_G)
        _, first_G = np.unique(examples.session_N, return_index=True)
        owner_G = code_N[first_G]
        weight_G = np.where(speaks_G, size_G, 0).astype(np.float64)
        size_U, naive_U = quality.auc_per_group(label_N, score_N, code_N)
        naive_weight_U = np.where(np.isnan(naive_U), 0, size_U).astype(np.float64)
        columns = [
            per_user(np.ones(len(label_N))),
            per_user(label_N),
            per_user(score_N),
            per_user(quality.log_losses(label_N, score_N)),
            np.bincount(owner_G, weight_G * np.nan_to_num(auc_G), minlength=num_users),
            np.bincount(owner_G, weight_G, minlength=num_users),
            naive_weight_U * np.nan_to_num(naive_U),
            naive_weight_U,
        ]
        bin_N = quality.calibration_bins(score_N, CALIBRATION_BINS)
        cell_N = code_N * CALIBRATION_BINS + bin_N
        gap = np.bincount(cell_N, score_N - label_N, minlength=num_users * CALIBRATION_BINS)
        gap_UC = gap.reshape(num_users, CALIBRATION_BINS)
        self._sum_US = np.concatenate([np.stack(columns, axis=1), gap_UC], axis=1)
        self._sort(label_N, score_N, code_N)

    def _sort(
        self,
        label_N: NDArray[np.float64],
        score_N: NDArray[np.float64],
        code_N: NDArray[np.integer],
    ) -> None:
        order_N = np.argsort(score_N, kind="stable")
        sorted_N = score_N[order_N]
        opens_N = np.ones(len(order_N), bool)
        opens_N[1:] = sorted_N[1:] != sorted_N[:-1]
        level_N = np.cumsum(opens_N) - 1
        positive_N = label_N[order_N] == 1.0
        self._num_levels = int(opens_N.sum())
        self._positive_user = code_N[order_N][positive_N]
        self._negative_user = code_N[order_N][~positive_N]
        self._positive_level = level_N[positive_N]
        self._negative_level = level_N[~positive_N]

    def measures(self, weight_U: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the measures when each user counts as often as her weight says."""
        count, positives, score, loss, gauc, speaking, *rest = weight_U @ self._sum_US
        naive, mixed_users, *gaps = rest
        mixed = 0.0 < positives < count
        return np.array(
            [
                self._auc(weight_U),
                gauc / speaking if speaking > 0 else np.nan,
                naive / mixed_users if mixed_users > 0 else np.nan,
                loss / count / quality.entropy(positives / count) if mixed else np.nan,
                loss / count if count > 0 else np.nan,
                score / positives if positives > 0 else np.nan,
                float(np.abs(gaps).sum() / count) if count > 0 else np.nan,
            ]
        )

    def _auc(self, weight_U: NDArray[np.float64]) -> float:
        size = self._num_levels
        positives_L = np.bincount(self._positive_level, weight_U[self._positive_user], size)
        negatives_L = np.bincount(self._negative_level, weight_U[self._negative_user], size)
        value = quality.auc_of_levels(positives_L, negatives_L)
        return np.nan if value is None else value


def draw_means(
    gain_NM: NDArray[np.floating], user_N: NDArray[np.integer], config: BootstrapConfig
) -> Draws:
    """Return the mean of each column of gains, and under draws of users."""
    users, code_N = np.unique(user_N, return_inverse=True)
    columns = [np.ones(len(code_N)), *np.asarray(gain_NM, np.float64).T]
    sum_US = np.stack([np.bincount(code_N, one, minlength=len(users)) for one in columns], axis=1)
    num_measures = gain_NM.shape[1]

    def means(weight_U: NDArray[np.float64]) -> NDArray[np.float64]:
        count, *totals = weight_U @ sum_US
        return np.asarray(totals, np.float64) / float(count)

    if not len(code_N):
        return Draws(np.full(num_measures, np.nan), np.zeros((0, num_measures)))
    drawn = [means(weight_U) for weight_U in user_weights(len(users), config)]
    value_M = means(np.ones(len(users)))
    return Draws(value_M, np.array(drawn).reshape(-1, num_measures))


def estimate(value: float, draw_D: NDArray[np.float64], reason: str) -> Estimate:
    """Return a number with the middle 95 % of what the draws made of it.

    Args:
        value: NaN when it is undefined.
        draw_D: the same under each draw, NaN where it is undefined.
        reason: why the value is undefined, should it be.
    """
    if np.isnan(value):
        return Estimate(None, reason=reason)
    defined_D = draw_D[~np.isnan(draw_D)]
    if len(draw_D) == 0:
        return Estimate(float(value), reason="no interval: fewer than two users to draw from")
    if len(defined_D) < _LEAST_DEFINED * len(draw_D):
        return Estimate(float(value), reason="no interval: too few users have what it needs")
    low, high = np.percentile(defined_D, [_TAIL, 100.0 - _TAIL])
    return Estimate(float(value), float(low), float(high))


def head_estimates(
    examples: Examples, scores: Mapping[str, NDArray[np.floating]], config: BootstrapConfig
) -> dict[str, dict[str, Estimate]]:
    """Return every measure of every score with its interval, `{score: {metric: estimate}}`."""
    reasons = missing_reasons(examples)
    return {
        name: {
            metric: estimate(draws.value_M[at], draws.draw_DM[:, at], reasons[metric])
            for at, metric in enumerate(METRICS)
        }
        for name, draws in draw_measures(examples, scores, config).items()
    }


def missing_reasons(examples: Examples) -> dict[str, str]:
    """Return, for each measure, why it could not be computed over these examples, in words."""
    count, positives = len(examples.label_N), int(np.sum(examples.label_N == 1.0))
    if count == 0:
        return dict.fromkeys(METRICS, "no example has a known label")
    kind = "1" if positives else "0"
    labels = "the only label is" if count == 1 else f"all {count:,} labels are"
    one_class = f"{labels} {kind}: nothing to tell apart"
    return {
        "auc": one_class,
        "gauc": "no session has both a positive and a negative label",
        "naive_gauc": "no user has both a positive and a negative label",
        "ne": one_class,
        "log_loss": "",
        "calibration": "no label is positive: nothing to divide by",
        "ece": "",
    }
