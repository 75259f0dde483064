"""Whatever the log, events come in order and labels wait until the session is over."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.events import Event, Feedback, Impression, ItemUpdate
from replay.datasets import Dataset, DatasetOptions, EventFileColumns, open_dataset
from replay.sessions import session_revealed_ms
from stream.event_check import contradiction

GAP_MS = 20


def slow_revealed_ms(users: list[int], times_ms: list[int], gap_ms: int) -> list[int]:
    """For each row, walk to the end of its session one impression at a time."""
    revealed = []
    for user, time_ms in zip(users, times_ms, strict=True):
        end_ms = time_ms
        while True:
            later = [
                t
                for u, t in zip(users, times_ms, strict=True)
                if u == user and end_ms < t <= end_ms + gap_ms
            ]
            if not later:
                break
            end_ms = max(later)
        revealed.append(end_ms + gap_ms)
    return revealed


logs = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 200)), min_size=1, max_size=40)


@given(logs, st.integers(1, 50))
def test_session_revealed_agrees_with_walking_to_its_end(
    log: list[tuple[int, int]], gap_ms: int
) -> None:
    users, times_ms = [user for user, _ in log], [time for _, time in log]
    fast = session_revealed_ms(np.array(users), np.array(times_ms), gap_ms)
    assert fast.tolist() == slow_revealed_ms(users, times_ms, gap_ms)


rows = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(1, 200), st.booleans()),
    min_size=1,
    max_size=30,
)


def opened(folder: str, log: list[tuple[int, int, int, bool]], label: bool) -> Dataset:
    path = Path(folder) / "log.csv"
    lines = [f"u{user},i{item},{time},{int(label)}" for user, item, time, label in log]
    path.write_text("\n".join(["who,what,when,y", *lines]) + "\n")
    columns = EventFileColumns(user="who", item="what", time="when", label=("y",) if label else ())
    return open_dataset("events", path, DatasetOptions(columns=columns, session_gap_ms=GAP_MS))


def check_stream(events: list[Event]) -> None:
    """In order, without contradictions, ids once, items announced before they are used."""
    assert [e.time_ms for e in events] == sorted(e.time_ms for e in events)
    assert len({e.event_id for e in events}) == len(events)
    known: set[str] = set()
    for event in events:
        assert not contradiction(event)
        match event:
            case ItemUpdate():
                assert event.item_id not in known
                known.add(event.item_id)
            case Feedback():
                assert event.item_id in known
            case Impression():
                assert {item.item_id for item in event.items} <= known


@settings(max_examples=60)
@given(rows)
def test_outcomes_are_known_when_the_session_is_over_and_never_before(
    log: list[tuple[int, int, int, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset = opened(folder, log, label=True)
        events = list(dataset.events())
    check_stream(events)
    shown = {event.event_id: event for event in events if isinstance(event, Impression)}
    done = [event for event in events if isinstance(event, Feedback)]
    assert len(shown) == len(done) == len(log)
    order = sorted(log, key=lambda row: row[2])
    revealed = slow_revealed_ms([row[0] for row in order], [row[2] for row in order], GAP_MS)
    expected = sorted(
        (time, f"u{user}", f"i{item}", float(label))
        for (user, item, _, label), time in zip(order, revealed, strict=True)
    )
    assert sorted((e.time_ms, e.user_id, e.item_id, e.value) for e in done) == expected
    waits = [event.time_ms - shown[str(event.impression_id)].time_ms for event in done]
    assert dataset.joiner_hints.attribution_window_ms == max(waits)
    for event in done:
        # nobody is told a label while the user is still looking
        same = [e.time_ms for e in shown.values() if e.user_id == event.user_id]
        assert not any(event.time_ms - GAP_MS < time < event.time_ms for time in same)


@settings(max_examples=60)
@given(rows)
def test_actions_come_in_order_of_time_and_none_is_lost(
    log: list[tuple[int, int, int, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        events = list(opened(folder, log, label=False).events())
    check_stream(events)
    done = [(e.user_id, e.item_id, e.time_ms) for e in events if isinstance(e, Feedback)]
    order = sorted(log, key=lambda row: row[2])
    assert done == [(f"u{user}", f"i{item}", time) for user, item, time, _ in order]
