"""Stacking captured requests."""

from __future__ import annotations

import numpy as np

from domain.requests import CapturedRequest
from ranking.collate import collate


def captured(
    request_id: int, item_ids: list[int], history_ids: list[int], outcomes: list[int]
) -> CapturedRequest:
    """Make a capture with one id column and one number on each side; item i's number is i."""
    return CapturedRequest(
        user_id="",
        item_ids=tuple(map(str, item_ids)),
        time_ms=100_500,
        arrays={
            "request_ids": np.array([request_id]),
            "item_ids": np.array(item_ids, np.int64).reshape(-1, 1),
            "request_floats": np.array([request_id], np.float32),
            "item_floats": np.array(item_ids, np.float32).reshape(-1, 1),
            "history_ids": np.array(history_ids, np.int64),
            "history_times_ms": np.array(history_ids, np.int64) * 10_000,
            "history_outcomes": np.array(outcomes, np.int32),
            "activity": np.zeros((len(item_ids), 4), np.float32),
        },
    )


FIRST = captured(100, [1, 2, 3], [], [])
SECOND = captured(200, [3], [2, 9], [0, 3])


def test_ids_are_stacked_once_each() -> None:
    batch = collate([FIRST, SECOND])
    assert batch.ids.tolist() == [0, 1, 2, 3, 9, 100, 200]
    assert batch.counts.tolist() == [2, 1, 2, 2, 1, 1, 1]
    assert batch.ids[batch.request_BS].tolist() == [[100], [200]]
    assert batch.ids[batch.item_MI].tolist() == [[1], [2], [3], [3]]
    assert batch.ids[batch.history_BT].tolist() == [[0, 0], [2, 9]]


def test_histories_are_padded_at_the_end() -> None:
    batch = collate([SECOND, FIRST])
    assert batch.lengths_B.tolist() == [2, 0]
    assert batch.times_s_BU.tolist() == [[20.0, 90.0, 100.5], [100.5, 100.5, 100.5]]
    assert batch.outcomes_BT.tolist() == [[0, 3], [0, 0]]


def test_items_know_their_request_and_place() -> None:
    batch = collate([FIRST, SECOND])
    assert batch.request_M.tolist() == [0, 0, 0, 1]
    assert batch.slot_M.tolist() == [0, 1, 2, 0]
    assert batch.num_slots == 3
    assert batch.floats_MW.tolist() == [[100, 1], [100, 2], [100, 3], [200, 3]]


def test_only_chosen_items_are_stacked() -> None:
    batch = collate([FIRST, SECOND], [np.array([2, 0]), np.array([0])])
    assert batch.ids[batch.item_MI].tolist() == [[3], [1], [3]]
    assert batch.floats_MW[:, 1].tolist() == [3, 1, 3]
    assert batch.slot_M.tolist() == [0, 1, 0]
    assert batch.num_slots == 2


def test_requests_without_items_or_history_are_stacked_too() -> None:
    empty = captured(300, [], [], [])
    assert collate([empty]).floats_MW.shape == (0, 2)
    assert collate([empty]).history_BT.shape == (1, 1)
    assert collate([FIRST, empty, SECOND]).request_M.tolist() == [0, 0, 0, 2]
