"""Normalisation of one vector at a time, without learned gain or shift."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

_EPSILON = 1e-6


def rms_norm(x: Tensor) -> Tensor:
    """Return x / sqrt(mean(x^2) + 1e-6) over the last axis."""
    return functional.rms_norm(x, (x.shape[-1],), eps=_EPSILON)


def layer_norm(x: Tensor, epsilon: float = _EPSILON) -> Tensor:
    """Return (x - mean) / sqrt(variance + epsilon) over the last axis."""
    return functional.layer_norm(x, (x.shape[-1],), eps=epsilon)
