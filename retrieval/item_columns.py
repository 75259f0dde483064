"""What items are, in columns by row, so that a condition on all items is a few passes over arrays.

The slow twin is `ItemCondition.met_by`, asked of every item.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from domain.events import Features
from domain.features import FeatureSchema
from domain.filters import ItemCondition
from domain.state import State
from domain.state_reading import StateReader
from retrieval.arrays import grown
from retrieval.text_column import TextColumn, read_texts, texts_of

_REMEMBERED = 64
"""Conditions on texts whose bitmaps are kept, the last ones used; each takes a byte per row."""


class ItemColumns:
    """Features of items by row, and the rows that meet a condition.

    Many threads may ask at once; whoever changes rows is alone. Vectors are not kept: nothing can
    be asked of them.
    """

    def __init__(self, schema: FeatureSchema) -> None:
        fields = schema.of("item")
        self._numbers = {
            field.name: np.zeros(0, dtype=np.float64) for field in fields if field.kind == "numeric"
        }
        self._texts = {
            field.name: TextColumn() for field in fields if field.kind in ("categorical", "multi")
        }
        self._num_rows = 0
        self._changed_N = np.zeros(0, dtype=np.bool_)
        self._remembered: OrderedDict[ItemCondition, NDArray[np.bool_]] = OrderedDict()
        self._lock = threading.Lock()

    def grow(self, num_rows: int) -> None:
        """Make room for rows below `num_rows`; new ones have no features."""
        if num_rows <= self._num_rows:
            return
        for name, column_N in self._numbers.items():
            self._numbers[name] = grown(column_N, num_rows, np.nan)
        for text in self._texts.values():
            text.grow(num_rows)
        self._changed_N = grown(self._changed_N, num_rows, fill=False)
        for condition, bitmap_N in self._remembered.items():
            self._remembered[condition] = grown(bitmap_N, num_rows, condition.met_by({}))
        self._num_rows = num_rows

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Forget the features of rows that now belong to other items."""
        for row in rows.tolist():
            self.describe(row, {})

    def describe(self, row: int, features: Features) -> None:
        """Replace what is known about an item."""
        for name, column_N in self._numbers.items():
            value = features.get(name)
            column_N[row] = value if isinstance(value, int | float) else np.nan
        for name, text in self._texts.items():
            value = features.get(name, ())
            text.set(row, value if isinstance(value, tuple) else (value,))
        for condition, bitmap_N in self._remembered.items():
            bitmap_N[row] = condition.met_by(features)
        self._changed_N[row] = True

    def meeting(self, condition: ItemCondition) -> NDArray[np.bool_]:
        """Return which rows meet a condition, bool (N,); not to be written to."""
        if condition.one_of is None:
            return self._in_range(condition) ^ condition.negated
        with self._lock:
            bitmap_N = self._remembered.get(condition)
            if bitmap_N is None:
                bitmap_N = self._among(condition) ^ condition.negated
                self._remembered[condition] = bitmap_N
                if len(self._remembered) > _REMEMBERED:
                    self._remembered.popitem(last=False)
            self._remembered.move_to_end(condition)
        return bitmap_N[: self._num_rows]

    def _in_range(self, condition: ItemCondition) -> NDArray[np.bool_]:
        column_N = self._numbers.get(condition.feature)
        if column_N is None:
            return np.zeros(self._num_rows, dtype=np.bool_)
        column_N = column_N[: self._num_rows]
        inside_N = ~np.isnan(column_N)
        if condition.at_least is not None:
            inside_N &= column_N >= condition.at_least
        if condition.at_most is not None:
            inside_N &= column_N <= condition.at_most
        return inside_N

    def _among(self, condition: ItemCondition) -> NDArray[np.bool_]:
        """Return which rows have one of the texts, with room for the rows to come."""
        assert condition.one_of is not None
        text = self._texts.get(condition.feature)
        if text is None:
            return np.zeros(self._num_rows, dtype=np.bool_)
        return text.having(condition.one_of)[: self._num_rows]

    def save(self) -> State:
        """Return all columns."""
        return {
            "num_rows": self._num_rows,
            "numbers": {
                name: column_N[: self._num_rows].copy() for name, column_N in self._numbers.items()
            },
            "texts": {
                name: text.of_rows(np.arange(self._num_rows)) for name, text in self._texts.items()
            },
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._num_rows = int(state["num_rows"])
        for name in self._numbers:
            self._numbers[name] = np.array(state["numbers"][name], dtype=np.float64)
        for name, text in self._texts.items():
            text.load(state["texts"][name])
        self._changed_N = np.zeros(self._num_rows, dtype=np.bool_)
        self._remembered.clear()

    def of_rows(self, rows: NDArray[np.int64]) -> State:
        """Return the features of rows."""
        return {
            "rows": rows,
            "numbers": {name: column_N[rows] for name, column_N in self._numbers.items()},
            "texts": {name: text.of_rows(rows) for name, text in self._texts.items()},
        }

    def describe_as(self, state: State) -> None:
        """Describe rows as `of_rows` did."""
        rows = state["rows"]
        for name, column_N in self._numbers.items():
            column_N[rows] = state["numbers"][name]
        for name, text in self._texts.items():
            for row, texts in zip(rows.tolist(), texts_of(state["texts"][name]), strict=True):
                text.set(row, texts)
        self._remembered.clear()

    def take_delta(self) -> State:
        """Return the rows described since the last call, or since these columns were made."""
        rows = np.flatnonzero(self._changed_N)
        self._changed_N[:] = False
        return self.of_rows(rows)

    def read_delta(self, reader: StateReader, num_rows: int) -> State:
        """Check what `take_delta` of the columns of `num_rows` rows returned.

        Raises:
            SnapshotError: it is something else.
        """
        rows = reader.rows("rows", num_rows)
        numbers, texts = reader.part("numbers"), reader.part("texts")
        return {
            "rows": rows,
            "numbers": {
                name: numbers.array(name, np.float64, (len(rows),), finite=False)
                for name in self._numbers
            },
            "texts": {name: read_texts(texts.part(name), len(rows)) for name in self._texts},
        }

    def apply_delta(self, delta: State, num_rows: int) -> None:
        """Describe `num_rows` rows as the other columns do."""
        self.grow(num_rows)
        if len(delta["rows"]):
            self.describe_as(delta)
        self._changed_N[:] = False

    def truncate(self, num_rows: int) -> None:
        """Take away the rows from `num_rows` on, which were reset."""
        self._num_rows = min(self._num_rows, num_rows)
