"""Rows that say what was shown, put together to one impression per list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from domain.events import Features, Impression, ShownItem
from replay.event_rows import EventRows


class ShownLists:
    """Lists in the order in which their first rows were added; rows come in order of time."""

    def __init__(self, rows: EventRows, contexts: Sequence[Features]) -> None:
        self._rows = rows
        self._contexts = contexts
        self._rows_of: dict[str, list[int]] = {}
        self._list_of: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._rows_of)

    def add(self, row: int, impression_id: str) -> None:
        """Take one row as the next item of a list.

        Raises:
            DatasetError: the list belongs to another user, or shows the item already.
        """
        members = self._rows_of.setdefault(impression_id, [])
        rows = self._rows
        if members and rows.users[members[0]] != rows.users[row]:
            raise rows.error(
                row,
                f"impression {impression_id!r} was shown to user {rows.users[members[0]]!r}, "
                f"here its user is {rows.users[row]!r}",
            )
        if any(rows.items[member] == rows.items[row] for member in members):
            raise rows.error(
                row, f"impression {impression_id!r} shows item {rows.items[row]!r} twice"
            )
        members.append(row)
        self._list_of[row] = impression_id

    def impression_id(self, row: int) -> str:
        """Return the list that a row belongs to."""
        return self._list_of[row]

    def started_ms(self) -> dict[str, int]:
        """Return the time of each list: that of its first row."""
        return {name: int(self._rows.times_ms[rows[0]]) for name, rows in self._rows_of.items()}

    def events(self) -> Iterator[Impression]:
        """Return the impressions in order of time."""
        rows = self._rows
        for impression_id, members in self._rows_of.items():
            yield Impression(
                event_id=impression_id,
                time_ms=int(rows.times_ms[members[0]]),
                user_id=rows.users[members[0]],
                items=tuple(
                    ShownItem(item_id=rows.items[row], position=position)
                    for position, row in enumerate(members)
                ),
                context=self._contexts[members[0]],
            )
