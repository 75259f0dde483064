"""The loss of retrieval: a softmax over the catalog, or over sampled columns of it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def softmax_loss(logits_BC: Tensor, target_B: Tensor, correction_C: Tensor | None) -> Tensor:
    """Return the mean of -log p(target) over B users.

    Args:
        logits_BC: float32, uncorrected scores.
        target_B: int64, column of each user's target.
        correction_C: float32, added to every logit that is not the user's target (see
            `retrieval.negatives`); None when there is nothing to correct.
    """
    if correction_C is not None:
        batch = torch.arange(len(target_B))
        correction_BC = correction_C.expand(len(target_B), -1).clone()
        correction_BC[batch, target_B] = 0.0
        logits_BC = logits_BC + correction_BC
    return functional.cross_entropy(logits_BC, target_B)
