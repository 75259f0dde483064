"""History: a user's recent actions in event-time order."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from domain.requests import History
from domain.state import State
from stream.columns import join_rows, pack_strings, split_list, split_rows, unpack_strings
from stream.deduplicator import hash_id

_ORGANIC = 0
"""Stands for "no impression" among hashed impression ids; `hash_id` is never 0."""

_SHOWN_COLUMNS = ("times_ms", "keys", "positions")
_COLUMNS = ("times_ms", "keys", "outcomes", "revealed_ms")


class HistoryBounds(NamedTuple):
    """How much is remembered of one user.

    Attributes:
        max_entries: entries of the history.
        max_shown: impressions whose times are remembered.
        session_gap_ms: a longer pause between two impressions begins a new session.
    """

    max_entries: int
    max_shown: int
    session_gap_ms: int


class _Entry(NamedTuple):
    item_id: str
    outcome: int
    revealed_ms: int


class ShownLists:
    """When a user was shown her last lists, in event-time order, and their place in the session."""

    __slots__ = _SHOWN_COLUMNS

    def __init__(self) -> None:
        self.times_ms = array("q")
        self.keys = array("q")
        self.positions = array("q")

    def time_of(self, key: int) -> int | None:
        """Return the event time of an impression, None when it is not remembered."""
        return self.times_ms[self.keys.index(key)] if key in self.keys else None

    def add(self, key: int, time_ms: int, bounds: HistoryBounds) -> None:
        """Take in an impression; one that is remembered changes nothing."""
        if key in self.keys:
            return
        at = bisect_left(self.times_ms, time_ms)
        while at < len(self.keys) and (self.times_ms[at], self.keys[at]) < (time_ms, key):
            at += 1  # equal times are ordered by key, so that the order of arrival has no effect
        is_full = len(self.keys) >= bounds.max_shown
        if is_full and at == 0:
            return  # older than all that is remembered
        self.times_ms.insert(at, time_ms)
        self.keys.insert(at, key)
        self.positions.insert(at, 0)
        self._number_sessions(at, bounds.session_gap_ms)
        if is_full:
            for name in _SHOWN_COLUMNS:
                getattr(self, name).pop(0)

    def before(self, time_ms: int, session_gap_ms: int) -> tuple[int | None, int]:
        """Return the time of the last list up to `time_ms`, and how many its session had shown.

        The count is 0 when that session is over by `time_ms`.
        """
        at = bisect_right(self.times_ms, time_ms) - 1
        if at < 0:
            return None, 0
        last_ms = self.times_ms[at]
        is_running = time_ms - last_ms <= session_gap_ms
        return last_ms, self.positions[at] + 1 if is_running else 0

    def restore(self, columns: Sequence[array[int]]) -> None:
        """Become the lists with these columns, in the order of `_SHOWN_COLUMNS`."""
        self.times_ms, self.keys, self.positions = columns

    def _number_sessions(self, start: int, session_gap_ms: int) -> None:
        for at in range(start, len(self.keys)):
            is_first = at == 0 or self.times_ms[at] - self.times_ms[at - 1] > session_gap_ms
            self.positions[at] = 0 if is_first else self.positions[at - 1] + 1


class UserHistory:
    """Bounded history of one user; knows every (impression, item) and organic action once.

    Feedback on one (impression, item) makes one entry, at the time the item was shown when that is
    known, else at the time of its first feedback; bits of several kinds of feedback are ORed. An
    organic action is known by its item and time. So repeated events change nothing, and the order
    in which events arrive changes nothing as long as nothing was cut.
    """

    __slots__ = ("_newest_ms", "_view", "item_ids", "shown", *_COLUMNS)

    def __init__(self) -> None:
        self.shown = ShownLists()
        # Parallel columns ordered by (time, item, key); arrays take a quarter of a list's memory.
        self.item_ids: list[str] = []
        self.times_ms = array("q")
        self.keys = array("q")
        self.outcomes = array("q")
        self.revealed_ms = array("q")  # newest feedback that went into the entry
        self._newest_ms = 0
        self._view: History | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    def observe_shown(self, impression_id: str, time_ms: int, bounds: HistoryBounds) -> None:
        """Take in the time of an impression; entries that answer it move there."""
        key = hash_id(impression_id)
        self.shown.add(key, time_ms, bounds)
        shown_ms = self.shown.time_of(key)
        if shown_ms is None or key not in self.keys:
            return
        answers = [at for at, other in enumerate(self.keys) if other == key]
        for entry in [self._pop(at) for at in reversed(answers)]:
            self._insert((shown_ms, entry.item_id, key), entry.outcome, entry.revealed_ms)

    def observe_action(
        self,
        item_id: str,
        impression_id: str | None,
        time_ms: int,
        outcome: int,
        bounds: HistoryBounds,
    ) -> None:
        """Take in what feedback says of an item; `outcome` has the bits of positive heads set."""
        key = _ORGANIC if impression_id is None else hash_id(impression_id)
        entry_ms = None if impression_id is None else self.shown.time_of(key)
        if entry_ms is None:
            entry_ms = time_ms
        at = self._find(item_id, key, time_ms)
        revealed_ms = time_ms
        if at is not None:
            entry_ms = min(entry_ms, self.times_ms[at])
            outcome |= self.outcomes[at]
            revealed_ms = max(revealed_ms, self.revealed_ms[at])
            self._pop(at)
        self._insert((entry_ms, item_id, key), outcome, revealed_ms)
        if len(self.item_ids) > bounds.max_entries:
            self._pop(0)

    def view(self, time_ms: int) -> History:
        """Return the history as known at `time_ms`: nothing shown or revealed later is in it."""
        if time_ms < self._newest_ms:
            return self._build(
                [
                    at
                    for at, revealed_ms in enumerate(self.revealed_ms)
                    if max(revealed_ms, self.times_ms[at]) <= time_ms
                ]
            )
        if self._view is None:
            self._view = self._build(None)
        return self._view

    def _build(self, rows: list[int] | None) -> History:
        item_ids = tuple(self.item_ids)
        times_ms, outcomes = np.array(self.times_ms), np.array(self.outcomes)
        if rows is not None:
            item_ids = tuple(item_ids[row] for row in rows)
            times_ms, outcomes = times_ms[rows], outcomes[rows]
        for column in (times_ms, outcomes):
            column.flags.writeable = False  # one view is handed to many
        return History(item_ids, times_ms, outcomes)

    def _find(self, item_id: str, key: int, time_ms: int) -> int | None:
        if key == _ORGANIC:
            rows = range(bisect_left(self.times_ms, time_ms), bisect_right(self.times_ms, time_ms))
        elif key in self.keys:
            rows = range(self.keys.index(key), len(self.keys))
        else:
            return None
        for at in rows:
            if self.keys[at] == key and self.item_ids[at] == item_id:
                return at
        return None

    def _insert(self, order: tuple[int, str, int], outcome: int, revealed_ms: int) -> None:
        time_ms, item_id, key = order
        at = bisect_left(self.times_ms, time_ms)
        while at < len(self.keys) and (self.times_ms[at], self.item_ids[at], self.keys[at]) < order:
            at += 1
        self.item_ids.insert(at, item_id)
        self.times_ms.insert(at, time_ms)
        self.keys.insert(at, key)
        self.outcomes.insert(at, outcome)
        self.revealed_ms.insert(at, revealed_ms)
        self._newest_ms = max(self._newest_ms, time_ms, revealed_ms)
        self._view = None

    def _pop(self, at: int) -> _Entry:
        self.times_ms.pop(at)
        self.keys.pop(at)
        self._view = None
        return _Entry(self.item_ids.pop(at), self.outcomes.pop(at), self.revealed_ms.pop(at))

    def restore(self, item_ids: list[str], columns: Sequence[array[int]]) -> None:
        """Become the history with these columns, in the order of `_COLUMNS`."""
        self.item_ids = item_ids
        self.times_ms, self.keys, self.outcomes, self.revealed_ms = columns
        self._newest_ms = max(chain(self.times_ms, self.revealed_ms), default=0)
        self._view = None


def histories_state(histories: Sequence[UserHistory]) -> State:
    """Return many histories as columns; `histories_from` reads them back."""
    return {
        "lengths": np.array([len(one) for one in histories], np.int64),
        "item_ids": pack_strings(chain.from_iterable(one.item_ids for one in histories)),
        "entries": {name: join_rows(getattr(one, name) for one in histories) for name in _COLUMNS},
        "shown_lengths": np.array([len(one.shown.keys) for one in histories], np.int64),
        "shown": {
            name: join_rows(getattr(one.shown, name) for one in histories)
            for name in _SHOWN_COLUMNS
        },
    }


def histories_from(state: State) -> list[UserHistory]:
    """Return the histories that `histories_state` described."""
    lengths, shown_lengths = state["lengths"].tolist(), state["shown_lengths"].tolist()
    items = split_list(unpack_strings(state["item_ids"]), lengths)
    entries = [split_rows(state["entries"][name], lengths) for name in _COLUMNS]
    shown = [split_rows(state["shown"][name], shown_lengths) for name in _SHOWN_COLUMNS]
    histories = []
    for index, item_ids in enumerate(items):
        history = UserHistory()
        history.restore(item_ids, [column[index] for column in entries])
        history.shown.restore([column[index] for column in shown])
        histories.append(history)
    return histories
