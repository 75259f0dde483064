from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from domain.state import state_hash
from stream.history import HistoryBounds, UserHistory, histories_from, histories_state

ROOMY = HistoryBounds(max_entries=100, max_shown=100, session_gap_ms=20)
TIGHT = HistoryBounds(max_entries=3, max_shown=2, session_gap_ms=20)


class Shown(NamedTuple):
    impression_id: str
    time_ms: int


class Action(NamedTuple):
    item_id: str
    impression_id: str | None
    time_ms: int
    outcome: int


Step = Shown | Action

IMPRESSIONS = st.sampled_from([Shown("p", 10), Shown("q", 10), Shown("r", 35), Shown("s", 60)])
ACTIONS = st.builds(
    Action,
    st.sampled_from("abc"),
    st.sampled_from([None, "p", "q", "r", "never shown"]),
    st.integers(36, 80),
    st.integers(0, 3),
)
STEPS = st.lists(st.one_of(IMPRESSIONS, ACTIONS), max_size=14)


def _observe(history: UserHistory, step: Step, bounds: HistoryBounds) -> None:
    if isinstance(step, Shown):
        history.observe_shown(*step, bounds)
    else:
        history.observe_action(*step, bounds)


def _history_of(steps: list[Step], bounds: HistoryBounds) -> UserHistory:
    history = UserHistory()
    for step in steps:
        _observe(history, step, bounds)
    return history


def _entries(history: UserHistory, time_ms: int) -> list[tuple[int, str, int]]:
    view = history.view(time_ms)
    return list(zip(view.times_ms.tolist(), view.item_ids, view.outcomes.tolist(), strict=True))


def _entries_by_definition(steps: list[Step], time_ms: int) -> list[tuple[int, str, int]]:
    """Return what the history is, said in one go: the slow twin."""
    shown = {step.impression_id: step.time_ms for step in steps if isinstance(step, Shown)}
    actions = [step for step in steps if isinstance(step, Action)]
    merged: dict[object, list[Action]] = {}
    for action in actions:
        organic = action.impression_id is None
        key = (action.item_id, action.time_ms if organic else action.impression_id)
        merged.setdefault(key, []).append(action)
    entries = []
    for group in merged.values():
        first_ms = min(action.time_ms for action in group)
        outcome = 0
        for action in group:
            outcome |= action.outcome
        if max(action.time_ms for action in group) <= time_ms:
            entry_ms = shown.get(group[0].impression_id or "", first_ms)
            entries.append((entry_ms, group[0].item_id, outcome))
    return sorted(entries)


@given(steps=STEPS, data=st.data(), time_ms=st.integers(30, 90))
def test_history_agrees_with_its_definition_in_any_order(
    steps: list[Step], data: st.DataObject, time_ms: int
) -> None:
    repeated = steps + steps[: len(steps) // 2]
    shuffled = data.draw(st.permutations(repeated))
    history = _history_of(shuffled, ROOMY)
    assert sorted(_entries(history, 1_000)) == _entries_by_definition(steps, 1_000)
    assert sorted(_entries(history, time_ms)) == _entries_by_definition(steps, time_ms)
    in_order = _history_of(steps, ROOMY)
    assert _entries(history, time_ms) == _entries(in_order, time_ms)
    assert history.shown.before(time_ms, 20) == in_order.shown.before(time_ms, 20)


@given(steps=STEPS)
def test_history_is_bounded_and_sorted_after_every_event(steps: list[Step]) -> None:
    history = UserHistory()
    for step in steps:
        _observe(history, step, TIGHT)
        assert len(history) <= TIGHT.max_entries
        assert len(history.shown.keys) <= TIGHT.max_shown
        entries = _entries(history, 1_000)
        assert entries == sorted(entries, key=lambda entry: entry[:2])
        assert list(history.shown.times_ms) == sorted(history.shown.times_ms)


@given(steps=STEPS, cut=st.integers(0, 14))
def test_history_continues_exactly_when_loaded(steps: list[Step], cut: int) -> None:
    whole = _history_of(steps, TIGHT)
    (resumed,) = histories_from(histories_state([_history_of(steps[:cut], TIGHT)]))
    for step in steps[cut:]:
        _observe(resumed, step, TIGHT)
    assert state_hash(histories_state([whole])) == state_hash(histories_state([resumed]))
    assert _entries(whole, 50) == _entries(resumed, 50)


@given(times_ms=st.lists(st.integers(0, 120), min_size=1, max_size=12), at_ms=st.integers(0, 150))
def test_session_position_agrees_with_walking_back(times_ms: list[int], at_ms: int) -> None:
    history = _history_of([Shown(f"i{at}", time_ms) for at, time_ms in enumerate(times_ms)], ROOMY)
    before = sorted(time_ms for time_ms in times_ms if time_ms <= at_ms)
    count, newer_ms = 0, at_ms
    while before and newer_ms - before[-1] <= 20:
        newer_ms = before.pop()
        count += 1
    last_ms = max((time_ms for time_ms in times_ms if time_ms <= at_ms), default=None)
    assert history.shown.before(at_ms, 20) == (last_ms, count)
