"""What a twin observed by itself since the last delta, and how to take it back.

A server that follows the log is ahead of the trainer's deltas by a second or so. What it observed
of items meanwhile stands in its tables at once. A delta was cut before that, and speaks of rows as
the trainer had them: so it is applied to the tables as the last delta left them, and the items are
observed again behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.state import State
from retrieval.catalog import Catalog
from retrieval.id_rows import UNKNOWN
from retrieval.item_columns import ItemColumns
from retrieval.live_index import LiveIndex
from retrieval.scorer import Scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemParts:
    """Everything that an observed item changes."""

    catalog: Catalog
    scorer: Scorer
    columns: ItemColumns
    live_index: LiveIndex


@dataclass(frozen=True, slots=True)
class _Before:
    """What an item was."""

    available: bool
    described: State
    columns: State


class Provisional:
    """Remembers each item as it was before a twin first observed it."""

    def __init__(self, parts: ItemParts) -> None:
        self._parts = parts
        self._before: dict[int, _Before] = {}
        self._admitted: dict[str, None] = {}
        self.begin()

    @property
    def num_rows(self) -> int:
        """Return how many rows there are without what was observed."""
        return self._num_rows

    @property
    def num_values(self) -> int:
        """Return how many feature values there are without what was observed."""
        return self._num_values

    def note(self, item_id: str) -> None:
        """Remember an item as it is; called before anything about it is changed."""
        parts = self._parts
        row = parts.catalog.ids.row(item_id)
        if row == UNKNOWN:
            self._admitted[item_id] = None
        elif row not in self._before and item_id not in self._admitted:
            rows = np.array([row])
            self._before[row] = _Before(
                available=bool(parts.catalog.available[row]),
                described=parts.scorer.items.descriptions(rows),
                columns=parts.columns.of_rows(rows),
            )

    def take_back(self) -> None:
        """Make everything what it was when this last began."""
        parts = self._parts
        for row, before in self._before.items():
            parts.catalog.set_available(row, before.available)
            parts.scorer.items.describe_as(before.described)
            parts.columns.describe_as(before.columns)
            if before.available:
                parts.live_index.mark(row)
            else:
                parts.live_index.drop(np.array([row]))
        admitted = parts.catalog.ids.known(self._admitted)
        if len(admitted):
            parts.live_index.drop(admitted)
            parts.scorer.items.undescribe(admitted)
            parts.columns.reset(admitted)
            parts.catalog.take_back(admitted, self._num_rows)
        parts.scorer.truncate(self._num_rows, self._num_values)
        parts.columns.truncate(self._num_rows)
        self.begin()

    def begin(self) -> None:
        """Take the tables as they are for what the last delta left."""
        self._before.clear()
        self._admitted.clear()
        self._num_rows = self._parts.catalog.num_rows
        self._num_values = self._parts.scorer.items.coder.num_values
