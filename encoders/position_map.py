"""A learned weight per distance between two places of a sequence, the same for all sequences.

N is the container's length, and weight N - 1 + (j - i) belongs to row i that looks at column j.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encoders.geometry import Ahead, Geometry
from encoders.weights import normal


class PositionMap(nn.Module):
    """2N - 1 weights, of which causal attention reads the first N."""

    def __init__(self, container: int, std: float, generator: torch.Generator) -> None:
        super().__init__()
        self._self = container - 1
        self.weight = normal((2 * container - 1,), std, generator)

    def forward(self, where: Geometry) -> Tensor:
        """Return the weight of each event for each row, (1 or B, S, T); not yet masked."""
        return self.weight[self._self + where.behind_BST]

    def ahead(self, look: Ahead) -> Tensor:
        """Return the weight of each event for candidates, (B, T); anything at padding."""
        return self.weight[self._self - look.distance_BT]

    def own(self) -> Tensor:
        """Return the weight of a row for itself."""
        return self.weight[self._self]
