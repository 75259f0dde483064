"""Session numbers: gaps, order of arrival, bounded memory, save and load."""

from __future__ import annotations

import pytest

from domain.errors import ConfigError
from monitoring.session_ids import SessionIds, SessionIdsConfig

MINUTE = 60_000


def test_session_goes_on_at_the_gap_and_ends_beyond_it() -> None:
    sessions = SessionIds()
    assert sessions.assign("ann", 0) == 0
    assert sessions.assign("ann", 30 * MINUTE) == 0
    assert sessions.assign("ann", 60 * MINUTE + 1) == 1


def test_sessions_of_two_users_have_different_numbers() -> None:
    sessions = SessionIds()
    assert [sessions.assign(user, 0) for user in ("ann", "bob", "ann", "bob")] == [0, 1, 0, 1]


def test_late_impression_joins_the_session_it_is_near_and_does_not_move_its_end() -> None:
    sessions = SessionIds()
    assert sessions.assign("ann", 40 * MINUTE) == 0
    assert sessions.assign("ann", 20 * MINUTE) == 0
    assert sessions.assign("ann", 65 * MINUTE) == 0  # 25 minutes after the newest


def test_very_late_impression_stands_alone_and_leaves_the_open_session_as_it_is() -> None:
    sessions = SessionIds()
    assert sessions.assign("ann", 100 * MINUTE) == 0
    assert sessions.assign("ann", 10 * MINUTE) == 1
    assert sessions.assign("ann", 110 * MINUTE) == 0


def test_users_are_forgotten_without_loss_when_their_sessions_are_over() -> None:
    sessions = SessionIds(SessionIdsConfig(max_users=3))
    for minute in range(1_000):
        sessions.assign(f"user{minute}", minute * 20 * MINUTE)
        assert len(sessions) <= 2
    assert sessions.forgotten_early == 0


def test_longest_silent_user_is_forgotten_and_counted_when_too_many_are_active() -> None:
    sessions = SessionIds(SessionIdsConfig(max_users=2))
    assert [sessions.assign(user, 0) for user in ("ann", "bob", "cem")] == [0, 1, 2]
    assert len(sessions) == 2
    assert sessions.forgotten_early == 1
    assert sessions.assign("bob", 1) == 1
    assert sessions.assign("ann", 1) == 3  # forgotten too early: a new session


def test_load_continues_exactly_where_save_stood() -> None:
    times = [(f"user{i * i % 7}", i * 7 * MINUTE) for i in range(100)]
    straight, before = SessionIds(), SessionIds()
    for user, time_ms in times[:50]:
        straight.assign(user, time_ms)
        before.assign(user, time_ms)
    after = SessionIds()
    after.load(before.save())
    for user, time_ms in times[50:]:
        assert after.assign(user, time_ms) == straight.assign(user, time_ms)
    assert len(after) == len(straight)


@pytest.mark.parametrize("bad", [{"gap_ms": 0}, {"max_users": 0}])
def test_config_names_the_key_when_a_value_is_out_of_range(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"^session_ids\.{next(iter(bad))} "):
        SessionIdsConfig(**bad)
