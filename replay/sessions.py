"""Sessions: when a user's visit is over, and with it what she did becomes known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def session_revealed_ms(
    users: NDArray[np.int64], times_ms: NDArray[np.int64], gap_ms: int
) -> NDArray[np.int64]:
    """Return, for each impression, the time at which its session is known to be over.

    A session ends with the last impression that is followed by more than `gap_ms` without another
    of the same user; `gap_ms` after it nobody can add to it any more. Used only to say when
    feedback arrives, never to say what it is.

    Args:
        users: int64 (N,), any code per user.
        times_ms: int64 (N,), times of the impressions, in any order.
        gap_ms: longest pause within a session.

    Returns:
        int64 (N,), time of the session's last impression plus `gap_ms`.

    >>> session_revealed_ms(np.array([7, 7, 7]), np.array([0, 10, 21]), 10).tolist()
    [20, 20, 31]
    """
    if len(users) == 0:
        return np.zeros(0, np.int64)
    order = np.lexsort((times_ms, users))
    users_sorted, times_sorted = users[order], times_ms[order]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = (users_sorted[1:] != users_sorted[:-1]) | (np.diff(times_sorted) > gap_ms)
    ends = np.flatnonzero(last)
    # each sorted row belongs to the first session end at or after it
    end_of_row = ends[np.searchsorted(ends, np.arange(len(order)))]
    revealed = np.empty(len(order), np.int64)
    revealed[order] = times_sorted[end_of_row] + gap_ms
    return revealed
