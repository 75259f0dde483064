"""The history encoder of the ranker: what its settings make of a shared backbone.

Shape legend: B requests, T history entries (oldest first, padding at the end), C candidates,
D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from domain.errors import ConfigError
from encoders.backbone import Backbone, HistoryState
from encoders.shape import BackboneShape, Kind, TimeFunctionName
from encoders.weights import normal


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """Kind and size of the history encoder. There is no dropout: each example is seen once."""

    kind: Kind = "fuxi-alpha"
    """Which backbone."""
    width: int = 32
    """Width of a token; also the width of what a candidate gets out of the history."""
    heads: int = 2
    """Attention heads."""
    head_width: int = 16
    """Width of queries, keys and values per head."""
    blocks: int = 1
    """Blocks on top of each other; 0 switches the history encoder off."""
    ffn_multiplier: int = 1
    """Width of the feed-forward part, in multiples of `width`; HSTU has none."""
    time_function: TimeFunctionName = "pow"
    """FuXi-beta's weight of a time gap."""
    initial_std: float = 0.1
    """Standard deviation of the first projection weights. Published is 0.02, for a hundred passes
    over the data; in a single pass the content channel, which multiplies two projections and
    divides by the length, would hardly start (measured: a history that decides everything was
    still not used after 300 steps with 0.02, and fully after 100 with 0.1). SASRec's start
    otherwise, whatever this says."""

    def __post_init__(self) -> None:
        choices = {"kind": get_args(Kind), "time_function": get_args(TimeFunctionName)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"ranking.backbone.{name} must be one of {', '.join(allowed)}, "
                    f"got {getattr(self, name)!r}"
                )
        if self.blocks < 0:
            raise ConfigError(f"ranking.backbone.blocks must not be negative, got {self.blocks}")
        if not self.initial_std > 0.0:
            raise ConfigError(
                f"ranking.backbone.initial_std must be positive, got {self.initial_std}"
            )
        for name in ("width", "heads", "head_width", "ffn_multiplier"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"ranking.backbone.{name} must be at least 1, got {value}")

    def shape(self, history_length: int) -> BackboneShape:
        """Return the backbone's shape; its container holds a history and the candidate."""
        return BackboneShape(
            kind=self.kind,
            width=self.width,
            container=history_length + 1,
            blocks=self.blocks,
            heads=self.heads,
            d_qk=self.head_width,
            d_v=self.head_width,
            ffn_multiple=self.ffn_multiplier,
            initial_std=self.initial_std,
            time_function=self.time_function,
        )


class CandidateEncoder(nn.Module):
    """Histories are encoded once each, and every candidate attends to its history and itself."""

    def __init__(self, config: BackboneConfig, history_length: int, generator: torch.Generator):
        super().__init__()
        shape = config.shape(history_length)
        self.backbone = Backbone(shape, generator)
        self.position_ND: nn.Parameter | None = None
        if not self.backbone.reads_order:
            std = 1.0 / math.sqrt(shape.width)
            self.position_ND = normal((shape.container, shape.width), std, generator)

    def forward(
        self, history_BTD: Tensor, lengths_B: Tensor, times_s_BU: Tensor, candidates_BCD: Tensor
    ) -> Tensor:
        """Return what each candidate became after seeing the history and itself, (B, C, D)."""
        return self.candidates(candidates_BCD, self.encode(history_BTD, lengths_B, times_s_BU))

    def encode(self, history_BTD: Tensor, lengths_B: Tensor, times_s_BU: Tensor) -> HistoryState:
        """Encode histories; from index `length` on, times are that of the request."""
        if self.position_ND is not None:
            history_BTD = history_BTD + self.position_ND[: history_BTD.shape[1]]
        return self.backbone.encode(history_BTD, times_s_BU, lengths_B)

    def candidates(self, candidates_BCD: Tensor, state: HistoryState) -> Tensor:
        """Return what each candidate became, (B, C, D)."""
        if self.position_ND is not None:
            candidates_BCD = candidates_BCD + self.position_ND[state.length_B].unsqueeze(1)
        return self.backbone.candidates(candidates_BCD, state)

    def moved(self, state: HistoryState, time_s: float) -> HistoryState:
        """Return the same histories as they look at another time of request, in seconds."""
        request_B = torch.full_like(state.length_B, time_s, dtype=state.times_BU.dtype)
        return self.backbone.moved(state, request_B)
