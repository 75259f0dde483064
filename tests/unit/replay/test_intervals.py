"""Bootstrap over users: against scikit-learn, against a slow twin, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from domain.errors import ConfigError
from monitoring import quality
from replay.intervals import (
    METRICS,
    BootstrapConfig,
    Examples,
    draw_means,
    draw_measures,
    estimate,
    head_estimates,
    user_weights,
)

AT = {name: at for at, name in enumerate(METRICS)}


def world(
    num_examples: int = 600, num_users: int = 30, seed: int = 3
) -> tuple[Examples, np.ndarray]:
    """Users who click more or less often, and scores that know a little; some scores tie."""
    rng = np.random.default_rng(seed)
    user_N = rng.integers(0, num_users, num_examples) * 7_919
    rate_N = 0.2 + 0.6 * ((user_N // 7_919) % 2)
    label_N = (rng.random(num_examples) < rate_N).astype(np.float32)
    score_N = np.round(0.25 + 0.5 * rng.random(num_examples) * rate_N, 2).astype(np.float32)
    session_N = user_N * 10 + rng.integers(0, 3, num_examples)
    return Examples(label_N, session_N, user_N), score_N


def obvious(examples: Examples, score_N: np.ndarray, weight: dict[int, float]) -> list[float]:
    """Every user's rows repeated as often as she was drawn, each time as another user."""
    labels, scores, sessions, drawn = [], [], [], []
    for user, times in weight.items():
        rows = np.flatnonzero(examples.user_N == user)
        for repeat in range(int(times)):
            labels += examples.label_N[rows].tolist()
            scores += score_N[rows].tolist()
            drawn += [1_000 * user + repeat] * len(rows)
            sessions += [(session, repeat) for session in examples.session_N[rows].tolist()]
    names = {session: at for at, session in enumerate(dict.fromkeys(sessions))}
    group = [names[session] for session in sessions]
    values = [
        quality.auc(labels, scores),
        quality.gauc(labels, scores, group),
        quality.naive_user_gauc(labels, scores, drawn),
        quality.normalized_entropy(labels, scores),
        quality.log_loss(labels, scores),
        quality.calibration_ratio(labels, scores),
        quality.expected_calibration_error(labels, scores),
    ]
    return [float("nan") if value is None else value for value in values]


def test_measures_without_a_draw_are_those_of_scikit_learn_and_of_quality() -> None:
    examples, score_N = world()
    found = draw_measures(examples, {"a": score_N}, BootstrapConfig(num_draws=0))["a"].value_M
    label_N = examples.label_N
    assert found[AT["auc"]] == pytest.approx(roc_auc_score(label_N, score_N))
    assert found[AT["log_loss"]] == pytest.approx(log_loss(label_N, score_N.astype(float)))
    weight = dict.fromkeys(np.unique(examples.user_N).tolist(), 1.0)
    assert found == pytest.approx(obvious(examples, score_N, weight))


def test_every_draw_is_what_repeating_the_drawn_users_rows_gives() -> None:
    examples, score_N = world(num_examples=200, num_users=12)
    config = BootstrapConfig(num_draws=8, seed=5)
    draws = draw_measures(examples, {"a": score_N}, config)["a"].draw_DM
    users = np.unique(examples.user_N).tolist()
    weights = list(user_weights(len(users), config))
    assert len(weights) == len(draws) == 8
    for weight_U, found in zip(weights, draws, strict=True):
        assert weight_U.sum() == len(users)
        weight = dict(zip(users, weight_U.tolist(), strict=True))
        assert found == pytest.approx(obvious(examples, score_N, weight))


def test_interval_of_a_mean_is_what_the_central_limit_theorem_says() -> None:
    rng = np.random.default_rng(1)
    gain_NM = rng.random((4_000, 1))
    draws = draw_means(gain_NM, np.arange(4_000), BootstrapConfig(num_draws=400))
    found = estimate(draws.value_M[0], draws.draw_DM[:, 0], "")
    half = 1.96 * gain_NM.std() / np.sqrt(4_000)
    assert found.value == pytest.approx(gain_NM.mean())
    assert found.low == pytest.approx(gain_NM.mean() - half, abs=0.2 * half)
    assert found.high == pytest.approx(gain_NM.mean() + half, abs=0.2 * half)


def test_users_are_drawn_and_not_their_rows() -> None:
    """A thousand copies of a user's only action make nobody surer."""
    gain = np.array([[0.0], [1.0], [1.0], [0.0], [1.0]])
    few = draw_means(gain, np.arange(5), BootstrapConfig())
    many = draw_means(np.repeat(gain, 1_000, 0), np.repeat(np.arange(5), 1_000), BootstrapConfig())
    assert few.draw_DM == pytest.approx(many.draw_DM)


def test_interval_repeats_under_a_seed_and_is_the_same_for_equal_scores() -> None:
    examples, score_N = world()
    one = head_estimates(examples, {"a": score_N, "b": score_N.copy()}, BootstrapConfig())
    again = head_estimates(examples, {"a": score_N}, BootstrapConfig())
    assert one["a"] == one["b"] == again["a"]
    other = head_estimates(examples, {"a": score_N}, BootstrapConfig(seed=1))
    assert other["a"]["auc"].value == again["a"]["auc"].value
    assert other["a"]["auc"].low != again["a"]["auc"].low


def test_every_value_lies_within_its_interval_on_a_plain_world() -> None:
    examples, score_N = world()
    for found in head_estimates(examples, {"a": score_N}, BootstrapConfig())["a"].values():
        assert found.reason == ""
        assert found.low is not None
        assert found.value is not None
        assert found.high is not None
        assert found.low < found.high
        assert found.low <= found.value <= found.high


# What cannot be computed


def few(labels: list[float], users: list[int]) -> dict[str, tuple[float | None, str]]:
    examples = Examples(np.array(labels), np.array(users, np.int64), np.array(users, np.int64))
    scores = np.full(len(labels), 0.5, np.float32)
    found = head_estimates(examples, {"a": scores}, BootstrapConfig(num_draws=20))["a"]
    return {name: (one.value, one.reason) for name, one in found.items()}


def test_no_example_gives_no_number_and_says_so() -> None:
    assert set(few([], []).values()) == {(None, "no example has a known label")}


def test_one_class_gives_no_auc_and_says_which_class() -> None:
    negative = few([0.0] * 40, list(range(40)))
    assert negative["auc"] == (None, "all 40 labels are 0: nothing to tell apart")
    assert negative["ne"] == negative["auc"]
    assert negative["gauc"] == (None, "no session has both a positive and a negative label")
    assert negative["naive_gauc"] == (None, "no user has both a positive and a negative label")
    assert negative["calibration"] == (None, "no label is positive: nothing to divide by")
    assert negative["log_loss"] == (pytest.approx(np.log(2)), "")
    positive = few([1.0] * 40, list(range(40)))
    assert positive["auc"] == (None, "all 40 labels are 1: nothing to tell apart")
    assert positive["calibration"] == (0.5, "")


def test_single_user_has_numbers_but_no_interval() -> None:
    found = few([1.0, 0.0, 1.0], [7, 7, 7])
    assert found["auc"] == (0.5, "no interval: fewer than two users to draw from")
    assert found["gauc"] == (0.5, "no interval: fewer than two users to draw from")


def test_number_that_hangs_on_few_users_has_no_interval() -> None:
    found = few([1.0, 0.0, *[0.0] * 8], [0, *range(1, 10)])
    assert found["auc"] == (0.5, "no interval: too few users have what it needs")


def test_negative_number_of_draws_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^bootstrap\.num_draws must not be negative, got -1"):
        BootstrapConfig(num_draws=-1)
