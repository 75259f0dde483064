"""Columns to events: the same objects that decoding one by one makes, made column by column."""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np

from domain.events import (
    Event,
    FeatureValue,
    Feedback,
    Impression,
    ItemUpdate,
    ShownItem,
    UserUpdate,
)
from stream.bulk_objects import make_objects
from stream.columnar_layout import (
    FEEDBACK,
    IMPRESSION,
    ITEM_UPDATE,
    NUMBER,
    TEXT,
    TEXTS,
    USER_UPDATE,
    EventColumns,
    unusable,
)


def events_of(columns: EventColumns) -> tuple[list[Event], list[int]]:
    """Return N events, and the numbers of those that contradict themselves.

    Which those are is what `event_check.contradiction` would say of each; they come as they are.
    Events with the same features share one mapping.
    """
    texts: list[Any] = [*columns.texts(), ""]
    bad = unusable(columns)
    bad[_rows_that_show_an_item_twice(columns, texts)] = True
    return _events(columns, texts), np.flatnonzero(bad).tolist()


def _rows_that_show_an_item_twice(columns: EventColumns, texts: list[Any]) -> list[int]:
    shown = list(map(texts.__getitem__, columns.shown_items.tolist()))
    rows = np.flatnonzero((columns.kinds == IMPRESSION) & (np.diff(columns.shown_starts) > 1))
    starts, ends = columns.shown_starts[rows].tolist(), columns.shown_starts[rows + 1].tolist()
    bounds = zip(rows.tolist(), starts, ends, strict=True)
    return [row for row, start, end in bounds if len(set(shown[start:end])) < end - start]


def _events(columns: EventColumns, texts: list[Any]) -> list[Event]:
    ids = _Ids(texts)
    sets = [*_feature_sets(columns, texts), None]
    events: list[Any] = [None] * len(columns)
    for kind, make in _MAKERS.items():
        rows = np.flatnonzero(columns.kinds == kind)
        if not len(rows):
            continue
        features = [
            {} if one is None else one
            for one in map(sets.__getitem__, columns.feature_sets[rows].tolist())
        ]
        shared = {
            "event_id": ids.of(columns.event_ids[rows]),
            "time_ms": columns.times_ms[rows].tolist(),
        }
        made = make(columns, rows, ids, features, shared)
        if len(rows) == len(events):
            return cast(list[Event], made)
        for row, event in zip(rows.tolist(), made, strict=True):
            events[row] = event
    return events


class _Ids:
    """Texts by number; the last one stands for number -1."""

    def __init__(self, texts: list[Any]) -> None:
        self._text = texts.__getitem__
        self._optional = [*texts[:-1], None].__getitem__

    def of(self, numbers: np.ndarray[Any, Any]) -> list[str]:
        return list(map(self._text, numbers.tolist()))

    def optional(self, numbers: np.ndarray[Any, Any]) -> list[str | None]:
        return [text or None for text in map(self._optional, numbers.tolist())]


def _impressions(columns: EventColumns, rows: Any, ids: _Ids, features: Any, shared: Any) -> Any:
    shown = make_objects(
        ShownItem,
        len(columns.shown_items),
        item_id=ids.of(columns.shown_items),
        position=columns.positions.tolist(),
        score=columns.scores.tolist(),
        probability=columns.probabilities.tolist(),
    )
    starts = columns.shown_starts[rows].tolist()
    ends = columns.shown_starts[rows + 1].tolist()
    return make_objects(
        Impression,
        len(rows),
        **shared,
        user_id=ids.of(columns.users[rows]),
        items=[tuple(shown[start:end]) for start, end in zip(starts, ends, strict=True)],
        context=features,
        snapshot_id=ids.of(columns.snapshot_ids[rows]),
    )


def _feedback(columns: EventColumns, rows: Any, ids: _Ids, features: Any, shared: Any) -> Any:
    return make_objects(
        Feedback,
        len(rows),
        **shared,
        user_id=ids.of(columns.users[rows]),
        item_id=ids.of(columns.items[rows]),
        kind=ids.of(columns.actions[rows]),
        value=columns.values[rows].tolist(),
        impression_id=ids.optional(columns.impression_ids[rows]),
        context=features,
    )


def _item_updates(columns: EventColumns, rows: Any, ids: _Ids, features: Any, shared: Any) -> Any:
    return make_objects(
        ItemUpdate,
        len(rows),
        **shared,
        item_id=ids.of(columns.items[rows]),
        features=features,
        available=(columns.withdrawn[rows] == 0).tolist(),
    )


def _user_updates(columns: EventColumns, rows: Any, ids: _Ids, features: Any, shared: Any) -> Any:
    return make_objects(
        UserUpdate,
        len(rows),
        **shared,
        user_id=ids.of(columns.users[rows]),
        features=features,
    )


_MAKERS = {
    IMPRESSION: _impressions,
    FEEDBACK: _feedback,
    ITEM_UPDATE: _item_updates,
    USER_UPDATE: _user_updates,
}


def _feature_sets(columns: EventColumns, texts: list[Any]) -> list[dict[str, FeatureValue]]:
    """Return the G sets, each in the order of its names."""
    if len(columns.set_starts) == 1:
        return []
    values = _feature_values(columns, texts)
    named = list(zip(map(texts.__getitem__, columns.feature_names.tolist()), values, strict=True))
    bounds = itertools.pairwise(columns.set_starts.tolist())
    # A sort keeps the order of equal names, so the last one counts, as it does in Protobuf.
    return [dict(sorted(named[start:end], key=_name)) for start, end in bounds]


def _feature_values(columns: EventColumns, texts: list[Any]) -> list[FeatureValue]:
    part_texts = iter([texts[number] for number in columns.part_texts.tolist()])
    numbers = iter(columns.part_numbers.tolist())
    floats = iter(columns.part_floats.tolist())
    values: list[FeatureValue] = []
    kinds, sizes = columns.feature_kinds.tolist(), columns.feature_sizes.tolist()
    for kind, size in zip(kinds, sizes, strict=True):
        if kind == TEXT:
            values.append(next(part_texts))
        elif kind == NUMBER:
            values.append(next(numbers))
        elif kind == TEXTS:
            values.append(tuple(itertools.islice(part_texts, size)))
        else:
            values.append(tuple(itertools.islice(floats, size)))
    return values


def _name(feature: tuple[str, FeatureValue]) -> str:
    return feature[0]
