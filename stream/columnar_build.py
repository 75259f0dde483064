"""Events to columns: what a bulk producer does before it writes a columnar record."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, assert_never

import numpy as np

from domain.errors import LogError
from domain.events import (
    Event,
    Features,
    FeatureValue,
    Feedback,
    Impression,
    ItemUpdate,
    UserUpdate,
)
from stream.columnar_form import COLUMNS, columns_to_bytes
from stream.columnar_layout import (
    FEEDBACK,
    IMPRESSION,
    ITEM_UPDATE,
    NO_TEXT,
    NUMBER,
    TEXT,
    TEXTS,
    USER_UPDATE,
    VECTOR,
    EventColumns,
)
from stream.event_check import contradiction

_STARTS = ("shown_starts", "text_starts", "set_starts")


def encode_columnar(events: Sequence[Event]) -> bytes:
    """Return one record that carries all the events; the same events give the same bytes.

    What belongs into one record: events of one partition of the log, in their order, so that the
    order of each user's events is kept; the key of the record is that of its first event.

    Raises:
        LogError: there are none, or too many; an event contradicts itself, or does not fit.
    """
    if not events:
        raise LogError("expected at least one event for a columnar record, got none")
    return columns_to_bytes(columns_of(events))


def columns_of(events: Sequence[Event]) -> EventColumns:
    """Return events as columns; texts and sets of features are kept once each.

    Raises:
        LogError: an event contradicts itself, or does not fit the wire form.
    """
    builder = _Builder()
    for event in events:
        try:
            reason = contradiction(event)
            if not reason:
                builder.add(event)
        except (TypeError, ValueError) as error:
            reason = str(error)
        if reason:
            raise LogError(f"cannot store event {event.event_id!r}: {reason}")
    return builder.columns()


class _Builder:
    """Columns that grow event by event."""

    def __init__(self) -> None:
        self._columns: dict[str, Any] = {
            name: array({"<i8": "q", "<f8": "d", "<i4": "i", "<f4": "f", "u1": "B"}[dtype])
            for name, dtype, _, _ in COLUMNS
        }
        for name in _STARTS:
            self._columns[name].append(0)
        self._text_bytes = bytearray()
        self._texts: dict[str, int] = {"": NO_TEXT}
        self._sets: dict[Any, int] = {(): -1}

    def add(self, event: Event) -> None:
        match event:
            case Impression():
                user, item, features = event.user_id, "", event.context
                kind, action, answered, value = IMPRESSION, "", "", 1.0
                snapshot, withdrawn = event.snapshot_id, 0
                self._add_shown(event)
            case Feedback():
                user, item, features = event.user_id, event.item_id, event.context
                kind, action, answered = FEEDBACK, event.kind, event.impression_id or ""
                value, snapshot, withdrawn = event.value, "", 0
            case ItemUpdate():
                user, item, features = "", event.item_id, event.features
                kind, action, answered, value = ITEM_UPDATE, "", "", 1.0
                snapshot, withdrawn = "", int(not event.available)
            case UserUpdate():
                user, item, features = event.user_id, "", event.features
                kind, action, answered, value = USER_UPDATE, "", "", 1.0
                snapshot, withdrawn = "", 0
            case _:
                assert_never(event)
        columns, text = self._columns, self._text
        columns["kinds"].append(kind)
        columns["event_ids"].append(text(event.event_id))
        columns["times_ms"].append(event.time_ms)
        columns["users"].append(text(user))
        columns["items"].append(text(item))
        columns["actions"].append(text(action))
        columns["values"].append(value)
        columns["impression_ids"].append(text(answered))
        columns["snapshot_ids"].append(text(snapshot))
        columns["withdrawn"].append(withdrawn)
        columns["feature_sets"].append(self._set(features))
        columns["shown_starts"].append(len(columns["shown_items"]))

    def columns(self) -> EventColumns:
        arrays = {
            name: np.array(self._columns[name], np.dtype(dtype).newbyteorder("="))
            for name, dtype, _, _ in COLUMNS
            if name != "text_bytes"
        }
        return EventColumns(**arrays, text_bytes=np.frombuffer(bytes(self._text_bytes), np.uint8))

    def _add_shown(self, event: Impression) -> None:
        columns = self._columns
        for item in event.items:
            columns["shown_items"].append(self._text(item.item_id))
            columns["positions"].append(item.position)
            columns["scores"].append(item.score)
            columns["probabilities"].append(item.probability)

    def _text(self, text: str) -> int:
        number = self._texts.get(text)
        if number is None:
            raw = text.encode()  # refuses what is not UTF-8 before anything is remembered
            number = self._texts[text] = len(self._columns["text_starts"]) - 1
            self._text_bytes += raw
            self._columns["text_starts"].append(len(self._text_bytes))
        return number

    def _set(self, features: Features) -> int:
        """Return the number of a set of features that was met before, or of a new one."""
        if not features:
            return -1
        # By name, so that the same features give the same bytes whatever their order; with the
        # type, because 1 and "1" differ in Python but 1.0 and True do not.
        content = tuple(sorted((name, _kind(value), value) for name, value in features.items()))
        number = self._sets.get(content)
        if number is None:
            for name, kind, value in content:
                self._add_feature(name, kind, value)
            number = self._sets[content] = len(self._columns["set_starts"]) - 1
            self._columns["set_starts"].append(len(self._columns["feature_names"]))
        return number

    def _add_feature(self, name: str, kind: int, value: Any) -> None:
        columns = self._columns
        parts = value if isinstance(value, tuple) else (value,)
        columns["feature_names"].append(self._text(name))
        columns["feature_kinds"].append(kind)
        columns["feature_sizes"].append(len(parts))
        if kind == NUMBER:
            columns["part_numbers"].append(value)
        elif kind == VECTOR:
            columns["part_floats"].extend(parts)
        else:
            columns["part_texts"].extend(map(self._text, parts))


def _kind(value: FeatureValue) -> int:
    if isinstance(value, str):
        return TEXT
    if not isinstance(value, tuple):
        return NUMBER
    return VECTOR if value and not isinstance(value[0], str) else TEXTS
