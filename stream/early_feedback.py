"""Early feedback: actions that came before the impression they answer, kept until it comes."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numpy as np

from domain.state import State
from stream.organic import OrganicGroup, groups_from, groups_state


class EarlyFeedback:
    """Feedback by the impression it waits for, each piece until its own due time.

    It is kept as the organic group it becomes when its impression never comes.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, tuple[int, OrganicGroup]]] = {}
        self._due: list[tuple[int, str, str]] = []  # (due, group, impression); may be outdated
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, impression_id: str, group: OrganicGroup, due_ms: int) -> bool:
        """Keep feedback; return False when this very feedback is kept already."""
        groups = self._waiting.setdefault(impression_id, {})
        if group.group_id in groups:
            return False
        groups[group.group_id] = (due_ms, group)
        self._size += 1
        heappush(self._due, (due_ms, group.group_id, impression_id))
        # Feedback whose impression came leaves an outdated entry; no more than half are kept.
        if len(self._due) > 2 * self._size + 1_000:
            self._rebuild_due()
        return True

    def take(self, impression_id: str) -> list[OrganicGroup]:
        """Take out what waited for an impression, in event-time order."""
        groups = [group for _, group in self._waiting.pop(impression_id, {}).values()]
        self._size -= len(groups)
        return sorted(groups, key=lambda group: (group.time_ms, group.group_id))

    def take_due(self, watermark_ms: int) -> list[tuple[int, OrganicGroup]]:
        """Take out what waited long enough, with its due time, in order of due time."""
        taken = []
        while self._due and self._due[0][0] <= watermark_ms:
            taken += self._pop()
        return taken

    def take_oldest(self) -> OrganicGroup:
        """Take out the piece that is due next."""
        while True:
            for _, group in self._pop():
                return group

    def _pop(self) -> list[tuple[int, OrganicGroup]]:
        """Take out the first entry; nothing when it was outdated."""
        _, group_id, impression_id = heappop(self._due)
        groups = self._waiting.get(impression_id, {})
        kept = groups.pop(group_id, None)
        if kept is None:
            return []
        self._size -= 1
        if not groups:
            del self._waiting[impression_id]
        return [kept]

    def _rebuild_due(self) -> None:
        self._due = [
            (due_ms, group_id, impression_id)
            for impression_id, groups in self._waiting.items()
            for group_id, (due_ms, _) in groups.items()
        ]
        heapify(self._due)

    def save(self) -> State:
        """Return everything `load` needs."""
        rows = [
            (impression_id, due_ms, group)
            for impression_id, groups in self._waiting.items()
            for due_ms, group in groups.values()
        ]
        return {
            "impression_ids": [impression_id for impression_id, _, _ in rows],
            "due_ms": np.array([due_ms for _, due_ms, _ in rows], np.int64),
            "groups": groups_state([group for _, _, group in rows]),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._waiting = {}
        rows = zip(
            state["impression_ids"],
            state["due_ms"].tolist(),
            groups_from(state["groups"]),
            strict=True,
        )
        for impression_id, due_ms, group in rows:
            self._waiting.setdefault(impression_id, {})[group.group_id] = (due_ms, group)
        self._size = len(state["impression_ids"])
        self._rebuild_due()
