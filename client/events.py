"""Events as callers make them; see docs/events.md for what they mean."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from client.types import Features, FeatureValue
from protos.headrace.v1 import events_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One item of a shown list; `probability` None means that the policy was certain to show it."""

    item_id: str
    position: int
    score: float = 0.0
    probability: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Impression:
    """One list was shown. Recommend logs its own; this is for lists from elsewhere.

    Attributes:
        event_id: "" makes one. An event sent twice with the same id counts once.
        time_ms: when it happened, ms since 1970 UTC; 0 is the server's time.
    """

    user_id: str
    items: Sequence[Shown]
    context: Features = field(default_factory=dict)
    snapshot_id: str = ""
    event_id: str = ""
    time_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A user did something with an item.

    Attributes:
        value: how much; for what is done or not done 1.0 is "did", 0.0 "is known not to have".
        impression_id: the list it answers, "" for organic feedback.
        event_id: as in `Impression`.
        time_ms: as in `Impression`.
    """

    user_id: str
    item_id: str
    kind: str
    value: float = 1.0
    impression_id: str = ""
    context: Features = field(default_factory=dict)
    event_id: str = ""
    time_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemUpdate:
    """What is known about an item from now on; replaces what was known.

    Attributes:
        withdrawn: true takes it out of the catalog.
        event_id: as in `Impression`.
        time_ms: as in `Impression`.
    """

    item_id: str
    features: Features = field(default_factory=dict)
    withdrawn: bool = False
    event_id: str = ""
    time_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUpdate:
    """What is known about a user from now on; replaces what was known.

    Attributes:
        event_id: as in `Impression`.
        time_ms: as in `Impression`.
    """

    user_id: str
    features: Features = field(default_factory=dict)
    event_id: str = ""
    time_ms: int = 0


Event: TypeAlias = Impression | Feedback | ItemUpdate | UserUpdate


def event_messages(events: Iterable[Event]) -> list[events_pb2.Event]:
    """Return events as they travel; each has an id, so that it may be sent again."""
    return [_message(event) for event in events]


def _message(event: Event) -> events_pb2.Event:
    wire = events_pb2.Event(event_id=event.event_id or uuid.uuid4().hex, time_ms=event.time_ms)
    match event:
        case Impression():
            wire.impression.user_id = event.user_id
            wire.impression.snapshot_id = event.snapshot_id
            for item in event.items:
                wire.impression.items.add(
                    item_id=item.item_id,
                    position=item.position,
                    score=item.score,
                    probability=item.probability,
                )
            write_features(wire.impression.context, event.context)
        case Feedback():
            wire.feedback.user_id = event.user_id
            wire.feedback.item_id = event.item_id
            wire.feedback.kind = event.kind
            wire.feedback.value = event.value
            wire.feedback.impression_id = event.impression_id
            write_features(wire.feedback.context, event.context)
        case ItemUpdate():
            wire.item_update.item_id = event.item_id
            wire.item_update.withdrawn = event.withdrawn
            write_features(wire.item_update.features, event.features)
        case UserUpdate():
            wire.user_update.user_id = event.user_id
            write_features(wire.user_update.features, event.features)
    return wire


def write_features(wire: Mapping[str, events_pb2.FeatureValue], features: Features) -> None:
    """Fill a Protobuf map with features.

    Raises:
        TypeError: a value is neither text nor number nor several of either.
    """
    for name, value in features.items():
        _write(wire[name], name, value)


def _write(wire: events_pb2.FeatureValue, name: str, value: FeatureValue) -> None:
    if isinstance(value, str):
        wire.text = value
    elif isinstance(value, int | float):
        wire.number = value
    elif all(isinstance(part, str) for part in value):
        wire.texts.values.extend([str(part) for part in value])
    elif all(isinstance(part, int | float) for part in value):
        wire.vector.values.extend([float(part) for part in value])
    else:
        raise TypeError(f"{name}: expected a text, a number, or several of either, got {value!r}")
    if not isinstance(value, str | int | float) and not value:
        wire.texts.SetInParent()
