"""What the blocks of a stack share about a batch: who may attend to whom, and how far apart.

Shape legend: B sequences, T events (oldest first, left-aligned), U = T + 1, S rows that are
computed (all T, or one), N container length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from encoders.time_bucket import time_bucket


@dataclass(frozen=True, eq=False)
class Geometry:
    """Row i of the events looks back at column j; what is alike for all has a first axis of 1.

    Attributes:
        next_BS: time of the event after row i, in seconds.
        time_BT: time of event j, in seconds.
        behind_BST: int64, j - i: 0 on the diagonal, negative before it.
        is_whole: whether the rows are all events, in order.
    """

    next_BS: Tensor
    time_BT: Tensor
    behind_BST: Tensor
    is_whole: bool = False

    @cached_property
    def gap(self) -> Tensor:
        """Return (B, S, T), the time of the event after row i minus that of event j."""
        return self.next_BS.unsqueeze(2) - self.time_BT.unsqueeze(1)

    @cached_property
    def causal(self) -> Tensor:
        """Return bool (B, S, T), whether event j is not later than row i."""
        return self.behind_BST <= 0

    @cached_property
    def bucket(self) -> Tensor:
        """Return int64 (B, S, T), the buckets of the gaps; worked out once for all blocks."""
        return time_bucket(self.gap)

    def at(self, row_B: Tensor) -> Geometry:
        """Return one row per sequence, S = 1."""
        next_B1 = self.next_BS.gather(1, row_B[:, None])
        return Geometry(next_B1, self.time_BT, one_row(self.behind_BST, row_B))


@dataclass(frozen=True, eq=False)
class Ahead:
    """How candidates, which stand right after the newest event, look back at event j.

    Attributes:
        gap_BT: time of the request minus time of event j, in seconds.
        distance_BT: int64, places from event j to the candidate: 1 for the newest event, 0 and less
            at padding.
        valid_BT: bool, whether event j is there, not padding.
    """

    gap_BT: Tensor
    distance_BT: Tensor
    valid_BT: Tensor

    @cached_property
    def bucket(self) -> Tensor:
        """Return int64 (B, T), the buckets of the gaps; worked out once for all blocks."""
        return time_bucket(self.gap_BT)

    def from_newest(self) -> Geometry:
        """Return how the newest event looks back: from the same time, one place nearer."""
        request_B1 = torch.zeros_like(self.gap_BT[:, :1])
        return Geometry(request_B1, -self.gap_BT, (1 - self.distance_BT).unsqueeze(1))


def geometry(times_BU: Tensor) -> Geometry:
    """Return how all events look back, from event times and, at index `length`, the request's."""
    place_T = torch.arange(times_BU.shape[1] - 1, device=times_BU.device)
    return Geometry(
        next_BS=times_BU[:, 1:],
        time_BT=times_BU[:, :-1],
        behind_BST=(place_T[None, :] - place_T[:, None])[None],
        is_whole=True,
    )


def ahead(times_BU: Tensor, length_B: Tensor) -> Ahead:
    """Return how candidates look back, from event times and, at index `length`, the request's."""
    place_T = torch.arange(times_BU.shape[1] - 1, device=times_BU.device)
    request_B1 = times_BU.gather(1, length_B[:, None])
    return Ahead(
        gap_BT=request_B1 - times_BU[:, :-1],
        distance_BT=length_B[:, None] - place_T,
        valid_BT=valid_places(length_B, len(place_T)),
    )


def valid_places(length_B: Tensor, places: int) -> Tensor:
    """Return bool (B, T), whether an event stands at each place."""
    return torch.arange(places, device=length_B.device) < length_B[:, None]


def one_row(x_BTX: Tensor, row_B: Tensor) -> Tensor:
    """Return one row per sequence, (B, 1, X); a first axis of 1 stands for all sequences."""
    expanded_BTX = x_BTX.expand(len(row_B), -1, -1)
    return expanded_BTX[torch.arange(len(row_B), device=row_B.device), row_B].unsqueeze(1)
