"""Negatives: which columns the softmax runs over, and that sampling them does not bias it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domain.errors import ConfigError
from retrieval.losses import softmax_loss
from retrieval.negatives import NegativeSampler, NegativesConfig

CHANCES = np.array([0.5, 0.25, 0.15, 0.1, 0.0])
"""How often the stream takes each of five items; the last one is in the catalog and never taken."""


def sampler_after(num_actions: int, config: NegativesConfig) -> NegativeSampler:
    sampler = NegativeSampler(config, np.random.default_rng(1))
    sampler.grow(len(CHANCES))
    stream = np.random.default_rng(2).choice(len(CHANCES), size=num_actions, p=CHANCES)
    sampler.learn(stream)
    return sampler


def test_small_catalog_is_scored_completely() -> None:
    sampler = sampler_after(10, NegativesConfig(full_softmax_items=5))
    columns = sampler.columns(np.array([3, 1]), np.ones(5, np.bool_))
    assert columns.rows is None
    assert columns.correction_C is None
    assert columns.target_B.tolist() == [3, 1]


def test_items_taken_out_are_no_negatives_of_the_full_softmax() -> None:
    sampler = sampler_after(10, NegativesConfig(full_softmax_items=5))
    available = np.array([True, False, True, True, True])
    columns = sampler.columns(np.array([0]), available)
    assert columns.correction_C is not None
    assert np.isneginf(columns.correction_C).tolist() == [False, True, False, False, False]


def test_items_taken_out_are_never_drawn() -> None:
    sampler = sampler_after(200, NegativesConfig(full_softmax_items=0))
    available = np.array([True, False, True, True, True])
    columns = sampler.columns(np.array([0]), available)
    assert columns.rows is not None
    assert 1 not in columns.rows


def test_sampled_columns_hold_every_target() -> None:
    sampler = sampler_after(50, NegativesConfig(full_softmax_items=0, uniform=1))
    targets = np.array([4, 0, 4])
    columns = sampler.columns(targets, np.ones(5, np.bool_))
    assert columns.rows is not None
    assert columns.rows[columns.target_B].tolist() == targets.tolist()
    assert (np.diff(columns.rows) > 0).all()


BATCH, FROM_STREAM, UNIFORM = 16, 768, 256


def gradient_gap(*, knows_frequency: bool) -> float:
    """Return how far the mean gradient of the sampled loss is from that of the full one.

    Without knowing frequencies, all draws are taken for uniform ones.
    """
    config = NegativesConfig(
        full_softmax_items=0,
        reservoir=20_000,
        from_reservoir=FROM_STREAM,
        uniform=UNIFORM,
        frequency_rate=0.002,
    )
    sampler = sampler_after(20_000, config)
    draws = BATCH - 1 + FROM_STREAM + UNIFORM
    true_N = (BATCH - 1 + FROM_STREAM) * CHANCES + UNIFORM / len(CHANCES)
    rng = np.random.default_rng(3)
    logits_N = torch.tensor([0.3, -0.5, 1.2, 0.1, 0.8], requires_grad=True)
    gap_N = torch.zeros(5)
    rounds = 200
    for _ in range(rounds):
        targets = rng.choice(len(CHANCES), size=BATCH, p=CHANCES)
        columns = sampler.columns(targets, np.ones(5, np.bool_))
        assert columns.rows is not None
        assert columns.correction_C is not None
        correction_C = torch.from_numpy(columns.correction_C)
        if not knows_frequency:
            as_if_uniform_C = true_N[columns.rows] / (draws / len(CHANCES))
            correction_C = correction_C + torch.from_numpy(np.log(as_if_uniform_C)).float()
        sampled = softmax_loss(
            logits_N[torch.from_numpy(columns.rows)].expand(BATCH, -1),
            torch.from_numpy(columns.target_B),
            correction_C,
        )
        full = softmax_loss(logits_N.expand(BATCH, -1), torch.from_numpy(targets), None)
        (gradient_N,) = torch.autograd.grad(sampled - full, logits_N)
        gap_N += gradient_N / rounds
    return float(gap_N.abs().max())


def test_logq_correction_makes_the_expected_gradient_that_of_the_full_softmax() -> None:
    assert gradient_gap(knows_frequency=True) < 0.008  # usually 0.002
    assert gradient_gap(knows_frequency=False) > 0.1


def test_loss_ignores_the_correction_of_the_own_target() -> None:
    logits_BC = torch.tensor([[1.0, 2.0, 0.5]])
    correction_C = torch.tensor([-5.0, 0.0, 0.0])
    got = softmax_loss(logits_BC, torch.tensor([0]), correction_C)
    expected = softmax_loss(logits_BC, torch.tensor([0]), None)
    assert float(got) == float(expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"uniform": 0}, "retrieval.negatives.uniform must be at least 1, got 0"),
        ({"full_softmax_items": -1}, "retrieval.negatives.full_softmax_items must not"),
        ({"frequency_rate": 0.0}, "retrieval.negatives.frequency_rate must be in"),
    ],
)
def test_negatives_config_names_the_key_that_is_wrong(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        NegativesConfig(**settings)  # type: ignore[arg-type]
