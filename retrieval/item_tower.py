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

from domain.changed_rows import ChangedRows
from domain.errors import SnapshotError
from domain.events import Features
from domain.features import FeatureSchema
from domain.state import State
from domain.state_reading import StateReader
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
        self._described = ChangedRows()

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
        self._described.grow(num_rows)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Start rows anew that now belong to other items."""
        self.ids.reset(rows)
        self.biases.reset(rows)
        self.undescribe(rows)

    def undescribe(self, rows: NDArray[np.int64]) -> None:
        """Know nothing about items any more; their vectors stay."""
        self._values_NW[rows] = UNKNOWN
        self._weights_NW[rows] = 0.0
        self._numbers_NP[rows] = 0.0
        self._described.mark(rows)

    def describe(self, row: int, features: Features) -> None:
        """Replace what is known about an item."""
        coded = self.coder.code([features], admit=True)
        self.content.values.grow(self.coder.num_values)
        self._values_NW[row] = coded.values_RW[0]
        self._weights_NW[row] = coded.weights_RW[0]
        self._numbers_NP[row] = coded.numbers_RP[0]
        self._described.mark(row)

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

    def descriptions(self, rows: NDArray[np.int64]) -> State:
        """Return what is known about items."""
        return {
            "rows": rows,
            "values": self._values_NW[rows],
            "weights": self._weights_NW[rows],
            "numbers": self._numbers_NP[rows],
        }

    def describe_as(self, described: State) -> None:
        """Know about items what `descriptions` returned."""
        rows = described["rows"]
        self._values_NW[rows] = described["values"]
        self._weights_NW[rows] = described["weights"]
        self._numbers_NP[rows] = described["numbers"]

    def take_delta(self) -> State:
        """Return what moved, and who was described, since the last call."""
        return {
            "ids": self.ids.take_delta(),
            "biases": self.biases.take_delta(),
            "coder": self.coder.take_delta(),
            "content": self.content.take_delta(),
            "described": self.descriptions(self._described.take()),
        }

    def read_delta(self, reader: StateReader, num_rows: int, num_values: int) -> State:
        """Check what `take_delta` of another tower returned.

        Args:
            reader: what it returned.
            num_rows: items that the other tower has.
            num_values: feature values that it had before the delta.

        Raises:
            SnapshotError: it is something else.
        """
        coder = self.coder.read_delta(reader.part("coder"), num_values)
        num_values += len(coder["values"])
        return {
            "ids": self.ids.read_delta(reader.part("ids"), num_rows),
            "biases": self.biases.read_delta(reader.part("biases"), num_rows),
            "coder": coder,
            "content": self.content.read_delta(reader.part("content"), num_values),
            "described": self._read_described(reader.part("described"), num_rows, num_values),
        }

    def _read_described(self, reader: StateReader, num_rows: int, num_values: int) -> State:
        rows = reader.rows("rows", num_rows)
        values = reader.array("values", np.int64, (len(rows), self._values_NW.shape[1]))
        if values.size and not UNKNOWN <= values.min() <= values.max() < num_values:
            raise SnapshotError(f"{reader.path}.values: expected rows below {num_values}")
        return {
            "rows": rows,
            "values": values,
            "weights": reader.array("weights", np.float32, values.shape),
            "numbers": reader.array("numbers", np.float32, (len(rows), self._numbers_NP.shape[1])),
        }

    def apply_delta(self, delta: State) -> None:
        """Embed as the other tower does."""
        self.coder.apply_delta(delta["coder"])
        self.content.apply_delta(delta["content"])
        self.grow(delta["ids"]["num_rows"])
        self.ids.apply_delta(delta["ids"])
        self.biases.apply_delta(delta["biases"])
        self.describe_as(delta["described"])
        self._described.clear()

    def truncate(self, num_rows: int, num_values: int) -> None:
        """Take away items from row `num_rows` on, which were reset, and values likewise."""
        self.ids.truncate(num_rows)
        self.biases.truncate(num_rows)
        self.coder.truncate(num_values)
        self.content.values.truncate(num_values)

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
        self._described = ChangedRows()
        self._described.grow(self.ids.num_rows)
