"""AdaF2M2: fields weighted by what is known of user and item, and training on masked copies.

After "AdaF2M2: Comprehensive Learning and Responsive Leveraging Features in Recommendation System"
(DASFAA 2025). The paper leaves much open; each choice is an option here and its default was
measured. Two parts share the parameters of the network they are put on:

- the state-aware adapter weighs every field of an example, so that a cold user or item can lean on
  fields other than its id;
- feature masks make further copies of each training example in which fields at random are replaced
  by their learned defaults, and learn the label from those too.

Shape legend: M examples, F fields, D embedding width, K masked copies, S state signals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from domain.errors import ConfigError

Scale = Literal["sigmoid", "double_sigmoid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaF2M2Config:
    """The adapter and the masked forwards."""

    adapter: bool = True
    """Whether fields are weighed by state."""
    scale: Scale = "double_sigmoid"
    """"sigmoid": weights in (0, 1), as in the paper. "double_sigmoid": in (0, 2), so that training
    starts at weight 1, as if there were no adapter."""
    id_embeddings_in_state: bool = False
    """Whether the embeddings of user and item are state signals too."""
    id_gradient: bool = False
    """Whether gradients flow back into those embeddings through the state; open in the paper."""
    masked_forwards: int = 0
    """Masked copies of each example learned besides it."""
    masked_weight: float = 0.2
    """Weight of the masked copies' loss against the example's own."""
    mask_rate_min: float = 0.1
    """Least chance that a field is masked; the chance is drawn anew for every field and copy."""
    mask_rate_max: float = 0.5
    """Greatest chance that a field is masked."""
    mask_per_example: bool = True
    """Whether every example gets masks of its own, or the whole batch shares K masks."""
    masked_heads: bool = False
    """Whether the masked copies have output heads of their own; the layers below are shared."""

    def __post_init__(self) -> None:
        if self.id_gradient and not self.id_embeddings_in_state:
            raise ConfigError(
                "ranking.adaf2m2.id_gradient needs id_embeddings_in_state: no embedding is in the "
                "state that gradients could reach"
            )
        if self.scale not in ("sigmoid", "double_sigmoid"):
            raise ConfigError(
                f"ranking.adaf2m2.scale must be sigmoid or double_sigmoid, got {self.scale!r}"
            )
        if self.masked_forwards < 0:
            raise ConfigError(
                f"ranking.adaf2m2.masked_forwards must not be negative, got {self.masked_forwards}"
            )
        if self.masked_weight < 0.0:
            raise ConfigError(
                f"ranking.adaf2m2.masked_weight must not be negative, got {self.masked_weight}"
            )
        if not 0.0 <= self.mask_rate_min <= self.mask_rate_max <= 1.0:
            raise ConfigError(
                "ranking.adaf2m2.mask_rate_min and mask_rate_max must be ordered within 0 and 1, "
                f"got {self.mask_rate_min} and {self.mask_rate_max}"
            )


class StateAwareAdapter(nn.Module):
    """One weight per field (and for the history) from state signals."""

    def __init__(self, num_signals: int, num_weights: int, scale: Scale) -> None:
        super().__init__()
        self._factor = 2.0 if scale == "double_sigmoid" else 1.0
        self.linear = nn.Linear(num_signals, num_weights)
        # Equal weights at first: nothing is known yet of which field to trust.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, state_MS: Tensor) -> Tensor:
        """Return (M, F) weights."""
        weights: Tensor = self._factor * torch.sigmoid(self.linear(state_MS))
        return weights


NUM_NORM_SIGNALS = 3
_SMALLEST_NORM, _LARGEST_NORM = 1e-7, 1e7
_LARGEST_LOG_COUNT = 10.0
"""Counts are told apart up to e^10, 22,000."""


def norm_signals(embedding_MD: Tensor) -> Tensor:
    """Return three bounded signals of each row's norm n, (M, 3); no gradient flows back.

    A norm tells how much an id has learned: rows start at zero and grow with evidence. The signals
    grow with ln n, sqrt n and n^2, each brought into a fixed range (ln n / ln 1e7 into [-1, 1],
    x / (1 + x) into [0, 1)): the square of a norm alone could drown all other signals.
    """
    norm_M = embedding_MD.detach().norm(dim=-1).clamp(_SMALLEST_NORM, _LARGEST_NORM)
    root_M, square_M = norm_M.sqrt(), norm_M.square()
    return torch.stack(
        (
            norm_M.log() / math.log(_LARGEST_NORM),
            root_M / (1.0 + root_M),
            square_M / (1.0 + square_M),
        ),
        dim=-1,
    )


def count_signals(log_counts_MA: Tensor) -> Tensor:
    """Bring log counts, ln(1 + n), into [-1, 1]."""
    return log_counts_MA.clamp(0.0, _LARGEST_LOG_COUNT) * (2.0 / _LARGEST_LOG_COUNT) - 1.0


def masked_copies(
    fields_MFD: Tensor, defaults_FD: Tensor, config: AdaF2M2Config, generator: torch.Generator
) -> Tensor:
    """Return K copies of each example with fields replaced by their defaults, (M * K, F, D).

    Copies of one example stand together: repeat labels by `repeat_interleave(K, dim=0)`.
    """
    M, F, D = fields_MFD.shape
    K = config.masked_forwards
    draws = (M if config.mask_per_example else 1, K, F)
    # Drawn on the CPU, where the generator lives, so that every device sees the same masks.
    spread = config.mask_rate_max - config.mask_rate_min
    rates = config.mask_rate_min + spread * torch.rand(draws, generator=generator)
    masked = (torch.rand(draws, generator=generator) < rates).to(fields_MFD.device)
    copies_MKFD = torch.where(masked[..., None], defaults_FD, fields_MFD[:, None])
    return copies_MKFD.expand(M, K, F, D).reshape(M * K, F, D)
