"""Item novelty: the share of shown items that were not shown before."""

from __future__ import annotations

from collections.abc import Iterable

from domain.errors import ConfigError
from domain.state import State


class ItemNovelty:
    """Remembers the items shown most recently, up to `max_items`; an item forgotten is new again.

    >>> novelty = ItemNovelty(max_items=10)
    >>> novelty.update(["a", "b"]), novelty.update(["b", "c"])
    (1.0, 0.5)
    """

    def __init__(self, max_items: int = 200_000) -> None:
        if max_items < 1:
            raise ConfigError(f"item_novelty.max_items must be at least 1, got {max_items}")
        self._max_items = max_items
        self._seen: dict[str, None] = {}  # shown longest ago first

    def __len__(self) -> int:
        """Return how many items are remembered."""
        return len(self._seen)

    def update(self, item_ids: Iterable[str]) -> float:
        """Take the items of one shown list; return the share that is new, 0.0 for an empty list."""
        shown = new = 0
        for item_id in item_ids:
            shown += 1
            if item_id in self._seen:
                del self._seen[item_id]
            else:
                new += 1
            self._seen[item_id] = None
            if len(self._seen) > self._max_items:
                del self._seen[next(iter(self._seen))]
        return new / shown if shown else 0.0

    def save(self) -> State:
        """Return the remembered items, shown longest ago first."""
        return {"seen": list(self._seen)}

    def load(self, state: State) -> None:
        """Become what `save` described; a smaller limit keeps the newest."""
        self._seen = dict.fromkeys(state["seen"][-self._max_items :])
