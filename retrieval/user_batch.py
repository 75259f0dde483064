"""Users as arrays of rows: what towers, prior and evaluation read of a batch of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from domain.requests import UserView
from retrieval.id_rows import UNKNOWN, IdRows

_PRIMARY_HEAD = 1
"""Bit of the primary label head in an outcome; an action is positive when it is set."""


@dataclass(frozen=True, slots=True, eq=False)
class UserBatch:
    """B users, each at the moment of a request; T events in the longest history read.

    Only positive events on items the catalog knows are read; K of them are the most recent.

    Attributes:
        times_ms: int64 (B,), time of each request.
        history_BT: int64, item rows, oldest first, left-aligned, UNKNOWN at padding.
        seconds_BU: int64 (B, T + 1), event times in seconds; from index `length` on the time of
            the request.
        recent_BK: int64, newest first, UNKNOWN where there is none.
        used_user: int64 (U,), with `used_row` the pairs of users and any items in their history.
        used_row: int64 (U,).
    """

    times_ms: NDArray[np.int64]
    history_BT: NDArray[np.int64]
    seconds_BU: NDArray[np.int64]
    recent_BK: NDArray[np.int64]
    used_user: NDArray[np.int64]
    used_row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.times_ms)


def encode_users(
    users: Sequence[UserView],
    times_ms: Sequence[int],
    ids: IdRows,
    *,
    max_history: int,
    num_recent: int,
) -> UserBatch:
    """Look up every user's history; keeps no reference to `users`."""
    events = _Events(users, ids)
    longest = min(max_history, int(events.num_positive_B.max(initial=0)))
    time_B = np.array(times_ms, dtype=np.int64)
    history_BT = np.full((len(users), longest), UNKNOWN, dtype=np.int64)
    seconds_BU = np.repeat(time_B[:, None] // 1_000, longest + 1, axis=1)
    recent_BK = np.full((len(users), num_recent), UNKNOWN, dtype=np.int64)

    user, age = events.user[events.positive], events.age
    row, time_ms = events.row[events.positive], events.time_ms[events.positive]
    read = age < longest
    place = np.minimum(events.num_positive_B, longest)[user[read]] - 1 - age[read]
    history_BT[user[read], place] = row[read]
    seconds_BU[user[read], place] = time_ms[read] // 1_000
    newest = age < num_recent
    recent_BK[user[newest], age[newest]] = row[newest]
    known = events.row != UNKNOWN
    return UserBatch(
        times_ms=time_B,
        history_BT=history_BT,
        seconds_BU=seconds_BU,
        recent_BK=recent_BK,
        used_user=events.user[known],
        used_row=events.row[known],
    )


class _Events:
    """All events of all users, one after the other.

    Attributes:
        user, row, time_ms: int64 (A,), whose, on which row (UNKNOWN for none), and when.
        positive: bool (A,), whether it is a positive event on a known item.
        num_positive_B: int64, positive events of each user.
        age: int64, for each positive event how many newer ones its user has.
    """

    def __init__(self, users: Sequence[UserView], ids: IdRows) -> None:
        histories = [user.history for user in users]
        none = np.zeros(0, dtype=np.int64)
        self.user = np.repeat(np.arange(len(users)), [len(history) for history in histories])
        self.row = ids.rows(chain.from_iterable(history.item_ids for history in histories))
        self.time_ms = np.concatenate([none, *(history.times_ms for history in histories)])
        outcomes = np.concatenate([none, *(history.outcomes for history in histories)])
        self.positive = (self.row != UNKNOWN) & ((outcomes & _PRIMARY_HEAD) != 0)
        user = self.user[self.positive]
        self.num_positive_B = np.bincount(user, minlength=len(users))
        self.age = np.cumsum(self.num_positive_B)[user] - 1 - np.arange(len(user))
