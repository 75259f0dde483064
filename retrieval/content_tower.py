"""Coded features to vectors: a weighted sum of value vectors plus a linear map of the numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from domain.state import State
from domain.state_reading import StateReader
from retrieval.feature_coder import CodedFeatures
from retrieval.row_table import RowTable, RowTableConfig


class ContentTower(nn.Module):
    """Embeds items or users by their features alone, known before their first action.

    Shape legend: R = items or users, W = value slots, P = numbers, D = width.
    """

    def __init__(self, table: RowTableConfig, num_numbers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.values = RowTable(table, generator)
        self._width = table.width
        # As many numbers as there are share the variance that one value vector has.
        std = table.init_std / max(num_numbers, 1) ** 0.5
        start_PD = torch.randn((num_numbers, table.width), generator=generator) * std
        self.projection_PD = nn.Parameter(start_PD) if num_numbers else None

    def forward(self, coded: CodedFeatures, *, learning: bool) -> Tensor:
        """Return vectors float32 (R, D); zero where nothing is known.

        Args:
            coded: features of R items or users.
            learning: whether value vectors are lent with gradient (see `RowTable.lend`).
        """
        vectors_RD = self._from_values(coded, learning)
        if self.projection_PD is not None:
            vectors_RD = vectors_RD + torch.from_numpy(coded.numbers_RP) @ self.projection_PD
        return vectors_RD

    def _from_values(self, coded: CodedFeatures, learning: bool) -> Tensor:
        num, slots = coded.values_RW.shape
        if not num or not slots or not self.values.num_rows:
            return torch.zeros((num, self._width))
        # Empty slots point at any row with weight 0.
        rows, slot_RW = None, np.maximum(coded.values_RW, 0)
        if slot_RW.size < self.values.num_rows:
            used, slot_RW = np.unique(slot_RW, return_inverse=True)
            rows = torch.from_numpy(used)
        table_VD = self.values.lend(rows) if learning else self.values.read(rows)
        return functional.embedding_bag(
            torch.from_numpy(slot_RW.reshape(num, slots)),
            table_VD,
            mode="sum",
            per_sample_weights=torch.from_numpy(coded.weights_RW),
        )

    def take_delta(self) -> State:
        """Return the value vectors that moved since the last call, and the linear map."""
        projection = self.projection_PD
        return {
            "values": self.values.take_delta(),
            **({} if projection is None else {"projection": projection.detach().numpy().copy()}),
        }

    def read_delta(self, reader: StateReader, num_values: int) -> State:
        """Check what `take_delta` of another tower of `num_values` values returned.

        Raises:
            SnapshotError: it is something else.
        """
        delta: State = {"values": self.values.read_delta(reader.part("values"), num_values)}
        if self.projection_PD is not None:
            shape = tuple(self.projection_PD.shape)
            delta["projection"] = reader.array("projection", np.float32, shape)
        return delta

    def apply_delta(self, delta: State) -> None:
        """Embed as the other tower does."""
        self.values.apply_delta(delta["values"])
        if self.projection_PD is not None:
            with torch.no_grad():
                self.projection_PD.copy_(torch.from_numpy(delta["projection"]))

    def save(self) -> State:
        """Return value vectors and the linear map."""
        projection = self.projection_PD
        return {
            "values": self.values.save(),
            "projection": None if projection is None else projection.detach().numpy().copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self.values.load(state["values"])
        if self.projection_PD is not None:
            with torch.no_grad():
                self.projection_PD.copy_(torch.from_numpy(np.asarray(state["projection"])))
