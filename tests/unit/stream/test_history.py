from __future__ import annotations

import numpy as np
import pytest

from domain.state import state_hash
from stream.history import HistoryBounds, UserHistory, histories_from, histories_state

BOUNDS = HistoryBounds(max_entries=4, max_shown=3, session_gap_ms=100)
CLICK, LIKE = 0b01, 0b10


def _entries(history: UserHistory, time_ms: int = 10**12) -> list[tuple[str, int, int]]:
    view = history.view(time_ms)
    rows = zip(view.item_ids, view.times_ms.tolist(), view.outcomes.tolist(), strict=True)
    return list(rows)


def test_entry_stands_at_the_time_its_item_was_shown() -> None:
    history = UserHistory()
    history.observe_shown("imp", 10, BOUNDS)
    history.observe_action("a", "imp", 25, CLICK, BOUNDS)
    assert _entries(history) == [("a", 10, CLICK)]


def test_entry_stands_at_its_feedback_when_the_impression_is_not_known() -> None:
    history = UserHistory()
    history.observe_action("a", "imp", 25, CLICK, BOUNDS)
    assert _entries(history) == [("a", 25, CLICK)]


def test_entries_move_when_their_impression_comes_after_them() -> None:
    history = UserHistory()
    history.observe_action("a", "imp", 25, CLICK, BOUNDS)
    history.observe_action("c", "imp", 26, 0, BOUNDS)
    history.observe_action("b", None, 15, CLICK, BOUNDS)
    history.observe_shown("imp", 10, BOUNDS)
    assert _entries(history) == [("a", 10, CLICK), ("c", 10, 0), ("b", 15, CLICK)]


def test_several_kinds_of_feedback_make_one_entry() -> None:
    history = UserHistory()
    history.observe_shown("imp", 10, BOUNDS)
    history.observe_action("a", "imp", 11, CLICK, BOUNDS)
    history.observe_action("a", "imp", 12, LIKE, BOUNDS)
    history.observe_action("a", "imp", 11, CLICK, BOUNDS)
    assert _entries(history) == [("a", 10, CLICK | LIKE)]


def test_known_no_is_an_entry_without_a_bit() -> None:
    history = UserHistory()
    history.observe_action("a", None, 11, 0, BOUNDS)
    assert _entries(history) == [("a", 11, 0)]


def test_organic_actions_on_one_item_are_entries_of_their_own_when_times_differ() -> None:
    history = UserHistory()
    for time_ms in (5, 7, 5):
        history.observe_action("a", None, time_ms, CLICK, BOUNDS)
    assert _entries(history) == [("a", 5, CLICK), ("a", 7, CLICK)]


def test_oldest_entry_is_cut_when_there_are_too_many() -> None:
    history = UserHistory()
    for time_ms in (50, 10, 30, 20, 40):
        history.observe_action("a", None, time_ms, CLICK, BOUNDS)
    assert [time_ms for _, time_ms, _ in _entries(history)] == [20, 30, 40, 50]


def test_view_holds_nothing_revealed_later() -> None:
    history = UserHistory()
    history.observe_shown("imp", 10, BOUNDS)
    history.observe_action("a", "imp", 30, CLICK, BOUNDS)
    history.observe_action("b", None, 12, CLICK, BOUNDS)
    assert _entries(history, 9) == []
    assert _entries(history, 29) == [("b", 12, CLICK)]
    assert _entries(history, 30) == [("a", 10, CLICK), ("b", 12, CLICK)]


def test_view_holds_nothing_shown_later_when_two_clocks_differ() -> None:
    history = UserHistory()
    history.observe_action("a", "imp", 5, CLICK, BOUNDS)
    history.observe_shown("imp", 10, BOUNDS)
    assert _entries(history, 7) == []
    assert _entries(history, 10) == [("a", 10, CLICK)]


def test_view_is_a_snapshot_that_cannot_be_written() -> None:
    history = UserHistory()
    history.observe_action("a", None, 1, CLICK, BOUNDS)
    view = history.view(5)
    history.observe_action("b", None, 2, CLICK, BOUNDS)
    assert view.item_ids == ("a",)
    assert len(view) == len(view.times_ms) == len(view.outcomes) == 1
    with pytest.raises(ValueError, match="read-only"):
        view.outcomes[0] = 0


def test_view_is_built_once_until_something_changes() -> None:
    history = UserHistory()
    history.observe_action("a", None, 1, CLICK, BOUNDS)
    assert history.view(5) is history.view(6)
    first = history.view(5)
    history.observe_action("b", None, 2, CLICK, BOUNDS)
    assert history.view(5) is not first


def test_empty_view_has_empty_columns_of_int64() -> None:
    view = UserHistory().view(5)
    assert len(view) == 0
    assert view.times_ms.dtype == view.outcomes.dtype == np.int64


def test_session_counts_lists_until_the_gap() -> None:
    shown = UserHistory().shown
    for key, time_ms in enumerate((1_000, 1_050, 1_150, 1_251), 1):
        before = shown.before(time_ms, BOUNDS.session_gap_ms)
        shown.add(key, time_ms, BOUNDS)
        expected = {1_000: (None, 0), 1_050: (1_000, 1), 1_150: (1_050, 2), 1_251: (1_150, 0)}
        assert before == expected[time_ms]


def test_session_position_goes_on_counting_when_old_lists_are_forgotten() -> None:
    shown = UserHistory().shown
    for key in range(1, 21):
        shown.add(key, 10 * key, BOUNDS)
    assert len(shown.keys) == BOUNDS.max_shown
    assert shown.before(205, BOUNDS.session_gap_ms) == (200, 20)
    shown.add(99, 5, BOUNDS)  # older than all that is remembered
    assert shown.before(205, BOUNDS.session_gap_ms) == (200, 20)


def test_session_is_put_right_when_a_list_comes_out_of_order() -> None:
    shown = UserHistory().shown
    for key, time_ms in ((1, 0), (3, 160), (2, 80), (2, 80)):
        shown.add(key, time_ms, BOUNDS)
    assert shown.before(160, BOUNDS.session_gap_ms) == (160, 3)
    assert shown.before(100, BOUNDS.session_gap_ms) == (80, 2)  # a request of the past


def test_lists_shown_at_the_same_time_stand_in_the_same_order_however_they_came() -> None:
    one, two = UserHistory().shown, UserHistory().shown
    for shown, keys in ((one, (1, 2, -3)), (two, (-3, 2, 1))):
        for key in keys:
            shown.add(key, 50, BOUNDS)
    assert one.keys == two.keys


def test_histories_continue_exactly_when_loaded() -> None:
    histories = [UserHistory() for _ in range(3)]
    for at, history in enumerate(histories[:2]):
        history.observe_shown("imp", 10 + at, BOUNDS)
        history.observe_action("a", "imp", 30 + at, CLICK, BOUNDS)
        history.observe_action("b", None, 12, LIKE, BOUNDS)
    state = histories_state(histories)
    loaded = histories_from(state)
    assert state_hash(histories_state(loaded)) == state_hash(state)
    for one, two in zip(histories, loaded, strict=True):
        for history in (one, two):
            history.observe_action("c", "imp", 40, CLICK, BOUNDS)
            history.observe_shown("imp2", 20, BOUNDS)
        assert _entries(one) == _entries(two)
        assert _entries(one, 15) == _entries(two, 15)
        assert one.shown.before(99, 100) == two.shown.before(99, 100)
