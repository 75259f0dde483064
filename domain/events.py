"""The events that flow through Headrace: a closed union of frozen facts.

Every event has an id (a repeated id has no second effect), an event time in ms UTC, and a kind
given by its class. Ids are strings at the edges. Match on `Event` exhaustively and end with
`assert_never`, so that a new kind breaks the type check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

FeatureValue: TypeAlias = str | float | tuple[str, ...] | tuple[float, ...]
"""Categorical, numeric, multi-valued categorical, or dense vector."""

Features: TypeAlias = Mapping[str, FeatureValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownItem:
    """One item of a shown list.

    Attributes:
        score: the score it was served with, 0.0 when not known.
        probability: chance that the policy showed it here, 1.0 when it was certain.
    """

    item_id: str
    position: int
    score: float = 0.0
    probability: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Impression:
    """One shown list."""

    event_id: str
    time_ms: int
    user_id: str
    items: tuple[ShownItem, ...]
    context: Features = field(default_factory=dict)
    snapshot_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """A user's action on an item.

    Attributes:
        kind: what was done, e.g. "click", "like", "rating"; the schema's label heads name kinds.
        value: how much; for on/off actions 1.0 is "did" and 0.0 is "known not to have done".
        impression_id: event id of the impression it answers, None when organic.
    """

    event_id: str
    time_ms: int
    user_id: str
    item_id: str
    kind: str
    value: float = 1.0
    impression_id: str | None = None
    context: Features = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemUpdate:
    """What is known about an item from now on; replaces what was known before.

    Attributes:
        available: False takes the item out of the catalog.
    """

    event_id: str
    time_ms: int
    item_id: str
    features: Features = field(default_factory=dict)
    available: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class UserUpdate:
    """What is known about a user from now on; replaces what was known before."""

    event_id: str
    time_ms: int
    user_id: str
    features: Features = field(default_factory=dict)


Event: TypeAlias = Impression | Feedback | ItemUpdate | UserUpdate


def event_key(event: Event) -> str:
    """Return the partition key: the user for what users do, the item for item updates.

    >>> event_key(ItemUpdate(event_id="e", time_ms=0, item_id="i7"))
    'i7'
    """
    return event.item_id if isinstance(event, ItemUpdate) else event.user_id
