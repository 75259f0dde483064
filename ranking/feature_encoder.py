"""Ranking request -> captured request: everything the model sees, as numbers, as of now.

Arrays of a capture (N items, T entries of history, see `FieldLayout` for the columns):

    request_ids      int64   (S,)     hashed user id, user and context fields
    item_ids         int64   (N, I)   hashed item id and item fields
    request_floats   float32 (R,)     numeric and dense fields, then the request's signals
    item_floats      float32 (N, J)   numeric and dense fields, the item's signals, label counters
    history_ids      int64   (T,)     hashed ids of the last items with known outcome, oldest first
    history_times_ms int64   (T,)     when each was shown
    history_outcomes int32   (T,)     bit h set when head h was positive
    activity         float32 (N, 4)   log counts of the user, then of the item: positives, days seen

A missing number is NaN, a missing id is 0. Numeric fields are squashed by sign(x) ln(1 + |x|).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError, SchemaError
from domain.events import Features, FeatureValue
from domain.features import ITEM_ID, USER_ID, FeatureSchema
from domain.requests import CapturedRequest, RankingRequest
from ranking.compiled import compiled
from ranking.counters import NUM_ACTIVITY, LabelCounters
from ranking.field_layout import FieldLayout, Side
from ranking.hashing import FieldHasher
from ranking.id_map import ABSENT
from ranking.signals import (
    HISTORY_LENGTH,
    MISSING,
    SESSION_POSITION,
    item_signals,
    num_item_signals,
    num_request_signals,
    request_signals,
    squash,
)

_LEFT = np.uint64(0x9E3779B97F4A7C15)
_RIGHT = np.uint64(0xC2B2AE3D27D4EB4F)
_TERM = np.uint64(0x165667B19E3779F9)
"""Odd constants (golden ratio and two of xxHash's primes): a key is a weighted sum of two ids that
are hashes already, and of the term's number, so that different terms never share keys by design."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """How much of a request is kept."""

    history_length: int = 20
    """Entries of the user's history kept, the newest ones."""
    max_values: int = 4
    """Values of a multi-valued field kept, the first ones."""
    last_outcomes: int = 4
    """Newest outcomes of the user that are inputs of their own."""

    def __post_init__(self) -> None:
        if self.history_length < 1:
            raise ConfigError(
                f"ranking.encoder.history_length must be at least 1, got {self.history_length}"
            )
        if self.max_values < 1:
            raise ConfigError(
                f"ranking.encoder.max_values must be at least 1, got {self.max_values}"
            )
        if self.last_outcomes < 0:
            raise ConfigError(
                f"ranking.encoder.last_outcomes must not be negative, got {self.last_outcomes}"
            )


class FeatureEncoder:
    """Encodes requests; holds no learned state, only the schema and remembered hashes."""

    def __init__(self, schema: FeatureSchema, layout: FieldLayout, config: EncoderConfig) -> None:
        self._schema = schema
        self._layout = layout
        self._config = config
        self._num_heads = len(schema.heads)
        self._user = FieldHasher(USER_ID)
        self._item = FieldHasher(ITEM_ID)
        self._hashers = {field.name: FieldHasher(field.name) for field in schema.fields}
        columns = layout.term_columns()
        pairs = [pair for term in columns for pair in term]
        self._left = np.array([left for left, _ in pairs], np.int64)
        self._right = np.array([right for _, right in pairs], np.int64)
        salts = [number for number, term in enumerate(columns) for _ in term]
        self._salts = np.array(salts, np.uint64) * _TERM
        self._starts = np.searchsorted(np.array(salts), np.arange(len(columns)))
        self._has_multi_terms = len(pairs) > len(columns)
        self._own = [int(self._starts[layout.terms.index((name,))]) for name in (USER_ID, ITEM_ID)]
        """Columns of the user's own key, and of the item's."""

    def num_floats(self, counter_width: int) -> tuple[int, int]:
        """Return how many numbers an item has in all, and how many come before its counters."""
        signals = num_request_signals(self._num_heads, self._config.last_outcomes)
        signals += num_item_signals(self._num_heads)
        first = self._layout.request.num_floats + self._layout.item.num_floats + signals
        return first + counter_width * len(self._layout.terms), first

    def state_columns(self, counter_width: int) -> tuple[int, ...]:
        """Return which numbers tell how well user and item are known.

        The place in the session and the length of the history, then the counters' log counts.
        """
        total, first = self.num_floats(counter_width)
        signals = self._layout.request.num_floats
        activity = (signals + SESSION_POSITION, signals + HISTORY_LENGTH)
        return (*activity, *range(first + counter_width - 2, total, counter_width))

    def capture(self, request: RankingRequest, counters: LabelCounters) -> CapturedRequest:
        """Encode a request with the counters as they stand now.

        Raises:
            SchemaError: a feature is not of the declared kind.
        """
        request_ids = self._request_ids(request)
        item_ids = self._item_ids(request)
        keys_NK = self._keys(request_ids, item_ids)
        counts_NC = self._pool(keys_NK, counters.read(keys_NK, request.time_ms))
        history = request.user.history
        kept = slice(max(0, len(history) - self._config.history_length), len(history))
        arrays: dict[str, NDArray[np.generic]] = {
            "request_ids": request_ids,
            "item_ids": item_ids,
            "request_floats": self._request_floats(request),
            "item_floats": np.concatenate([self._own_item_floats(request), counts_NC], axis=1),
            "history_ids": np.array(list(map(self._item, history.item_ids[kept])), np.int64),
            "history_times_ms": np.array(history.times_ms[kept], np.int64),
            "history_outcomes": history.outcomes[kept].astype(np.int32),
            "activity": counters.read_activity(keys_NK[:, self._own]).reshape(
                len(item_ids), 2 * NUM_ACTIVITY
            ),
        }
        return CapturedRequest(request.user.user_id, request.item_ids, request.time_ms, arrays)

    def keys_of(
        self, captured: CapturedRequest, item_indices: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the counter keys (M, K) of some items of a capture."""
        arrays: Any = captured.arrays
        return self._keys(arrays["request_ids"], arrays["item_ids"][item_indices])

    def _keys(
        self, request_ids: NDArray[np.int64], item_ids: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        keys = np.empty((len(item_ids), len(self._left)), np.int64)
        _counter_keys(request_ids, item_ids, self._left, self._right, self._salts, keys)
        return keys

    def _pool(
        self, keys_NK: NDArray[np.int64], values_NKW: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Average the counters of a term over the values present; (N, terms * W)."""
        if self._has_multi_terms:
            present_NK = (keys_NK != ABSENT).astype(np.float32)
            total_NT = np.add.reduceat(present_NK, self._starts, axis=1)
            sum_NTW = np.add.reduceat(values_NKW, self._starts, axis=1)
            values_NKW = (sum_NTW / np.maximum(total_NT, 1.0)[:, :, None]).astype(np.float32)
        num_items, num_terms, width = values_NKW.shape
        return values_NKW.reshape(num_items, num_terms * width)

    def _request_ids(self, request: RankingRequest) -> NDArray[np.int64]:
        side = self._layout.request
        both: Mapping[str, FeatureValue] = request.user.features
        if request.context:
            both = {**both, **request.context}
        return np.array([self._user(request.user.user_id), *self._ids(side, both)], np.int64)

    def _item_ids(self, request: RankingRequest) -> NDArray[np.int64]:
        side = self._layout.item
        flat: list[int] = []
        for item_id, features in zip(request.item_ids, request.item_features, strict=True):
            flat.append(self._item(item_id))
            flat += self._ids(side, features)
        return np.array(flat, np.int64).reshape(len(request.item_ids), side.num_ids)

    def _ids(self, side: Side, features: Features) -> list[int]:
        hashers = self._hashers
        found = []
        for field in side.singles:
            value = features.get(field.name, "")
            if not isinstance(value, str):
                raise SchemaError(f"{field.entity}.{field.name}: expected a string, got {value!r}")
            found.append(hashers[field.name](value))
        for field in side.multis:
            values = features.get(field.name, ())
            if not isinstance(values, tuple):
                raise SchemaError(f"{field.entity}.{field.name}: expected a tuple, got {values!r}")
            hashed = [hashers[field.name](str(value)) for value in values[: side.width]]
            found += hashed + [ABSENT] * (side.width - len(hashed))
        return found

    def _request_floats(self, request: RankingRequest) -> NDArray[np.float32]:
        both: Mapping[str, FeatureValue] = request.user.features
        if request.context:
            both = {**both, **request.context}
        floats = _declared_floats(self._layout.request, both)
        floats += request_signals(request, self._num_heads, self._config.last_outcomes)
        return np.array(floats, np.float32)

    def _own_item_floats(self, request: RankingRequest) -> NDArray[np.float32]:
        side = self._layout.item
        signals = item_signals(request, self._num_heads)
        rows = [
            _declared_floats(side, features) + own
            for features, own in zip(request.item_features, signals, strict=True)
        ]
        width = side.num_floats + num_item_signals(self._num_heads)
        return np.array(rows, np.float32).reshape(len(rows), width)


@compiled
def _counter_keys(
    request_ids: NDArray[np.int64],
    item_ids: NDArray[np.int64],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    salts: NDArray[np.uint64],
    keys: NDArray[np.int64],
) -> None:
    shared = len(request_ids)
    for item in range(len(item_ids)):
        for k in range(len(left)):
            a, b = left[k], right[k]
            left_id = request_ids[a] if a < shared else item_ids[item, a - shared]
            right_id = request_ids[b] if b < shared else item_ids[item, b - shared]
            keys[item, k] = ABSENT
            if left_id != ABSENT and right_id != ABSENT:
                mixed = np.uint64(left_id) * _LEFT + np.uint64(right_id) * _RIGHT + salts[k]
                keys[item, k] = np.int64(mixed)


def _declared_floats(side: Side, features: Features) -> list[float]:
    floats = []
    for field in side.numerics:
        value = features.get(field.name, MISSING)
        if not isinstance(value, int | float):
            raise SchemaError(f"{field.entity}.{field.name}: expected a number, got {value!r}")
        floats.append(squash(value))
    for field in side.denses:
        vector = features.get(field.name, (MISSING,) * field.size)
        if not isinstance(vector, tuple) or len(vector) != field.size:
            raise SchemaError(
                f"{field.entity}.{field.name}: expected {field.size} numbers, got {vector!r}"
            )
        # Vectors come from models that scaled them already.
        numbers = map(float, vector)
        floats += [part if math.isfinite(part) else MISSING for part in numbers]
    return floats
