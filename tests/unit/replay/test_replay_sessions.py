"""Sessions end where nobody added anything for long enough."""

from __future__ import annotations

import numpy as np

from replay.sessions import session_revealed_ms


def revealed(users: list[int], times_ms: list[int], gap_ms: int) -> list[int]:
    return session_revealed_ms(
        np.array(users, np.int64), np.array(times_ms, np.int64), gap_ms
    ).tolist()


def test_session_revealed_ends_a_gap_after_its_last_impression() -> None:
    assert revealed([1, 1, 1], [100, 150, 200], 60) == [260, 260, 260]


def test_session_revealed_keeps_one_session_when_the_pause_is_exactly_the_gap() -> None:
    assert revealed([1, 1], [100, 160], 60) == [220, 220]
    assert revealed([1, 1], [100, 161], 60) == [160, 221]


def test_session_revealed_keeps_users_apart() -> None:
    assert revealed([1, 2, 1], [100, 110, 120], 15) == [115, 125, 135]


def test_session_revealed_does_not_mind_the_order_of_rows() -> None:
    assert revealed([1, 1, 1], [200, 100, 150], 60) == [260, 260, 260]


def test_session_revealed_is_empty_when_nothing_was_shown() -> None:
    assert revealed([], [], 60) == []
