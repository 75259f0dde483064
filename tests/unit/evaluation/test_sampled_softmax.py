"""The loss: a loop anyone can read, the torch form, and the compiled one, which agree."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from evaluation.sampled_softmax import draw_negatives, sampled_softmax, unit
from evaluation.sampled_softmax_kernel import fused_sampled_softmax

TAU = 0.05


def world(
    places: int = 7, drawn: int = 5, width: int = 6, rows: int = 9
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(places)
    query_PD = unit(torch.randn(places, width, generator=generator)).requires_grad_()
    item_VD = unit(torch.randn(rows, width, generator=generator)).requires_grad_()
    target_P = torch.randint(1, rows, (places,), generator=generator)
    negative_PR = draw_negatives(places, drawn, rows - 1, generator)
    return query_PD, item_VD, target_P, negative_PR


def test_loss_is_the_formula_place_by_place() -> None:
    query_PD, item_VD, target_P, negative_PR = world()
    assert (negative_PR == target_P[:, None]).any(), "the case of an equal draw must be there"
    cosine_PV = (query_PD @ item_VD.T).tolist()
    total = 0.0
    for place, target in enumerate(target_P.tolist()):
        own = math.exp(cosine_PV[place][target] / TAU)
        others = sum(
            math.exp(cosine_PV[place][row] / TAU)
            for row in negative_PR[place].tolist()
            if row != target
        )
        total -= math.log(own / (own + others))
    found = sampled_softmax(query_PD, item_VD, target_P, negative_PR, TAU)
    assert found.item() == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize(("places", "drawn", "width"), [(7, 5, 6), (1, 1, 1), (40, 128, 50)])
def test_compiled_form_gives_the_loss_and_the_gradients_of_its_twin(
    places: int, drawn: int, width: int
) -> None:
    grads = []
    for form in (sampled_softmax, fused_sampled_softmax):
        query_PD, item_VD, target_P, negative_PR = world(places, drawn, width)
        loss = form(query_PD, item_VD, target_P, negative_PR, TAU)
        (loss * 0.25).backward()
        grads.append((loss.detach(), query_PD.grad, item_VD.grad))
    for ours, twin in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(ours, twin, rtol=2e-4, atol=2e-5)


def test_compiled_form_does_not_hide_what_is_not_finite() -> None:
    query_PD, item_VD, target_P, negative_PR = world()
    query_PD.data[2, 1] = math.nan
    loss = fused_sampled_softmax(query_PD, item_VD, target_P, negative_PR, TAU)
    assert not math.isfinite(loss.item())


def test_draws_are_candidates_only_and_uniform() -> None:
    drawn = draw_negatives(2_000, 16, 8, torch.Generator().manual_seed(1))
    counts = torch.bincount(drawn.flatten(), minlength=10)
    assert counts[0] == counts[9] == 0
    # 4,000 expected of each; the deviation is 59.
    assert (counts[1:9] - 4_000).abs().max() < 300


def test_unit_leaves_zero_at_zero() -> None:
    assert unit(torch.zeros(1, 3)).tolist() == [[0.0, 0.0, 0.0]]
    assert unit(torch.tensor([[3.0, 4.0]])).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]
