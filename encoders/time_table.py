"""A learned weight per bucket of the time between two events."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encoders.geometry import Ahead, Geometry
from encoders.time_bucket import NUM_BUCKETS
from encoders.weights import normal


class TimeTable(nn.Module):
    """129 weights; a row looks back from the time of the event after it."""

    def __init__(self, std: float, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = normal((NUM_BUCKETS,), std, generator)

    def forward(self, where: Geometry) -> Tensor:
        """Return the weight of each event for each row, (B, S, T); not yet masked."""
        return self.weight[where.bucket]

    def ahead(self, look: Ahead) -> Tensor:
        """Return the weight of each event for candidates, (B, T); anything at padding."""
        return self.weight[look.bucket]

    def own(self) -> Tensor:
        """Return the weight of a candidate for itself: no time lies between."""
        return self.weight[0]
