"""Sampled softmax: the item that came next against items drawn at random, cosine over temperature.

Loss of the research trainer of arXiv 2402.17152: for each place, R candidates drawn uniformly with
replacement; no correction for their chances; items the user has seen are not left out; a drawn item
that equals the place's own target counts for nothing.

Shape legend: P places of all users, R drawn items per place, D width, V rows of the item table.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

NOT_DRAWN = -5e4
"""Logit of a drawn item that is the target itself, as published; exp of it is 0."""
_MIN_NORM = 1e-6


def unit(x: Tensor) -> Tensor:
    """Return x / max(|x|, 1e-6) over the last axis."""
    return functional.normalize(x, dim=-1, eps=_MIN_NORM)


def draw_negatives(num_places: int, per_place: int, num_candidates: int,
                   generator: torch.Generator) -> Tensor:  # fmt: skip
    """Return rows of candidates, (P, R): uniform, with replacement, anew for every place."""
    size = (num_places, per_place)
    return torch.randint(1, num_candidates + 1, size, generator=generator, device=generator.device)


def sampled_softmax(
    query_PD: Tensor, item_VD: Tensor, target_P: Tensor, negative_PR: Tensor, temperature: float
) -> Tensor:
    """Return the sum over places of -log softmax of the target among it and what was drawn.

    Args:
        query_PD: unit vectors, what the model says of each place.
        item_VD: unit vectors, row 0 is padding.
        target_P: row of what came next.
        negative_PR: rows drawn.
        temperature: what cosines are divided by.
    """
    positive_P1 = (query_PD * item_VD[target_P]).sum(dim=-1, keepdim=True) / temperature
    drawn_PR = torch.einsum("pd,prd->pr", query_PD, item_VD[negative_PR]) / temperature
    drawn_PR = drawn_PR.masked_fill(negative_PR == target_P[:, None], NOT_DRAWN)
    logits_PX = torch.cat((positive_P1, drawn_PR), dim=1)
    return (logits_PX.logsumexp(dim=1) - positive_P1.squeeze(1)).sum()
