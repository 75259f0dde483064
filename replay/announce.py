"""Users and items are announced right before the first event that needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import assert_never

from domain.events import Event, Features, Feedback, Impression, ItemUpdate, UserUpdate

FeaturesOf = Callable[[str], Features]


def announced(
    events: Iterable[Event],
    name: str,
    *,
    item_features: FeaturesOf,
    user_features: FeaturesOf | None = None,
) -> Iterator[Event]:
    """Return `events` with user and item updates put in, so that the catalog grows with the stream.

    Each id is announced once, at the time of the first event that names it. A catalog that knew
    from the start which items will be used one day would know the future.

    Args:
        events: events in order of time, without updates.
        name: beginning of the updates' event ids.
        item_features: what is known about an item.
        user_features: what is known about a user; None when nothing is, and users need no update.
    """
    users: set[str] = set()
    items: set[str] = set()
    for event in events:
        if user_features is not None and not isinstance(event, ItemUpdate):
            user = event.user_id
            if user not in users:
                users.add(user)
                yield UserUpdate(
                    event_id=f"{name}-user-{user}",
                    time_ms=event.time_ms,
                    user_id=user,
                    features=user_features(user),
                )
        for item in _items(event):
            if item not in items:
                items.add(item)
                yield ItemUpdate(
                    event_id=f"{name}-item-{item}",
                    time_ms=event.time_ms,
                    item_id=item,
                    features=item_features(item),
                )
        yield event


def _items(event: Event) -> tuple[str, ...]:
    match event:
        case Impression():
            return tuple(shown.item_id for shown in event.items)
        case Feedback():
            return (event.item_id,)
        case ItemUpdate() | UserUpdate():
            return ()
        case _:
            assert_never(event)
