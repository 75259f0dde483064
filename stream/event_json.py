"""Events as JSON, one object each: what people write and read.

    {"type": "impression", "event_id": "e1", "time_ms": 1700000000000, "user_id": "u1",
     "items": [{"item_id": "i1", "position": 0, "score": 0.25}], "context": {"device": "phone"}}
    {"type": "feedback", "event_id": "e2", "time_ms": 1700000001000, "user_id": "u1",
     "item_id": "i1", "kind": "click", "impression_id": "e1"}
    {"type": "item_update", "event_id": "e3", "time_ms": 1700000002000, "item_id": "i1",
     "features": {"author": "a7", "tags": ["red", "new"], "length_s": 12.5, "vector": [0.1, 0.2]}}
    {"type": "user_update", "event_id": "e4", "time_ms": 1700000003000, "user_id": "u1",
     "features": {"country": "NL"}}

Keys are the attributes of `domain.events`; those that have a default there may be left out. A key
that is not known, is missing or holds the wrong type is an error that names it: a mistyped key must
not become a silent default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

from domain.errors import DecodeError
from domain.events import (
    Event,
    Features,
    FeatureValue,
    Feedback,
    Impression,
    ItemUpdate,
    ShownItem,
    UserUpdate,
)
from stream.event_check import contradiction

_Reader = Callable[[str, Any], Any]


def to_json(event: Event) -> dict[str, Any]:
    """Return an event as JSON values; attributes that stand at their default are left out.

    >>> to_json(Feedback(event_id="e", time_ms=5, user_id="u", item_id="i", kind="click"))
    {'type': 'feedback', 'event_id': 'e', 'time_ms': 5, 'user_id': 'u', 'item_id': 'i', \
'kind': 'click'}
    """
    body: dict[str, Any]
    extra: dict[str, Any]
    match event:
        case Impression():
            body = {"user_id": event.user_id, "items": [_item_to_json(i) for i in event.items]}
            extra = {"context": _features_to_json(event.context), "snapshot_id": event.snapshot_id}
            return _tagged("impression", event, body, extra)
        case Feedback():
            body = {"user_id": event.user_id, "item_id": event.item_id, "kind": event.kind}
            extra = {
                "value": None if event.value == 1.0 else event.value,
                "impression_id": event.impression_id,
                "context": _features_to_json(event.context),
            }
            return _tagged("feedback", event, body, extra)
        case ItemUpdate():
            extra = {
                "features": _features_to_json(event.features),
                "available": None if event.available else False,
            }
            return _tagged("item_update", event, {"item_id": event.item_id}, extra)
        case UserUpdate():
            extra = {"features": _features_to_json(event.features)}
            return _tagged("user_update", event, {"user_id": event.user_id}, extra)
        case _:
            assert_never(event)


def from_json(raw: Mapping[str, Any]) -> Event:
    """Return the event that JSON values stand for.

    Raises:
        DecodeError: a key is unknown, missing or of the wrong type, or the event contradicts
            itself; the reason starts with the key.
    """
    kind = raw.get("type")
    if not isinstance(kind, str) or kind not in _EVENTS:
        raise DecodeError(f"type: expected one of {', '.join(_EVENTS)}, got {kind!r}")
    make, required, optional = _EVENTS[kind]
    event: Event = make(**_read("", raw, required, optional, skip="type"))
    reason = contradiction(event)
    if reason:
        raise DecodeError(reason)
    return event


def event_from_text(value: bytes) -> Event:
    """Return the event in one JSON object, UTF-8.

    Raises:
        DecodeError: it is not JSON, not an object, or not an event.
    """
    try:
        raw = json.loads(value.decode(), object_pairs_hook=_no_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"expected one JSON object, got text that is none: {error}") from error
    if not isinstance(raw, dict):
        raise DecodeError(f"expected one JSON object, got {type(raw).__name__}")
    return from_json(raw)


def event_to_text(event: Event) -> bytes:
    """Return an event as one line of JSON, UTF-8, without the newline."""
    return json.dumps(to_json(event), ensure_ascii=False, separators=(",", ":")).encode()


def _tagged(kind: str, event: Event, body: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    head: dict[str, Any] = {"type": kind, "event_id": event.event_id, "time_ms": event.time_ms}
    given = {name: value for name, value in extra.items() if value not in (None, "", {})}
    return head | body | given


def _item_to_json(item: ShownItem) -> dict[str, Any]:
    raw: dict[str, Any] = {"item_id": item.item_id, "position": item.position}
    if item.score != 0.0:
        raw["score"] = item.score
    if item.probability != 1.0:
        raw["probability"] = item.probability
    return raw


def _features_to_json(features: Features) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in features.items()
    }


def _no_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    raw = dict(pairs)
    if len(raw) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise DecodeError(f"{repeated}: the key appears twice")
    return raw


def _read(
    where: str,
    raw: Mapping[str, Any],
    required: Mapping[str, _Reader],
    optional: Mapping[str, _Reader],
    skip: str = "",
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in raw.items():
        reader = required.get(name) or optional.get(name)
        if reader is not None:
            values[name] = reader(f"{where}{name}", value)
        elif name != skip:
            raise DecodeError(f"{where}{name}: unknown key")
    for name in required:
        if name not in values:
            raise DecodeError(f"{where}{name}: missing")
    return values


def _text(where: str, value: Any) -> str:
    if type(value) is not str:
        raise DecodeError(f"{where}: expected text, got {value!r}")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        # JSON can spell half a surrogate pair, "\ud800"; UTF-8, and so every log, cannot.
        raise DecodeError(f"{where}: expected text, got half a surrogate pair")
    return value


def _whole(where: str, value: Any) -> int:
    if type(value) is not int:
        raise DecodeError(f"{where}: expected a whole number, got {value!r}")
    return value


def _number(where: str, value: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise DecodeError(f"{where}: expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError as error:
        raise DecodeError(f"{where}: expected a number that fits a float") from error


def _flag(where: str, value: Any) -> bool:
    if type(value) is not bool:
        raise DecodeError(f"{where}: expected true or false, got {value!r}")
    return value


def _items(where: str, value: Any) -> tuple[ShownItem, ...]:
    if not isinstance(value, list):
        raise DecodeError(f"{where}: expected a list of items, got {value!r}")
    items = []
    for index, raw in enumerate(value):
        if not isinstance(raw, dict):
            raise DecodeError(f"{where}[{index}]: expected an item, got {raw!r}")
        fields = _read(f"{where}[{index}].", raw, _ITEM_REQUIRED, _ITEM_OPTIONAL)
        items.append(ShownItem(**fields))
    return tuple(items)


def _features(where: str, value: Any) -> dict[str, FeatureValue]:
    if not isinstance(value, dict):
        raise DecodeError(f"{where}: expected an object of features, got {value!r}")
    # Sorted, as they come out of a Protobuf event: one event, one order, whatever its form.
    return {
        _text(where, name): _feature(f"{where}[{name!r}]", value[name]) for name in sorted(value)
    }


def _feature(where: str, value: Any) -> FeatureValue:
    if isinstance(value, list):
        if value and type(value[0]) is not str:
            return tuple([_number(where, part) for part in value])
        return tuple([_text(where, part) for part in value])
    if type(value) is str:
        return _text(where, value)
    return _number(where, value)


_ITEM_REQUIRED: Final[dict[str, _Reader]] = {"item_id": _text, "position": _whole}
_ITEM_OPTIONAL: Final[dict[str, _Reader]] = {"score": _number, "probability": _number}

_HEAD: Final[dict[str, _Reader]] = {"event_id": _text, "time_ms": _whole}

_EVENTS: Final[dict[str, tuple[Callable[..., Event], dict[str, _Reader], dict[str, _Reader]]]] = {
    "impression": (
        Impression,
        {**_HEAD, "user_id": _text, "items": _items},
        {"context": _features, "snapshot_id": _text},
    ),
    "feedback": (
        Feedback,
        {**_HEAD, "user_id": _text, "item_id": _text, "kind": _text},
        {"value": _number, "impression_id": _text, "context": _features},
    ),
    "item_update": (
        ItemUpdate,
        {**_HEAD, "item_id": _text},
        {"features": _features, "available": _flag},
    ),
    "user_update": (UserUpdate, {**_HEAD, "user_id": _text}, {"features": _features}),
}
