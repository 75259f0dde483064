"""The prior: what the counts say, and what learned weights make of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from domain.errors import ConfigError
from retrieval.prior import PriorConfig, StreamingPrior
from retrieval.prior_weights import PriorWeights

HOUR_MS = 3_600_000
CONFIG = PriorConfig(
    popularity_half_lives_ms=(HOUR_MS,), transition_half_lives_ms=(HOUR_MS,), num_recent=2
)


@pytest.fixture
def prior() -> StreamingPrior:
    """Row 0, then 1, 1, 2 by others, then 0 -> 3, all at time 0."""
    prior = StreamingPrior(CONFIG)
    prior.grow(5)
    rows, last = np.array([0, 1, 1, 2, 3]), np.array([-1, -1, -1, -1, 0])
    prior.learn(rows, last, np.zeros(5, np.int64))
    return prior


def test_shares_are_relative_to_an_average_item(prior: StreamingPrior) -> None:
    np.testing.assert_allclose(prior.shares(None, 5)[0], [1.0, 2.0, 1.0, 1.0, 0.0])


def test_pairs_name_the_successor_and_the_recency_it_follows(prior: StreamingPrior) -> None:
    recent_BK = np.array([[-1, -1], [2, 0], [0, -1]])
    features = prior.features(recent_BK, np.zeros(3, np.int64), None, 5)
    assert features.pair_user.tolist() == [1, 2]
    assert features.pair_column.tolist() == [3, 3]
    share = 5 / 1.3
    np.testing.assert_allclose(features.pair_values_PF, [[0.0, share], [share, 0.0]], rtol=1e-6)


def test_item_that_follows_both_recent_items_is_one_pair(prior: StreamingPrior) -> None:
    prior.learn(np.array([3]), np.array([1]), np.zeros(1, np.int64))
    features = prior.features(np.array([[0, 1]]), np.zeros(1, np.int64), None, 1)
    assert features.pair_column.tolist() == [3]
    np.testing.assert_allclose(features.pair_values_PF, [[1 / 1.3, 1 / 1.3]], rtol=1e-6)


@pytest.mark.parametrize("rows", [[1, 3], [0, 4], [3], []])
def test_features_of_chosen_rows_are_those_of_all(prior: StreamingPrior, rows: list[int]) -> None:
    recent_BK, times = np.array([[0, -1], [2, 0]]), np.zeros(2, np.int64)
    everything = prior.features(recent_BK, times, None, 5)
    chosen = prior.features(recent_BK, times, np.array(rows, np.int64), 5)
    np.testing.assert_array_equal(chosen.shares_HR, everything.shares_HR[:, rows])
    expected = {
        (user, column): value
        for user, column, value in zip(
            everything.pair_user.tolist(),
            everything.pair_column.tolist(),
            everything.pair_values_PF.tolist(),
            strict=True,
        )
        if column in rows
    }
    got = {
        (user, rows[column]): value
        for user, column, value in zip(
            chosen.pair_user.tolist(),
            chosen.pair_column.tolist(),
            chosen.pair_values_PF.tolist(),
            strict=True,
        )
    }
    assert got == expected


def test_weights_give_the_formula_written_by_hand() -> None:
    weights = PriorWeights(CONFIG)
    with torch.no_grad():
        weights.scale.fill_(0.7)
        weights.log_eps.fill_(math.log(0.2))
        weights.log_weights_F.copy_(torch.tensor([0.5, 0.25]).log())
    base = weights.item_part(torch.tensor([[3.0]]))
    bonus = weights.pair_bonus(torch.tensor([[3.0]]), torch.tensor([[2.0, 4.0]]))
    np.testing.assert_allclose(float(base.detach()), 0.7 * math.log(3.2), rtol=1e-6)
    both = 0.7 * math.log(3.0 + 0.5 * 2.0 + 0.25 * 4.0 + 0.2)
    np.testing.assert_allclose(float((base + bonus).detach()), both, rtol=1e-6)


def test_blend_of_half_lives_sums_to_one() -> None:
    blend = PriorWeights(PriorConfig()).blend().detach()
    np.testing.assert_allclose(float(blend.sum()), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"popularity_half_lives_ms": ()}, "retrieval.prior.popularity_half_lives_ms must"),
        ({"transition_half_lives_ms": (0,)}, "retrieval.prior.transition_half_lives_ms must"),
        ({"num_recent": 0}, "retrieval.prior.num_recent must be positive, got 0"),
        ({"smoothing": 0.0}, "retrieval.prior.smoothing must be positive, got 0.0"),
    ],
)
def test_config_names_the_key_that_is_wrong(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PriorConfig(**settings)  # type: ignore[arg-type]
