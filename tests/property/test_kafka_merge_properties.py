"""Merging runs of records gives what merging record by record gives."""

from __future__ import annotations

from collections import namedtuple

from hypothesis import given
from hypothesis import strategies as st

from domain.event_log import Record
from stream.kafka_merge import RecordBuffer, take_oldest

Entry = namedtuple("Entry", ["offset", "timestamp", "key", "value"])

# Few distinct times, so that partitions meet; not sorted, as producers set times themselves.
partitions = st.dictionaries(
    st.sampled_from(["e/0", "e/1", "i/0"]), st.lists(st.integers(0, 4), max_size=8), min_size=1
)


@given(partitions, st.sets(st.sampled_from(["e/0", "e/1", "i/0"])), st.integers(1, 6))
def test_runs_are_merged_like_single_records(
    times_ms: dict[str, list[int]], starving: set[str], max_records: int
) -> None:
    buffers = {name: _buffer(name, times) for name, times in times_ms.items()}
    waiting = {name: list(enumerate(times)) for name, times in times_ms.items()}
    for _ in range(30):
        expected = _one_by_one(waiting, starving, max_records)
        assert take_oldest(buffers, max_records, starving.__contains__) == expected
    assert {name: len(buffer) for name, buffer in buffers.items()} == {
        name: len(rest) for name, rest in waiting.items()
    }


def test_records_hold_what_was_fetched() -> None:
    buffer = RecordBuffer()
    buffer.fill("e/0", [Entry(7, 1, None, None)])
    buffer.fill("e/0", [Entry(9, 1, b"\xff", b"v")])
    assert take_oldest({"e/0": buffer}, 5, lambda _: False) == [
        Record("e/0", 7, "", b""),
        Record("e/0", 9, "\ufffd", b"v"),
    ]


def _buffer(name: str, times_ms: list[int]) -> RecordBuffer:
    buffer = RecordBuffer()
    if times_ms:
        buffer.fill(name, [Entry(i, time, b"k", b"v") for i, time in enumerate(times_ms)])
    return buffer


def _one_by_one(
    waiting: dict[str, list[tuple[int, int]]], starving: set[str], max_records: int
) -> list[Record]:
    records: list[Record] = []
    while any(waiting.values()) and len(records) < max_records:
        _, name = min((rest[0][1], name) for name, rest in waiting.items() if rest)
        records.append(Record(name, waiting[name].pop(0)[0], "k", b"v"))
        if not waiting[name] and name in starving:
            break
    return records
