"""The training loss: cross-entropy per head, for labels that are late, sampled or unknown.

Shape legend: M examples, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def example_weights(logits_MH: Tensor, labels_MH: Tensor, provisional_M: Tensor) -> Tensor:
    """Return the weight of each (example, head); 0 where the label is unknown.

    A provisional example is an early negative, or the correction that may follow it. Such a stream
    holds every positive twice, once as a negative; weighing positives by 1 + p and negatives by
    (1 - p)(1 + p), with p the model's own estimate taken as a constant, gives the gradient of the
    true labels back ("fake negative weighted", Ktena et al., RecSys 2019, equation 8).
    """
    p_MH = torch.sigmoid(logits_MH.detach())
    late_MH = torch.where(labels_MH > 0.5, 1 + p_MH, (1 - p_MH) * (1 + p_MH))
    weights_MH = torch.where(provisional_M[:, None], late_MH, torch.ones_like(p_MH))
    return torch.where(torch.isnan(labels_MH), 0.0, weights_MH)


def ranking_loss(
    logits_MH: Tensor, labels_MH: Tensor, weights_MH: Tensor, head_weights_H: Tensor
) -> Tensor:
    """Return the weighted cross-entropy, summed over heads and averaged over the M examples.

    Args:
        logits_MH: logits of the stream the labels come from: with negatives sampled at rate r, the
            model's logit minus ln r.
        labels_MH: 0 or 1; whatever stands where the weight is 0 is ignored.
        weights_MH: see `example_weights`.
        head_weights_H: how much each head counts.
    """
    known_MH = torch.where(weights_MH > 0, labels_MH, 0.0)
    losses_MH = binary_cross_entropy_with_logits(logits_MH, known_MH, reduction="none")
    # where, not times: 0 * NaN would let an unknown label's value through.
    losses_MH = torch.where(weights_MH > 0, losses_MH * weights_MH, 0.0)
    return (losses_MH * head_weights_H).sum(dim=1).mean()
