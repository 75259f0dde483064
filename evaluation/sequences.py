"""What each user did, in order; and the padded containers that a sequence model is fed with.

The containers are those of the research trainer of Zhai et al., "Actions Speak Louder than Words"
(arXiv 2402.17152), which FuXi-alpha and FuXi-beta reuse. A user's events after the first few are
cut off at the end: with 0 cut, the last event is the target and all before are the history; with 1
cut, the last but one is the target; and so on. The time of the target is part of the input: at the
moment of asking it is known.

Shape legend: U users, E events of all users, B users in a batch, T positions, L longest history.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.state import state_hash

Ints = NDArray[np.int64]

PADDING = 0
"""Row of the item table that stands for nothing."""
SPARE_SLOTS = 11
"""Empty places after the longest history: N = L + 11, as published. N is a constant of the model:
attention weights are divided by it."""


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """Events of all users, each user's in order of time.

    Attributes:
        item_E: rows of the item table; row 0 is padding, rows 1 to `num_candidates` are the items
            that are ranked, rows above are items that users met but that are not ranked.
        time_s_E: event times in seconds.
        start_U1: user u's events are those from start_U1[u] to start_U1[u + 1].
        num_rows: rows of the item table, the padding one included.
    """

    item_E: Ints
    time_s_E: Ints
    start_U1: Ints
    num_candidates: int
    num_rows: int

    @property
    def num_users(self) -> int:
        """Return the number of users."""
        return len(self.start_U1) - 1

    @property
    def fingerprint(self) -> str:
        """Return a short name of exactly these events."""
        arrays = {"item": self.item_E, "time_s": self.time_s_E, "start": self.start_U1}
        return state_hash({**arrays, "candidates": self.num_candidates})[:16]

    def users_with(self, num_events: int) -> Ints:
        """Return the users who have at least so many events."""
        return np.flatnonzero(np.diff(self.start_U1) >= num_events)


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Histories of some users, oldest first from place 0 on, and what came next.

    Attributes:
        item_BT1: rows of the item table; at place `length` stands the target, then padding.
        time_s_BT1: event times; at place `length` the target's, then 0.
        length_B: number of history events, 1 to L.
    """

    item_BT1: Ints
    time_s_BT1: Ints
    length_B: Ints

    def targets(self) -> Ints:
        """Return the items that came next, (B,)."""
        target_B: Ints = self.item_BT1[np.arange(len(self.length_B)), self.length_B]
        return target_B

    def histories(self) -> Ints:
        """Return the histories without their targets, padded, (B, T)."""
        place_T = np.arange(self.item_BT1.shape[1] - 1)
        inside_BT = place_T < self.length_B[:, None]
        history_BT: Ints = np.where(inside_BT, self.item_BT1[:, :-1], PADDING)
        return history_BT


def lengths(sequences: Sequences, users_B: Ints, *, cut: int, longest: int) -> Ints:
    """Return how long the history of each user is: at most `longest`."""
    num_B = sequences.start_U1[users_B + 1] - sequences.start_U1[users_B]
    length_B: Ints = np.minimum(num_B - cut - 1, longest)
    return length_B


def batch(
    sequences: Sequences, users_B: Ints, *, cut: int, longest: int, width: int | None = None
) -> Batch:
    """Put the most recent events before the target into a container.

    Args:
        sequences: everybody's events.
        users_B: who is in the batch.
        longest: how many events at most (L).
        cut: how many of each user's last events are hidden; she must have at least cut + 2.
        width: places for history events; as many as the longest history of the batch needs when it
            is not given, which changes nothing but the time it takes.
    """
    length_B = lengths(sequences, users_B, cut=cut, longest=longest)
    assert length_B.min(initial=1) >= 1, "every user needs an event before the target"
    width = int(length_B.max(initial=1)) if width is None else width
    first_B = sequences.start_U1[users_B + 1] - cut - 1 - length_B
    place_T1 = np.arange(width + 1)
    inside_BT1 = place_T1 <= length_B[:, None]
    event_BT1 = np.where(inside_BT1, first_B[:, None] + place_T1, 0)
    return Batch(
        np.where(inside_BT1, sequences.item_E[event_BT1], PADDING),
        np.where(inside_BT1, sequences.time_s_E[event_BT1], 0),
        length_B,
    )
