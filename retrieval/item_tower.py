"""The item tower: an id vector, a content vector and a bias per item.

An item never acted upon has a vector from its content at once; its id vector starts near zero and
learns what content does not say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domain.events import Features
from domain.features import FeatureSchema
from domain.state import State
from retrieval.arrays import grown
from retrieval.content_tower import ContentTower
from retrieval.feature_coder import CodedFeatures, FeatureCoder
from retrieval.id_rows import UNKNOWN
from retrieval.row_table import RowTable, RowTableConfig
from retrieval.tower_config import TowerConfig


@dataclass(frozen=True, slots=True, eq=False)
class ItemVectors:
    """Vectors and biases of R items; D = width.

    Attributes:
        vectors_RD: float32, id and content together.
        bias_R: float32.
    """

    vectors_RD: Tensor
    bias_R: Tensor


class ItemTower:
    """Embeds items by row."""

    def __init__(
        self, schema: FeatureSchema, config: TowerConfig, generator: torch.Generator
    ) -> None:
        id_table = config.table(config.id_init_std, config.id_learning_rate)
        bias_table = RowTableConfig(
            width=1,
            init_std=0.0,
            learning_rate=config.bias_learning_rate,
            initial_square=config.initial_square,
        )
        value_table = config.table(config.content_init_std, config.content_learning_rate)
        self.ids = RowTable(id_table, generator)
        self.biases = RowTable(bias_table, generator)
        self.coder = FeatureCoder(
            schema,
            "item",
            max_multi_values=config.max_multi_values,
            max_values=config.max_values,
        )
        self.content = ContentTower(value_table, self.coder.num_numbers, generator)
        self._values_NW = np.full((0, self.coder.num_slots), UNKNOWN, dtype=np.int64)
        self._weights_NW = np.zeros((0, self.coder.num_slots), dtype=np.float32)
        self._numbers_NP = np.zeros((0, self.coder.num_numbers), dtype=np.float32)

    @property
    def tables(self) -> tuple[RowTable, ...]:
        """Return the tables that learn by row."""
        return (self.ids, self.biases, self.content.values)

    @property
    def has_content(self) -> bool:
        """Return whether items have any features."""
        return bool(self.coder.num_slots or self.coder.num_numbers)

    def grow(self, num_rows: int) -> None:
        """Make room for rows below `num_rows`; new ones have no content yet."""
        self.ids.grow(num_rows)
        self.biases.grow(num_rows)
        self._values_NW = grown(self._values_NW, num_rows, UNKNOWN)
        self._weights_NW = grown(self._weights_NW, num_rows, 0.0)
        self._numbers_NP = grown(self._numbers_NP, num_rows, 0.0)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Start rows anew that now belong to other items."""
        self.ids.reset(rows)
        self.biases.reset(rows)
        self._values_NW[rows] = UNKNOWN
        self._weights_NW[rows] = 0.0
        self._numbers_NP[rows] = 0.0

    def describe(self, row: int, features: Features) -> None:
        """Replace what is known about an item."""
        coded = self.coder.code([features], admit=True)
        self.content.values.grow(self.coder.num_values)
        self._values_NW[row] = coded.values_RW[0]
        self._weights_NW[row] = coded.weights_RW[0]
        self._numbers_NP[row] = coded.numbers_RP[0]

    def embed(self, rows: NDArray[np.int64] | None, *, learning: bool = False) -> ItemVectors:
        """Return vectors and biases of rows (None: all); rows must not repeat when learning."""
        index = None if rows is None else torch.from_numpy(rows)
        id_RD = self.ids.lend(index) if learning else self.ids.read(index)
        bias_R1 = self.biases.lend(index) if learning else self.biases.read(index)
        if self.has_content:
            id_RD = id_RD + self.content(self._coded(rows), learning=learning)
        return ItemVectors(id_RD, bias_R1.squeeze(1))

    def _coded(self, rows: NDArray[np.int64] | None) -> CodedFeatures:
        chosen = slice(0, self.ids.num_rows) if rows is None else rows
        return CodedFeatures(
            self._values_NW[chosen], self._weights_NW[chosen], self._numbers_NP[chosen]
        )

    def save(self) -> State:
        """Return tables and content."""
        n = self.ids.num_rows
        return {
            "ids": self.ids.save(),
            "biases": self.biases.save(),
            "coder": self.coder.save(),
            "content": self.content.save(),
            "values": self._values_NW[:n].copy(),
            "weights": self._weights_NW[:n].copy(),
            "numbers": self._numbers_NP[:n].copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self.ids.load(state["ids"])
        self.biases.load(state["biases"])
        self.coder.load(state["coder"])
        self.content.load(state["content"])
        self._values_NW = np.array(state["values"], dtype=np.int64)
        self._weights_NW = np.array(state["weights"], dtype=np.float32)
        self._numbers_NP = np.array(state["numbers"], dtype=np.float32)
