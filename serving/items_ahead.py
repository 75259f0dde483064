"""What the log said of items that no delta has covered yet.

A server reads the log itself, so its catalog runs ahead of the trainer's. A delta makes the catalog
what the trainer's was; what the trainer had not come to by then is observed again afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from domain.events import ItemUpdate

_MOST = 100_000
"""Items remembered. Beyond it the ones heard of longest ago are forgotten: should a delta push one
of those out of the catalog, the trainer's next deltas bring it back."""


@dataclass(frozen=True, slots=True)
class _Ahead:
    update: ItemUpdate
    partition: str | None
    offset: int


class ItemsAhead:
    """The last update of each item, until the trainer has passed it. Not safe to share."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._of_item: dict[str, _Ahead] = {}

    def __len__(self) -> int:
        return len(self._of_item)

    def note(self, update: ItemUpdate, partition: str | None, offset: int) -> None:
        """Remember an update; `partition` None: stored, but not read back from the log yet."""
        self._of_item.pop(update.item_id, None)
        self._of_item[update.item_id] = _Ahead(update, partition, offset)
        if len(self._of_item) > self._most:
            del self._of_item[next(iter(self._of_item))]

    def place(self, update: ItemUpdate, partition: str, offset: int) -> None:
        """Take note of where in the log an update stands that was noted without that."""
        known = self._of_item.get(update.item_id)
        if known is not None and known.update.event_id == update.event_id:
            self._of_item[update.item_id] = _Ahead(known.update, partition, offset)

    def beyond(self, positions: Mapping[str, int]) -> tuple[ItemUpdate, ...]:
        """Forget what lies before `positions`, and return the rest in the order it came."""
        self._of_item = {
            item_id: one
            for item_id, one in self._of_item.items()
            if one.partition is None or one.offset >= positions.get(one.partition, 0)
        }
        return tuple(one.update for one in self._of_item.values())
