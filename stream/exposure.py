"""How often items were shown: which ones nobody can know anything about yet."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np

from domain.state import State


class ItemExposure:
    """Counts how often items were shown, up to enough, and finds those shown least.

    Items of one count stand in a group of their own, in the order they came into it, so both
    counting and finding cost the same however many items there are.

    Args:
        enough: shows from which on an item is known well enough; no more are counted.
        max_items: items counted; beyond it those counted for longest are forgotten.
    """

    def __init__(self, *, enough: int, max_items: int) -> None:
        self._enough = enough
        self._max_items = max_items
        self._times: dict[str, int] = {}
        self._groups: list[dict[str, None]] = [{} for _ in range(enough)]

    def __len__(self) -> int:
        return len(self._times)

    def observe_item(self, item_id: str, *, available: bool) -> None:
        """Take an item into the catalog or out of it; its count stays."""
        times = self._count(item_id) if available else self._times.get(item_id, self._enough)
        if times >= self._enough:
            return
        if available:
            self._groups[times].setdefault(item_id)
        else:
            self._groups[times].pop(item_id, None)

    def observe_shown(self, item_ids: Iterable[str]) -> None:
        """Count items of a shown list; an item taken out stays out."""
        for item_id in item_ids:
            times = self._times.get(item_id)
            if times is None:
                times = self._count(item_id)
                self._groups[times].setdefault(item_id)
            if times >= self._enough:
                continue
            was_open = self._groups[times].pop(item_id, True) is None
            self._times[item_id] = times = times + 1
            if was_open and times < self._enough:
                self._groups[times][item_id] = None

    def least_shown(self, limit: int) -> list[tuple[str, int]]:
        """Return items shown least and how often, of equal ones the newest first."""
        found: list[tuple[str, int]] = []
        for times, group in enumerate(self._groups):
            found += [(item_id, times) for item_id in islice(reversed(group), limit - len(found))]
            if len(found) >= limit:
                break
        return found

    def _count(self, item_id: str) -> int:
        """Return how often an item was shown, after making sure that it is counted."""
        times = self._times.get(item_id)
        if times is not None:
            return times
        if len(self._times) >= self._max_items:
            oldest = next(iter(self._times))
            gone = self._times.pop(oldest)
            if gone < self._enough:
                self._groups[gone].pop(oldest, None)
        self._times[item_id] = 0
        return 0

    def save(self) -> State:
        """Return counts, and the groups in their order."""
        row_of = {item_id: row for row, item_id in enumerate(self._times)}
        open_rows = [row_of[item_id] for group in self._groups for item_id in group]
        return {
            "item_ids": list(self._times),
            "times": np.array(list(self._times.values()), np.int64),
            "open_rows": np.array(open_rows, np.int64),
        }

    def load(self, state: State) -> None:
        """Become what `save` described; counts beyond what is enough here are enough."""
        times = np.minimum(state["times"], self._enough).tolist()
        self._times = dict(zip(state["item_ids"], times, strict=True))
        self._groups = [{} for _ in range(self._enough)]
        ids = state["item_ids"]
        for row in state["open_rows"].tolist():
            if times[row] < self._enough:
                self._groups[times[row]][ids[row]] = None
