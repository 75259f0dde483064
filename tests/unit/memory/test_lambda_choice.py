"""Lambda is 0 until labels show that another value would have helped, and 0 again afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from domain.errors import ModelError
from memory.config import MemoryConfig
from memory.lambda_choice import LambdaChoice

# The memory says "0.4 more than the base says"; the base says 0.3.
BASE, ERROR = 0.3, 0.4


def make_choice(num_heads: int = 1, **settings: Any) -> LambdaChoice:
    return LambdaChoice(MemoryConfig(**settings), num_heads)


def observe(choice: LambdaChoice, true_rate: float, num_examples: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(num_examples // 100):
        labels_NH = (rng.random((100, 1)) < true_rate).astype(np.float32)
        base_NH = np.full((100, 1), BASE, np.float32)
        choice.observe(base_NH, np.full((100, 1), ERROR, np.float32), labels_NH)


def test_lambda_is_zero_when_nothing_was_observed() -> None:
    assert make_choice(num_heads=3).lambdas.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("true_rate", "expected"), [(0.3, 0.0), (0.2, 0.0), (0.46, 0.4), (0.7, 1.0)]
)
def test_lambda_finds_the_best_value_when_the_memory_is_partly_right(
    true_rate: float, expected: float
) -> None:
    """The true rate is base + lambda * error: 0.46 = 0.3 + 0.4 * 0.4 and 0.7 = 0.3 + 1 * 0.4."""
    choice = make_choice()
    observe(choice, true_rate, 20_000)
    assert choice.lambdas[0] == pytest.approx(expected)


def test_lambda_waits_when_the_evidence_is_below_the_margin() -> None:
    """Each 1 is worth ln(0.7 / 0.3) = 0.85 nats to lambda 1, so the margin of 10 takes twelve."""
    choice = make_choice(lambda_margin=10.0)
    one = np.ones((1, 1), np.float32)
    for _ in range(11):
        choice.observe(one * BASE, one * ERROR, one)
    assert choice.lambdas[0] == 0.0
    choice.observe(one * BASE, one * ERROR, one)
    assert choice.lambdas[0] == 1.0


def test_lambda_returns_to_zero_when_the_memory_stops_helping() -> None:
    choice = make_choice()
    observe(choice, 0.7, 100_000)
    assert choice.lambdas[0] == 1.0
    observe(choice, 0.3, 300)
    assert choice.lambdas[0] == 0.0


def test_lambda_is_dropped_when_zero_leads_not_only_when_it_leads_by_the_margin() -> None:
    """Each 0 takes 0.85 nats from lambda 1, which leads by no more than 10: twelve of them do."""
    choice = make_choice(lambda_margin=10.0, lambda_grid=(0.0, 1.0))
    observe(choice, 1.0, 1_000)
    one = np.ones((1, 1), np.float32)
    for _ in range(11):
        choice.observe(one * BASE, one * ERROR, one * 0)
    assert choice.lambdas[0] == 1.0
    choice.observe(one * BASE, one * ERROR, one * 0)
    assert choice.lambdas[0] == 0.0


def test_lambda_answers_as_fast_after_a_long_quiet_time_as_at_once() -> None:
    """Losses of a useless lambda are not saved up: a drift does not have to pay them back."""
    fresh, quiet = make_choice(), make_choice()
    observe(quiet, 0.3, 50_000)
    assert quiet.lambdas[0] == 0.0
    for choice in (fresh, quiet):
        observe(choice, 0.7, 500, seed=1)
        assert choice.lambdas[0] > 0.0


def test_heads_choose_apart_and_unknown_labels_count_for_nothing() -> None:
    choice = make_choice(num_heads=2)
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels_NH = np.full((100, 2), np.nan, np.float32)
        labels_NH[:, 1] = rng.random(100) < 0.7
        base_NH = np.full((100, 2), BASE, np.float32)
        choice.observe(base_NH, np.full((100, 2), ERROR, np.float32), labels_NH)
    assert choice.lambdas.tolist() == [0.0, 1.0]
    assert not choice.save()["evidence"][:, 0].any()


def test_a_confident_mistake_costs_a_bounded_loss() -> None:
    """Base 0.3 pushed to 0 by the memory, label 1: ln(0.3) - ln(1e-6) = 12.6 nats, not infinity."""
    choice = make_choice(lambda_margin=100.0)
    one = np.ones((1, 1), np.float32)
    choice.observe(one * BASE, one * -1.0, one)
    lost = choice.save()["evidence"][-1, 0]
    assert lost == pytest.approx(np.log(1e-6) - np.log(BASE), rel=1e-6)


def test_load_refuses_when_grid_or_heads_differ() -> None:
    state = make_choice().save()
    with pytest.raises(ModelError, match=r"memory\.lambda_grid: expected \[0\.0, 0\.5\]"):
        make_choice(lambda_grid=(0.0, 0.5)).load(state)
    with pytest.raises(ModelError, match="expected 2 label heads, got 1"):
        make_choice(num_heads=2).load(state)
