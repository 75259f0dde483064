"""Features as numbers: which value rows an item or a user has, and its numeric inputs.

Categorical and multi-valued fields become value rows with weights (one per value, those of a
multi-valued field sharing a weight of 1); numeric fields are squashed to sign(x) * log(1 + |x|),
which needs no statistics of a moving stream; dense fields are taken as they are, cut at 10,000 so
that one absurd vector cannot overflow every score. What is missing, or not finite, contributes
nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.events import Features
from domain.features import Entity, FeatureSchema
from domain.state import State
from domain.state_reading import StateReader
from retrieval.id_rows import UNKNOWN, IdRows

_LARGEST = 10_000.0


@dataclass(frozen=True, slots=True, eq=False)
class CodedFeatures:
    """Features of R items or users; W value slots, P numeric inputs.

    Attributes:
        values_RW: int64, value rows; UNKNOWN in empty slots.
        weights_RW: float32, weight of each value, 0.0 in empty slots.
        numbers_RP: float32.
    """

    values_RW: NDArray[np.int64]
    weights_RW: NDArray[np.float32]
    numbers_RP: NDArray[np.float32]


class FeatureCoder:
    """Codes the features of one entity and keeps the map from values to rows."""

    def __init__(
        self, schema: FeatureSchema, entity: Entity, *, max_multi_values: int, max_values: int
    ) -> None:
        self._fields = schema.of(entity)
        self._max_multi = max_multi_values
        self._max_values = max_values
        self._values = IdRows()
        self._num_told = 0
        """Values that a delta or a saved state has told of already; rows never change hands."""
        sizes = {"categorical": 0, "multi": 0, "numeric": 1, "dense": 0}
        self.num_numbers = sum(field.size or sizes[field.kind] for field in self._fields)
        slots = {"categorical": 1, "multi": max_multi_values, "numeric": 0, "dense": 0}
        self.num_slots = sum(slots[field.kind] for field in self._fields)

    @property
    def num_values(self) -> int:
        """Return how many values have a row."""
        return self._values.num_rows

    def code(self, features: list[Features], *, admit: bool) -> CodedFeatures:
        """Code R items or users.

        Args:
            features: one mapping per item or user, checked against the schema.
            admit: whether values never seen get a row (while there is room for them); otherwise
                they contribute nothing.
        """
        num = len(features)
        coded = CodedFeatures(
            np.full((num, self.num_slots), UNKNOWN, dtype=np.int64),
            np.zeros((num, self.num_slots), dtype=np.float32),
            np.zeros((num, self.num_numbers), dtype=np.float32),
        )
        for row, one in enumerate(features):
            self._code_one(one, coded, row, admit)
        return coded

    def _code_one(self, features: Features, coded: CodedFeatures, row: int, admit: bool) -> None:
        slot = 0
        number = 0
        for field in self._fields:
            value = features.get(field.name)
            match field.kind:
                case "categorical" | "multi":
                    room = 1 if field.kind == "categorical" else self._max_multi
                    texts = (value,) if isinstance(value, str) else value or ()
                    assert isinstance(texts, tuple), f"{field.name}: the schema was not checked"
                    for k, text in enumerate(texts[:room]):
                        found = self._value_row(f"{field.name}={text}", admit)
                        if found != UNKNOWN:
                            coded.values_RW[row, slot + k] = found
                            coded.weights_RW[row, slot + k] = 1.0 / min(len(texts), room)
                    slot += room
                case "numeric":
                    if isinstance(value, int | float) and math.isfinite(value):
                        squashed = math.copysign(math.log1p(abs(value)), value)
                        coded.numbers_RP[row, number] = squashed
                    number += 1
                case "dense":
                    if value is not None:
                        vector = np.asarray(value, dtype=np.float32)
                        finite = np.where(np.isfinite(vector), vector, np.float32(0.0))
                        cut = np.clip(finite, -_LARGEST, _LARGEST)
                        coded.numbers_RP[row, number : number + field.size] = cut
                    number += field.size

    def _value_row(self, key: str, admit: bool) -> int:
        if admit and len(self._values) < self._max_values:
            return self._values.admit(key)
        return self._values.row(key)

    def take_delta(self) -> State:
        """Return the values that got a row since the last call."""
        first, self._num_told = self._num_told, self.num_values
        return {"first": first, "values": self._values.texts_of(np.arange(first, self.num_values))}

    def read_delta(self, reader: StateReader, num_values: int) -> State:
        """Check what `take_delta` of a coder returned that knew these first `num_values` before.

        Raises:
            SnapshotError: it is something else.
        """
        reader.integer("first", num_values, num_values)
        return {"first": num_values, "values": reader.texts("values")}

    def apply_delta(self, delta: State) -> None:
        """Know the values that the other coder knows."""
        total = delta["first"] + len(delta["values"])
        self._values.assign(np.arange(delta["first"], total), delta["values"], total)
        self._num_told = total

    def truncate(self, num_values: int) -> None:
        """Forget the values that got their rows last, down to this number."""
        self._values.truncate(num_values)

    def save(self) -> State:
        """Return the map from values to rows."""
        return self._values.save()

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._values.load(state)
        self._num_told = self.num_values
