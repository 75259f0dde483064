"""The model around a backbone: item vectors and places in, unit vectors that are asked with out.

As in the research trainer of arXiv 2402.17152: tokens are sqrt(D) times the item's vector plus a
learned vector per place; what comes out, and the items it is compared with, are scaled to length 1.

Shape legend: B sequences, T places, V rows of the item table, N places, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from encoders.backbone import Backbone
from encoders.dropout import Dropout
from evaluation.config import SequentialConfig
from evaluation.sampled_softmax import unit
from evaluation.sequences import PADDING

_ITEM_STD = 0.02
_DRAWS = 4
_TRUNCATED_AT = 2.0


class SequenceModel(nn.Module):
    """Item table, place table and backbone."""

    def __init__(self, config: SequentialConfig, num_rows: int, generator: torch.Generator) -> None:
        super().__init__()
        D, N = config.width, config.container
        self._scale = math.sqrt(D)
        self.item_VD = nn.Parameter(truncated_normal((num_rows, D), _ITEM_STD, generator))
        self.place_ND = nn.Parameter(_places(config.model, N, D, generator))
        self.dropout = Dropout(config.dropout, generator)
        self.backbone = Backbone(config.shape, generator)

    def forward(self, item_BT: Tensor, time_s_BU: Tensor, length_B: Tensor) -> Tensor:
        """Return a unit vector per place, (B, T, D), that stands near the item that comes next.

        Args:
            item_BT: rows of the item table, 0 at padding.
            time_s_BU: (B, T + 1), event times and, at place `length`, the target's.
            length_B: events of each history.
        """
        return unit(self.backbone(self._tokens(item_BT), time_s_BU, length_B))

    def newest(self, item_BT: Tensor, time_s_BU: Tensor, length_B: Tensor) -> Tensor:
        """Return the row of each newest event, (B, D), which `forward` has among the others."""
        return unit(self.backbone.newest(self._tokens(item_BT), time_s_BU, length_B))

    def _tokens(self, item_BT: Tensor) -> Tensor:
        x_BTD = self.item_VD[item_BT] * self._scale + self.place_ND[: item_BT.shape[1]]
        x_BTD = self.dropout(x_BTD)
        tokens_BTD: Tensor = x_BTD * (item_BT != PADDING).unsqueeze(-1)
        return tokens_BTD


def truncated_normal(size: tuple[int, int], std: float, generator: torch.Generator) -> Tensor:
    """Return normal numbers within two deviations: of four draws the first that lies within.

    One number in 230,000 has no such draw and keeps its first, as in the published code.
    """
    draws = torch.empty(*size, _DRAWS).normal_(generator=generator)
    first = (draws.abs() < _TRUNCATED_AT).int().argmax(dim=-1, keepdim=True)
    return draws.gather(-1, first).squeeze(-1) * std


def _places(model: str, places: int, width: int, generator: torch.Generator) -> Tensor:
    """Return the first place table.

    Declared as truncated normal; but the published HSTU and FuXi trainers then set every matrix
    whose name lies outside the encoder and the item table anew, by Xavier-normal, and that is this
    one. SASRec's keeps what was declared.
    """
    if model == "sasrec":
        return truncated_normal((places, width), math.sqrt(1.0 / width), generator)
    return nn.init.xavier_normal_(torch.empty(places, width), generator=generator)
