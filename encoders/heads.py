"""Splitting the channels of a row among attention heads."""

from __future__ import annotations

from torch import Tensor


def split_heads(x_BTX: Tensor, heads: int) -> Tensor:
    """Return (B, T, H, X / H)."""
    return x_BTX.reshape(*x_BTX.shape[:-1], heads, x_BTX.shape[-1] // heads)
