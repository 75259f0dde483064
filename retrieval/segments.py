"""What is popular where: decayed counts per segment, for users of whom nothing else is known.

A segment is what some features of the user and of the moment say together, such as a country, or a
country and a tab. Its items are scored by

    (actions on the item in the segment + m * share of the item everywhere) / (all of them + m)

so a segment of which little is known answers as everybody does, and one of which much is known
answers for itself (a Dirichlet prior with m actions). Counts stand by id and for the strongest
items of the strongest segments only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError, SnapshotError
from domain.events import Features
from domain.examples import PositiveAction
from domain.features import Entity, FeatureSchema
from domain.state import State
from domain.state_reading import StateReader
from retrieval.id_rows import UNKNOWN, IdRows
from retrieval.popularity import DecayClock

_ENTITIES: tuple[Entity, ...] = ("user", "context")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentsConfig:
    """Whose popular items are counted apart.

    Attributes:
        features: categorical fields that make a segment together, as "user.country" or
            "context.tab"; none counts nothing apart.
        half_life_ms: event time after which an action counts half.
        prior_actions: weight, in actions, of what is popular everywhere.
        max_segments: segments counted; beyond it the weakest is forgotten.
        max_items: items counted per segment; at twice as many the weaker half is forgotten.
    """

    features: tuple[str, ...] = ()
    half_life_ms: int = 24 * 3_600_000
    prior_actions: float = 50.0
    max_segments: int = 200
    max_items: int = 500

    def __post_init__(self) -> None:
        for name in self.features:
            if name.partition(".")[0] not in _ENTITIES or not name.partition(".")[2]:
                raise ConfigError(
                    'retrieval.segments.features must be named as "user.NAME" or "context.NAME", '
                    f"got {name!r}"
                )
        for key in ("half_life_ms", "prior_actions", "max_segments", "max_items"):
            if not getattr(self, key) > 0:
                raise ConfigError(
                    f"retrieval.segments.{key} must be positive, got {getattr(self, key)}"
                )

    def check(self, schema: FeatureSchema) -> None:
        """Check that the schema declares the features.

        Raises:
            ConfigError: naming the one it does not, and what would do.
        """
        known = [
            f"{entity}.{field.name}"
            for entity in _ENTITIES
            for field in schema.of(entity)
            if field.kind == "categorical"
        ]
        for name in self.features:
            if name not in known:
                raise ConfigError(
                    "retrieval.segments.features must be categorical fields of users or contexts "
                    f"({', '.join(known) or 'the schema declares none'}), got {name!r}"
                )

    def key(self, user: Features, context: Features) -> str | None:
        """Return the name of a segment; None when a feature is missing, or none make one.

        >>> SegmentsConfig(features=("user.country",)).key({"country": "at"}, {})
        '["at"]'
        """
        values: list[str] = []
        for name in self.features:
            entity, _, feature = name.partition(".")
            value = (user if entity == "user" else context).get(feature)
            if not isinstance(value, str):
                return None
            values.append(value)
        return json.dumps(values) if values else None


@dataclass(slots=True, eq=False)
class _Segment:
    """Counts of one segment; `total` is of all its items, those forgotten included."""

    counts: dict[str, float]
    total: float = 0.0


class SegmentPopularity:
    """Decayed counts by segment and item id; grows its increments as `DecayedPopularity` does."""

    def __init__(self, config: SegmentsConfig) -> None:
        self._config = config
        self._clock = DecayClock((config.half_life_ms,))
        self._segments: dict[str, _Segment] = {}
        # What changed since the last delta, by segment; None is everything.
        self._changed: dict[str, dict[str, None] | None] = {}

    def __len__(self) -> int:
        return len(self._segments)

    def learn(self, batch: Sequence[PositiveAction]) -> None:
        """Count actions of users whose segment is known."""
        keyed = [
            (key, action.item_id, action.time_ms)
            for action in batch
            for key in [self._config.key(action.user.features, action.context)]
            if key is not None
        ]
        if not keyed:
            return
        times_ms = np.array([time_ms for _, _, time_ms in keyed], dtype=np.int64)
        shift_H = self._clock.advance(int(times_ms.max()))
        if shift_H is not None:
            self._scale_down(int(shift_H[0]))
        for (key, item_id, _), weight in zip(
            keyed, self._clock.scale(times_ms)[0].tolist(), strict=True
        ):
            self._add(key, item_id, weight)

    def _add(self, key: str, item_id: str, weight: float) -> None:
        segment = self._segments.get(key)
        if segment is None:
            if len(self._segments) >= self._config.max_segments:
                weakest = min(self._segments, key=lambda one: self._segments[one].total)
                del self._segments[weakest]
                self._changed.pop(weakest, None)
            segment = self._segments[key] = _Segment({})
            self._changed[key] = None
        segment.counts[item_id] = segment.counts.get(item_id, 0.0) + weight
        segment.total += weight
        changed = self._changed.setdefault(key, {})
        if changed is not None:
            changed[item_id] = None
        if len(segment.counts) > 2 * self._config.max_items:
            strongest = sorted(segment.counts.items(), key=lambda one: -one[1])
            kept = {item for item, _ in strongest[: self._config.max_items]}
            segment.counts = {item: n for item, n in segment.counts.items() if item in kept}
            self._changed[key] = None

    def _scale_down(self, shift: int) -> None:
        for key, segment in self._segments.items():
            segment.total = math.ldexp(segment.total, -shift)
            segment.counts = {i: math.ldexp(n, -shift) for i, n in segment.counts.items()}
            self._changed[key] = None

    def blended(
        self,
        popularity_N: NDArray[np.float32],
        key: str | None,
        time_ms: int,
        ids: IdRows,
        num_items: int,
    ) -> NDArray[np.float32]:
        """Return popularity as one segment sees it, float32 (N,).

        Args:
            popularity_N: popularity everywhere, 1.0 for an item as popular as the average.
            key: the segment; None, or one that nobody acted in, sees what everybody sees.
            time_ms: when it is asked for: what a silent segment knew fades.
            ids: which row belongs to which item.
            num_items: size of the catalog, which shares are multiplied by.
        """
        segment = None if key is None else self._segments.get(key)
        if segment is None:
            return popularity_N
        now = float(self._clock.scale(np.array([time_ms], dtype=np.int64))[0, 0])
        rows = ids.rows(segment.counts)
        counts = np.fromiter(segment.counts.values(), np.float64, len(segment.counts)) / now
        prior = self._config.prior_actions
        blended_N = prior * popularity_N.astype(np.float64)
        blended_N[rows[rows != UNKNOWN]] += num_items * counts[rows != UNKNOWN]
        return np.asarray(blended_N / (segment.total / now + prior), dtype=np.float32)

    def key_of(self, user: Features, context: Features) -> str | None:
        """Return the segment of a user at a moment, see `SegmentsConfig.key`."""
        return self._config.key(user, context)

    def take_delta(self) -> State:
        """Return the counts that changed since the last call, and which segments there are."""
        changed, self._changed = self._changed, {}
        whole = [items is None for items in changed.values()]
        parts = [
            (self._segments[key], self._segments[key].counts if items is None else items)
            for key, items in changed.items()
        ]
        return {
            "keys": list(self._segments),
            "changed": list(changed),
            "whole": np.array(whole, np.bool_),
            "totals": np.array([segment.total for segment, _ in parts], np.float64),
            "lengths": np.array([len(items) for _, items in parts], np.int64),
            "items": [item for _, items in parts for item in items],
            "counts": np.array(
                [s.counts[item] for s, items in parts for item in items], np.float64
            ),
            "origin": self._clock.take_delta(),
        }

    def read_delta(self, reader: StateReader) -> State:
        """Check what `take_delta` of other counts returned.

        Raises:
            SnapshotError: it is something else.
        """
        keys, changed = reader.texts("keys"), reader.texts("changed")
        num = len(changed)
        lengths = reader.array("lengths", np.int64, (num,))
        if (lengths < 0).any() or not set(changed) <= set(keys):
            raise SnapshotError(f"{reader.path}: expected changes of segments that there are")
        num_items = int(lengths.sum())
        return {
            "keys": keys,
            "changed": changed,
            "whole": reader.array("whole", np.bool_, (num,)),
            "totals": reader.array("totals", np.float64, (num,)),
            "lengths": lengths,
            "items": reader.texts("items", num_items),
            "counts": reader.array("counts", np.float64, (num_items,)),
            "origin": self._clock.read_delta(reader),
        }

    def apply_delta(self, delta: State) -> None:
        """Count as the other does."""
        before = self._segments
        self._segments = {key: before.get(key) or _Segment({}) for key in delta["keys"]}
        end = 0
        for key, whole, total, length in zip(
            delta["changed"],
            delta["whole"].tolist(),
            delta["totals"].tolist(),
            delta["lengths"].tolist(),
            strict=True,
        ):
            first, end = end, end + length
            counts = dict(
                zip(delta["items"][first:end], delta["counts"][first:end].tolist(), strict=True)
            )
            old = {} if whole else self._segments[key].counts
            self._segments[key] = _Segment(old | counts, total)
        self._clock.apply_delta(delta["origin"])
        self._changed.clear()

    def save(self) -> State:
        """Return all counts, in the order they came about."""
        segments = list(self._segments.values())
        return {
            "keys": list(self._segments),
            "totals": np.array([one.total for one in segments], np.float64),
            "lengths": np.array([len(one.counts) for one in segments], np.int64),
            "items": [item for one in segments for item in one.counts],
            "counts": np.array([n for one in segments for n in one.counts.values()], np.float64),
            "clock": self._clock.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        counts = zip(state["items"], state["counts"].tolist(), strict=True)
        self._segments = {
            key: _Segment(dict(islice(counts, length)), total)
            for key, total, length in zip(
                state["keys"], state["totals"].tolist(), state["lengths"].tolist(), strict=True
            )
        }
        self._clock.load(state["clock"])
        self._changed.clear()
