"""Users as arrays of rows: what towers, prior and evaluation read of a batch of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.requests import History, UserView
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
        seconds_BS: int64 (B, T + 1), event times in seconds; from index `length` on the time of
            the request.
        recent_BK: int64, newest first, UNKNOWN where there is none.
        used_user: int64 (U,), with `used_row` the pairs of users and any items in their history.
        used_row: int64 (U,).
    """

    times_ms: NDArray[np.int64]
    history_BT: NDArray[np.int64]
    seconds_BS: NDArray[np.int64]
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
    used = [ids.rows(user.history.item_ids) for user in users]
    kept = [_positives(user.history, rows) for user, rows in zip(users, used, strict=True)]
    longest = min(max_history, max((len(rows) for rows, _ in kept), default=0))
    time_B = np.array(times_ms, dtype=np.int64)
    history_BT = np.full((len(users), longest), UNKNOWN, dtype=np.int64)
    seconds_BS = np.repeat(time_B[:, None] // 1_000, longest + 1, axis=1)
    recent_BK = np.full((len(users), num_recent), UNKNOWN, dtype=np.int64)
    for b, (rows, times) in enumerate(kept):
        rows_T, times_T = rows[-max_history:], times[-max_history:]
        history_BT[b, : len(rows_T)] = rows_T
        seconds_BS[b, : len(rows_T)] = times_T // 1_000
        recent_K = rows[: -num_recent - 1 : -1]
        recent_BK[b, : len(recent_K)] = recent_K
    used_user = np.repeat(np.arange(len(users)), [len(rows) for rows in used])
    used_row = np.concatenate([*used, np.zeros(0, dtype=np.int64)])
    known = used_row != UNKNOWN
    return UserBatch(
        times_ms=time_B,
        history_BT=history_BT,
        seconds_BS=seconds_BS,
        recent_BK=recent_BK,
        used_user=used_user[known],
        used_row=used_row[known],
    )


def _positives(
    history: History, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and times of positive events on known items."""
    positive = (rows != UNKNOWN) & ((history.outcomes & _PRIMARY_HEAD) != 0)
    return rows[positive], history.times_ms[positive]
