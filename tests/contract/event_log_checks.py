"""What every event log must do. Each check is given a place where one log lives, still empty.

Reading is checked partition by partition: how many there are, and in which order records of
different partitions come, is up to the log.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol

import pytest

from domain.errors import DecodeError, LogError, LogGapError, LogPositionError
from domain.event_log import DeadLetter, EventLog, Positions, Record, advance
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem, UserUpdate, event_key
from stream.codec import decode, encode

SOON_S = 10.0
"""Long enough for anything that should happen at once, on a busy machine."""


class Place(Protocol):
    """Somewhere a log lives: a file, a folder, topics in a cluster."""

    def store(self, events: Sequence[Event]) -> None:
        """Get events into the log before it is opened, by whatever way they come there."""

    def open(self) -> EventLog:
        """Open one more handle on the log."""

    def drop_before(self, partition: str, offset: int) -> None:
        """Make the log forget records, as retention does."""


def clicks(num_events: int, num_users: int = 5, first: int = 0) -> list[Event]:
    return [
        Feedback(
            event_id=f"e{n:05d}",
            time_ms=1_000 + n,
            user_id=f"u{n % num_users}",
            item_id=f"i{n % 7}",
            kind="click",
        )
        for n in range(first, first + num_events)
    ]


def one_of_each_kind() -> list[Event]:
    shown = (ShownItem(item_id="i1", position=0, score=0.5), ShownItem(item_id="i2", position=1))
    return [
        ItemUpdate(event_id="a", time_ms=1, item_id="i1", features={"tags": ("x", "y")}),
        UserUpdate(event_id="b", time_ms=2, user_id="u", features={"country": "NL"}),
        Impression(event_id="c", time_ms=3, user_id="u", items=shown, context={"hour": 9.0}),
        Feedback(
            event_id="d", time_ms=4, user_id="u", item_id="i2", kind="like", impression_id="c"
        ),
    ]


def read_on(log: EventLog, positions: Positions, max_records: int = 100) -> list[Record]:
    """Read from `positions` to the end as it stands now."""
    ends = log.end_positions()
    records: list[Record] = []
    positions = log.beginning_positions() | positions
    deadline = time.monotonic() + SOON_S
    while any(positions[partition] < end for partition, end in ends.items()):
        assert time.monotonic() < deadline, f"{positions} should have come to {ends}"
        batch = log.read(positions, max_records=max_records, timeout_s=1.0)
        assert len(batch) <= max_records
        records += batch
        positions = advance(positions, batch)
    return records


def by_partition(records: Sequence[Record]) -> dict[str, list[Record]]:
    parts: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        parts[record.partition].append(record)
    return parts


def events_of(records: Sequence[Record]) -> list[Event]:
    return sorted((decode(record.value) for record in records), key=lambda event: event.event_id)


def check_stored_events_come_back(place: Place) -> None:
    place.store(one_of_each_kind())
    with closing(place.open()) as log:
        assert events_of(read_on(log, {})) == one_of_each_kind()


def check_order_per_key_is_kept(place: Place) -> None:
    place.store(clicks(60))
    with closing(place.open()) as log:
        found = [decode(record.value) for record in read_on(log, {}, max_records=7)]
    for user in range(5):
        mine = [event.event_id for event in found if event_key(event) == f"u{user}"]
        assert mine == [f"e{n:05d}" for n in range(60) if n % 5 == user]


def check_offsets_count_up_from_the_beginning_to_the_end(place: Place) -> None:
    place.store(clicks(30))
    with closing(place.open()) as log:
        begin, end = log.beginning_positions(), log.end_positions()
        parts = by_partition(read_on(log, {}))
    assert begin.keys() == end.keys()
    for partition in end:
        offsets = [record.offset for record in parts[partition]]
        assert offsets == list(range(begin[partition], end[partition]))


def check_positions_of_an_empty_log_are_equal(place: Place) -> None:
    place.store([])
    with closing(place.open()) as log:
        assert log.beginning_positions() == log.end_positions() != {}
        assert log.read({}, max_records=10, timeout_s=0.0) == []


def check_batches_are_bounded(place: Place) -> None:
    place.store(clicks(50))
    with closing(place.open()) as log:
        assert len(log.read({}, max_records=1, timeout_s=SOON_S)) == 1
        assert len(read_on(log, {}, max_records=7)) == 50


def check_read_resumes_from_any_position(place: Place) -> None:
    place.store(clicks(40))
    with closing(place.open()) as log:
        whole = by_partition(read_on(log, {}))
        first = log.read({}, max_records=13, timeout_s=SOON_S)
        resumed = by_partition([*first, *read_on(log, advance({}, first))])
        assert resumed == whole
        again = log.read({}, max_records=13, timeout_s=SOON_S)
        assert by_partition(again) == by_partition(first)
    with closing(place.open()) as log:
        rest = by_partition(read_on(log, advance({}, first)))
        assert by_partition([*first, *(r for part in rest.values() for r in part)]) == whole


def check_read_leaves_positions_as_they_are(place: Place) -> None:
    place.store(clicks(3))
    with closing(place.open()) as log:
        positions = log.beginning_positions()
        before = dict(positions)
        log.read(positions, max_records=10, timeout_s=SOON_S)
        assert positions == before


def check_read_at_the_end_waits_and_returns_nothing(place: Place) -> None:
    place.store(clicks(3))
    with closing(place.open()) as log:
        ends = log.end_positions()
        log.read(ends, max_records=10, timeout_s=0.0)
        start = time.monotonic()
        assert log.read(ends, max_records=10, timeout_s=0.3) == []
        assert 0.25 < time.monotonic() - start < SOON_S


def check_read_returns_as_soon_as_an_event_arrives(place: Place) -> None:
    with closing(place.open()) as log, closing(place.open()) as other:
        ends = log.end_positions()
        later = threading.Timer(0.2, other.append, [clicks(1)])
        later.start()
        start = time.monotonic()
        records = log.read(ends, max_records=10, timeout_s=3 * SOON_S)
        assert time.monotonic() - start < SOON_S
        later.join()
        assert events_of(records) == clicks(1)


def check_positions_outside_the_log_are_refused(place: Place) -> None:
    place.store(clicks(3))
    with closing(place.open()) as log:
        with pytest.raises(LogPositionError, match="nowhere/7"):
            log.read({"nowhere/7": 0}, max_records=10, timeout_s=0.0)
        partition = next(iter(log.end_positions()))
        with pytest.raises(LogPositionError, match="-1"):
            log.read({partition: -1}, max_records=10, timeout_s=0.0)
        assert len(read_on(log, {})) == 3


def check_positions_past_the_end_are_a_gap(place: Place) -> None:
    place.store(clicks(3))
    with closing(place.open()) as log:
        partition, end = next(iter(log.end_positions().items()))
        for position in (end + 1, end + 1_000_000):
            with pytest.raises(LogGapError, match="made anew or restored") as caught:
                log.read({partition: position}, max_records=10, timeout_s=SOON_S)
            assert _gap(caught.value) == (partition, position, 0, end)
        assert len(read_on(log, {})) == 3


def check_positions_older_than_the_log_are_a_gap(place: Place) -> None:
    place.store(clicks(20))
    with closing(place.open()) as log:
        ends = log.end_positions()
        partition, end = max(ends.items(), key=lambda item: item[1])
        place.drop_before(partition, end - 2)
        assert log.beginning_positions()[partition] == end - 2
        with pytest.raises(LogGapError, match="records before it were deleted") as caught:
            log.read(ends | {partition: end - 3}, max_records=10, timeout_s=SOON_S)
        assert _gap(caught.value) == (partition, end - 3, end - 2, end)
        kept = by_partition(read_on(log, {}))[partition]
        assert [record.offset for record in kept] == [end - 2, end - 1]


def _gap(error: LogGapError) -> tuple[str, int, int, int]:
    return error.partition, error.position, error.beginning, error.end


def check_numbering_goes_on_after_everything_was_dropped(place: Place) -> None:
    place.store(clicks(4, num_users=1))
    with closing(place.open()) as log:
        partition, end = max(log.end_positions().items(), key=lambda item: item[1])
        place.drop_before(partition, end)
        assert log.beginning_positions()[partition] == end == log.end_positions()[partition]
        log.append(clicks(1, num_users=1, first=4))
        assert [(r.partition, r.offset) for r in read_on(log, {})] == [(partition, end)]


def check_own_appends_are_read_at_once(place: Place) -> None:
    with closing(place.open()) as log:
        positions = log.end_positions()
        for n in range(5):
            log.append(clicks(2, first=2 * n))
            records = read_on(log, positions)
            assert events_of(records) == clicks(2, first=2 * n)
            positions = advance(positions, records)
        log.append([])
        assert log.end_positions() == positions


def check_two_handles_append_to_one_log(place: Place) -> None:
    with closing(place.open()) as one, closing(place.open()) as other:
        for n in range(10):
            (one, other)[n % 2].append(clicks(3, first=3 * n))
        assert events_of(read_on(one, {})) == events_of(read_on(other, {})) == clicks(30)


def check_threads_append_and_read_one_handle(place: Place) -> None:
    with closing(place.open()) as log:
        threads = [
            threading.Thread(target=_append_one_by_one, args=(log, clicks(25, first=25 * n)))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        positions: Positions = {}
        records: list[Record] = []
        deadline = time.monotonic() + SOON_S
        while len(records) < 100 and time.monotonic() < deadline:
            batch = log.read(positions, max_records=9, timeout_s=0.1)
            records += batch
            positions = advance(positions, batch)
        for thread in threads:
            thread.join()
        assert events_of(records) == clicks(100)


def _append_one_by_one(log: EventLog, events: Sequence[Event]) -> None:
    for event in events:
        log.append([event])


def check_an_event_that_contradicts_itself_is_not_stored(place: Place) -> None:
    nobody = Feedback(event_id="e", time_ms=1, user_id="", item_id="i", kind="click")
    with closing(place.open()) as log:
        ends = log.end_positions()
        with pytest.raises(LogError, match="user_id: expected an id"):
            log.append([*clicks(2), nobody])
        assert log.end_positions() == ends


def check_foreign_bytes_come_back_as_they_are(place: Place) -> None:
    foreign = [("u1", b"\xff\x00garbage"), ("u1", b""), ("", b"{not json"), ("ü", b"\n")]
    with closing(place.open()) as log:
        log.append_raw(foreign)
        log.append(clicks(1))
        records = read_on(log, {})
    own = [record for record in records if record.value == encode(clicks(1)[0])]
    others = [record for record in records if record not in own]
    assert [record.key for record in own] == ["u0"]
    assert sorted((record.key, record.value) for record in others) == sorted(foreign)
    for record in others:
        with pytest.raises(DecodeError):
            decode(record.value)


def check_committed_positions_are_remembered(place: Place) -> None:
    place.store(clicks(9))
    with closing(place.open()) as log:
        assert log.committed() == {}
        log.commit({})
        assert log.committed() == {}
        half = advance({}, log.read({}, max_records=4, timeout_s=SOON_S))
        log.commit(half)
        assert log.committed() == half
        log.commit(log.end_positions())
        assert log.committed() == half | log.end_positions()


def check_commits_are_seen_by_another_handle(place: Place) -> None:
    with closing(place.open()) as log:
        log.append(clicks(9))
        log.commit(log.end_positions())
        ends = log.end_positions()
    with closing(place.open()) as other:
        assert other.committed() == ends


def letters() -> list[DeadLetter]:
    return [
        DeadLetter("events/0", 7, "u1", b"\xff\x00", "first", 1_000),
        DeadLetter("events/0", 3, "", b"", "empty", 2_000),
        DeadLetter("events/1", 7, "ü", b"{", "not JSON: ü", 3_000),
        DeadLetter("events/1", 7, "ü", b"}", "of the same record", 3_000, index=2),
    ]


def check_a_dead_letter_is_kept_once(place: Place) -> None:
    place.store([])
    with closing(place.open()) as log:
        assert log.dead_letters() == []
        for letter in letters():
            log.dead_letter(letter)
        log.dead_letter(DeadLetter("events/0", 7, "u2", b"other", "again", 9_000))
        assert log.dead_letters() == letters()


def check_dead_letters_are_seen_by_another_handle(place: Place) -> None:
    with closing(place.open()) as log:
        for letter in letters():
            log.dead_letter(letter)
    with closing(place.open()) as other:
        assert other.dead_letters() == letters()


def check_a_letter_is_appended_again_under_its_key(place: Place) -> None:
    with closing(place.open()) as log:
        log.append_raw([("u1", b"\xff\x00"), ("ü", b"")])
        for record in read_on(log, {}):
            letter = DeadLetter(*_fields(record), reason="no event", time_ms=1)
            log.dead_letter(letter)
        before = log.end_positions()
        log.append_again([])
        assert log.end_positions() == before
        log.append_again(log.dead_letters())
        again = [(record.key, record.value) for record in read_on(log, before)]
        assert sorted(again) == [("u1", b"\xff\x00"), ("ü", b"")]


def _fields(record: Record) -> tuple[str, int, str, bytes]:
    return record.partition, record.offset, record.key, record.value


def check_letters_are_marked_as_redriven(place: Place) -> None:
    one, other, *rest = letters()
    with closing(place.open()) as log:
        for letter in letters():
            log.dead_letter(letter)
        log.mark_redriven([], 4_000)
        assert log.dead_letters() == letters()
        log.mark_redriven([rest[-1], other], 5_000)
        log.mark_redriven([other], 6_000)
        log.dead_letter(other)  # the trainer met the same record once more
        stranger = DeadLetter("events/9", 1, "", b"", "never set aside", 1)
        log.mark_redriven([stranger], 7_000)
    marked = [one, replace(other, redriven_ms=6_000), *rest]
    marked[-1] = replace(marked[-1], redriven_ms=5_000)
    with closing(place.open()) as log:
        assert log.dead_letters() == marked


def check_close_may_be_called_twice_and_ends_all_use(place: Place) -> None:
    place.store(clicks(1))
    log = place.open()
    log.read({}, max_records=1, timeout_s=SOON_S)
    log.close()
    log.close()
    with pytest.raises(LogError, match="closed"):
        log.read({}, max_records=1, timeout_s=0.0)
    with pytest.raises(LogError, match="closed"):
        log.end_positions()


CHECKS: tuple[Callable[[Place], None], ...] = tuple(
    check for name, check in list(globals().items()) if name.startswith("check_")
)
