"""The training loss, and the weights that make provisional labels honest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ranking.losses import example_weights, ranking_loss


def loss_of(logits: Tensor, labels: Tensor, provisional: bool = False) -> Tensor:
    weights = example_weights(logits, labels, torch.full((len(labels),), provisional))
    return ranking_loss(logits, labels, weights, torch.ones(labels.shape[1]))


def test_loss_is_cross_entropy_when_all_labels_are_final() -> None:
    logits, labels = torch.tensor([[0.3], [-1.2]]), torch.tensor([[1.0], [0.0]])
    p = torch.sigmoid(logits)
    expected = -(math.log(p[0, 0]) + math.log(1 - p[1, 0])) / 2
    assert float(loss_of(logits, labels)) == pytest.approx(expected, rel=1e-6)


def test_unknown_label_has_no_loss_and_no_gradient() -> None:
    logits = torch.tensor([[0.3, 5.0]], requires_grad=True)
    loss_of(logits, torch.tensor([[1.0, math.nan]])).backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0.0
    assert logits.grad[0, 0] != 0.0


def test_head_weights_scale_their_head() -> None:
    logits, labels = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    weights = torch.ones(1, 2)
    loss = ranking_loss(logits, labels, weights, torch.tensor([1.0, 3.0]))
    assert float(loss) == pytest.approx(4 * math.log(2))


@pytest.mark.parametrize(
    ("label", "expected"), [(1.0, 1 + 0.3), (0.0, (1 - 0.3) * (1 + 0.3)), (math.nan, 0.0)]
)
def test_provisional_weights_are_those_of_fake_negative_weighting(
    label: float, expected: float
) -> None:
    logit = torch.tensor([[math.log(0.3 / 0.7)]])
    weight = example_weights(logit, torch.tensor([[label]]), torch.tensor([True]))
    assert float(weight) == pytest.approx(expected, rel=1e-6)


def fitted_rate(labels: list[float], provisional: bool) -> float:
    logit = torch.zeros(1, 1, requires_grad=True)
    column = torch.tensor(labels)[:, None]
    for _ in range(400):
        (gradient,) = torch.autograd.grad(
            loss_of(logit.expand(len(labels), 1), column, provisional), logit
        )
        with torch.no_grad():
            logit -= 2.0 * gradient
    return float(torch.sigmoid(logit.detach()))


def test_true_rate_is_learned_from_early_negatives_and_corrections() -> None:
    """Ten impressions, three clicked: every one is a "no" first, three of them a "yes" later."""
    stream = [0.0] * 10 + [1.0] * 3
    assert fitted_rate(stream, provisional=True) == pytest.approx(0.3, abs=1e-3)
    assert fitted_rate(stream, provisional=False) == pytest.approx(3 / 13, abs=1e-3)


def test_unsampled_rate_is_learned_from_sampled_negatives() -> None:
    """One in ten of the negatives is kept: odds in the sample are ten times those of the stream."""
    rng = np.random.default_rng(0)
    clicked = rng.random(20_000) < 0.02
    kept = clicked | (rng.random(20_000) < 0.1)
    labels = torch.from_numpy(clicked[kept].astype(np.float32))[:, None]
    logit = torch.zeros(1, 1, requires_grad=True)
    ones = torch.ones_like(labels)
    for _ in range(300):
        shifted = logit.expand(len(labels), 1) - math.log(0.1)
        (gradient,) = torch.autograd.grad(ranking_loss(shifted, labels, ones, torch.ones(1)), logit)
        with torch.no_grad():
            logit -= 2.0 * gradient
    assert float(torch.sigmoid(logit.detach())) == pytest.approx(clicked.mean(), abs=2e-3)
