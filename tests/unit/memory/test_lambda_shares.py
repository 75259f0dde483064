"""Lambda by shares: 0 while it has half of the weight, and soon another when that gains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from domain.errors import ModelError
from memory.config import MemoryConfig
from memory.lambda_choice import LambdaChoice
from memory.lambda_shares import FixedShares

# The memory says "0.4 more than the base says"; the base says 0.3.
BASE, ERROR = 0.3, 0.4
ONE = np.ones((1, 1), np.float32)


def make_shares(num_heads: int = 1, **settings: Any) -> FixedShares:
    return FixedShares(MemoryConfig(lambda_rule="shares", **settings), num_heads)


def observe(shares: FixedShares, true_rate: float, num_examples: int, seed: int = 0) -> set[float]:
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(num_examples // 100):
        labels_NH = (rng.random((100, 1)) < true_rate).astype(np.float32)
        base_NH = np.full((100, 1), BASE, np.float32)
        shares.observe(base_NH, np.full((100, 1), ERROR, np.float32), labels_NH)
        seen.add(float(shares.lambdas[0]))
    return seen


def test_lambda_is_zero_before_anything_was_observed_and_where_nothing_else_may_be() -> None:
    assert make_shares(num_heads=3).lambdas.tolist() == [0.0, 0.0, 0.0]
    alone = make_shares(lambda_grid=(0.0,))
    assert observe(alone, 0.7, 2_000) == {0.0}


def test_weights_are_bayes_rule_between_two_values() -> None:
    """A 1 has a probability of .3 at lambda 0 and .7 at 1; from halves to 3/10 and 7/10."""
    shares = make_shares(lambda_grid=(0.0, 1.0), lambda_switch_rate=1e-9)
    shares.observe(ONE * BASE, ONE * ERROR, ONE)
    np.testing.assert_allclose(shares.save()["weights"][:, 0], [0.3, 0.7], rtol=1e-6)
    assert shares.lambdas[0] == pytest.approx(0.7)
    shares.observe(ONE * BASE, ONE * ERROR, ONE * 0)
    np.testing.assert_allclose(shares.save()["weights"][:, 0], [0.5, 0.5], rtol=1e-6)
    assert shares.lambdas[0] == 0.0, "0 has half of the weight"


def test_weight_is_dealt_out_anew_at_the_switch_rate() -> None:
    shares = make_shares(lambda_grid=(0.0, 0.5, 1.0), lambda_switch_rate=0.1)
    for _ in range(200):
        shares.observe(ONE * BASE, ONE * ERROR, ONE)
    weight_G = shares.save()["weights"][:, 0]
    assert weight_G.sum() == pytest.approx(1.0)
    assert weight_G[0] > 0.5 * 0.1 * 0.99, "half of what is dealt out goes to 0"


@pytest.mark.parametrize("true_rate", [0.2, 0.3])
def test_lambda_stays_zero_when_the_memory_is_wrong(true_rate: float) -> None:
    assert observe(make_shares(), true_rate, 50_000) == {0.0}


def test_lambda_comes_near_the_best_value_and_back_to_zero() -> None:
    shares = make_shares()
    observe(shares, 0.46, 20_000)  # .3 + .4 * .4
    assert shares.lambdas[0] == pytest.approx(0.4, abs=0.1)
    observe(shares, 0.3, 2_000)
    assert shares.lambdas[0] == 0.0


def test_a_drift_is_answered_as_soon_after_a_long_quiet_time() -> None:
    shares = make_shares()
    observe(shares, 0.3, 50_000)
    assert observe(shares, 0.7, 300) - {0.0}


def test_heads_choose_apart_and_unknown_labels_change_no_bit() -> None:
    shares = make_shares(num_heads=2)
    before_G = shares.save()["weights"][:, 0].copy()
    rng = np.random.default_rng(0)
    for _ in range(30):
        labels_NH = np.full((100, 2), np.nan, np.float32)
        labels_NH[:, 1] = rng.random(100) < 0.7
        base_NH = np.full((100, 2), BASE, np.float32)
        shares.observe(base_NH, np.full((100, 2), ERROR, np.float32), labels_NH)
    assert shares.lambdas[0] == 0.0
    assert shares.lambdas[1] > 0.9
    assert shares.save()["weights"][:, 0].tobytes() == before_G.tobytes()


def test_load_refuses_when_grid_rule_or_heads_differ() -> None:
    state = make_shares().save()
    with pytest.raises(ModelError, match=r"memory\.lambda_grid: expected \[0\.0, 0\.5\] by shares"):
        make_shares(lambda_grid=(0.0, 0.5)).load(state)
    with pytest.raises(ModelError, match="expected 2 label heads, got 1"):
        make_shares(num_heads=2).load(state)
    with pytest.raises(ModelError, match="by another rule as saved"):
        make_shares().load(LambdaChoice(MemoryConfig(), 1).save())
    with pytest.raises(ModelError, match="by another rule as saved"):
        LambdaChoice(MemoryConfig(), 1).load(state)
