"""A history of item vectors to one query vector: positions added, then a backbone of blocks.

Shape legend: B users, T events in the batch's longest history, U = T + 1, N container length, D
width. Histories are left-aligned and masked causally, so valid positions never read padding and
leaving away trailing padding changes nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from encoders.backbone import Backbone
from encoders.shape import BackboneShape


class HistoryEncoder(nn.Module):
    """Reads a history in order and with times. There is no dropout: a stream is learned once."""

    def __init__(self, shape: BackboneShape, generator: torch.Generator) -> None:
        super().__init__()
        self._scale = math.sqrt(shape.width)
        std = math.sqrt(2.0 / (shape.container + shape.width))
        start_ND = torch.randn((shape.container, shape.width), generator=generator) * std
        self.position_ND = nn.Parameter(start_ND)
        self.backbone = Backbone(shape, generator)

    def forward(self, items_BTD: Tensor, valid_BT: Tensor, seconds_BU: Tensor) -> Tensor:
        """Return the newest event's output, float32 (B, D); zero for an empty history.

        Args:
            items_BTD: item vectors, oldest first, left-aligned; T >= 1.
            valid_BT: bool, False at padding.
            seconds_BU: int64, event times; index `length` of a row holds the time of the request.
        """
        x_BTD = self._scale * items_BTD + self.position_ND[: items_BTD.shape[1]]
        x_BTD = x_BTD * valid_BT.unsqueeze(-1)
        return self.backbone.newest(x_BTD, seconds_BU, valid_BT.sum(dim=1))
