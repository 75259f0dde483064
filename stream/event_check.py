"""What every event must fulfil, whatever form it came in.

One function says it for all: `encode` refuses to store what `decode` would refuse to read, so a log
holds broken records only where someone else wrote them.
"""

from __future__ import annotations

from math import isfinite
from typing import assert_never

from domain.events import (
    Event,
    Features,
    Feedback,
    Impression,
    ItemUpdate,
    ShownItem,
    UserUpdate,
)

_FLOAT32_MAX = 3.4028234663852886e38
_FLOAT32_MIN = 2.0**-149
"""Largest finite and smallest positive float32: what lies outside becomes inf or 0 on the wire."""

_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1


def contradiction(event: Event) -> str:
    """Return what is wrong with an event, field first; "" when nothing is."""
    if not event.event_id:
        return "event_id: expected an id, got none"
    if not 0 < event.time_ms <= _INT64_MAX:
        return f"time_ms: expected a time in ms since 1970 UTC, got {event.time_ms}"
    match event:
        case Feedback():
            return _feedback_contradiction(event) or _feature_contradiction(
                "feedback.context", event.context
            )
        case Impression():
            return _impression_contradiction(event) or _feature_contradiction(
                "impression.context", event.context
            )
        case ItemUpdate():
            if not event.item_id:
                return "item_update.item_id: expected an id, got none"
            return _feature_contradiction("item_update.features", event.features)
        case UserUpdate():
            if not event.user_id:
                return "user_update.user_id: expected an id, got none"
            return _feature_contradiction("user_update.features", event.features)
        case _:
            assert_never(event)


def _feedback_contradiction(event: Feedback) -> str:
    if not event.user_id:
        return "feedback.user_id: expected an id, got none"
    if not event.item_id:
        return "feedback.item_id: expected an id, got none"
    if not event.kind:
        return "feedback.kind: expected what was done, got nothing"
    if not isfinite(event.value):
        return f"feedback.value: expected a finite number, got {event.value}"
    if event.impression_id == "":
        return "feedback.impression_id: expected an id or None, got an empty id"
    return ""


def _impression_contradiction(event: Impression) -> str:
    if not event.user_id:
        return "impression.user_id: expected an id, got none"
    if not event.items:
        return "impression.items: expected at least one item, got none"
    for index, item in enumerate(event.items):
        if not item.item_id:
            return f"impression.items[{index}].item_id: expected an id, got none"
        if not 0 <= item.position <= _INT32_MAX:
            return f"impression.items[{index}].position: expected 0 or more, got {item.position}"
        if not abs(item.score) <= _FLOAT32_MAX:
            return f"impression.items[{index}].score: expected a finite float32, got {item.score}"
        if not _FLOAT32_MIN <= item.probability <= 1.0:
            return (
                f"impression.items[{index}].probability: expected a number above 0, at most 1, "
                f"got {item.probability}"
            )
    return "" if len(event.items) == 1 else _repeated_item(event.items)


def _repeated_item(items: tuple[ShownItem, ...]) -> str:
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item.item_id in seen:
            return f"impression.items[{index}].item_id: {item.item_id!r} is shown twice in one list"
        seen.add(item.item_id)
    return ""


def _feature_contradiction(where: str, features: Features) -> str:
    for name, value in features.items():
        if isinstance(value, str):
            continue
        if isinstance(value, tuple):
            for part in value:
                if not isinstance(part, str) and not abs(part) <= _FLOAT32_MAX:
                    return f"{where}[{name!r}]: expected finite float32 numbers, got {part}"
        elif not isfinite(value):
            return f"{where}[{name!r}]: expected a finite number, got {value}"
    return ""
