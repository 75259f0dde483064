"""One contract for all event logs; a new one is tested by being listed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from domain.event_log import EventLog
from domain.events import Event
from stream.file_log import FileLog, write_event_file
from stream.sqlite_log import SqliteLog
from tests import kafka_broker
from tests.contract.event_log_checks import CHECKS, Place


class SqlitePlace:
    def __init__(self, folder: Path) -> None:
        self._path = folder / "log.sqlite"

    def store(self, events: Sequence[Event]) -> None:
        log = self.open()
        log.append(events)
        log.close()

    def open(self) -> EventLog:
        return SqliteLog(self._path)

    def drop_before(self, partition: str, offset: int) -> None:
        log = SqliteLog(self._path)
        log.drop_before(offset)
        log.close()


class JsonLinesPlace:
    names = ("events.jsonl",)

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.names[0]

    def store(self, events: Sequence[Event]) -> None:
        write_event_file(self._path, events)

    def open(self) -> EventLog:
        return FileLog(self._path)

    def drop_before(self, partition: str, offset: int) -> None:
        raise NotImplementedError


class PackedJsonLinesPlace(JsonLinesPlace):
    names = ("events.jsonl.gz",)


class ParquetPlace(JsonLinesPlace):
    names = ("events.parquet",)


class FolderPlace(JsonLinesPlace):
    names = ("a.jsonl", "b.parquet", "c.jsonl.gz")

    def __init__(self, folder: Path) -> None:
        self._path = folder

    def store(self, events: Sequence[Event]) -> None:
        third = len(events) // 3
        parts = (events[:third], events[third : 2 * third], events[2 * third :])
        for name, part in zip(self.names, parts, strict=True):
            write_event_file(self._path / name, part)


class KafkaPlace:
    def __init__(self, folder: Path) -> None:
        self._config = kafka_broker.fresh_config()

    def store(self, events: Sequence[Event]) -> None:
        log = self.open()
        log.append(events)
        log.close()

    def open(self) -> EventLog:
        return kafka_broker.KafkaLog(kafka_broker.bootstrap(), self._config)

    def drop_before(self, partition: str, offset: int) -> None:
        kafka_broker.delete_records(partition, offset)


READ_ONLY = "a recorded log is read only, its refusal has a test of its own"
IN_MEMORY = "a recorded log keeps dead letters and commits in memory"
RECORDED: Mapping[str, str] = {
    "check_read_returns_as_soon_as_an_event_arrives": READ_ONLY,
    "check_positions_older_than_the_log_are_a_gap": "a recorded log forgets nothing",
    "check_numbering_goes_on_after_everything_was_dropped": "a recorded log forgets nothing",
    "check_own_appends_are_read_at_once": READ_ONLY,
    "check_two_handles_append_to_one_log": READ_ONLY,
    "check_threads_append_and_read_one_handle": READ_ONLY,
    "check_an_event_that_contradicts_itself_is_not_stored": READ_ONLY,
    "check_foreign_bytes_come_back_as_they_are": READ_ONLY,
    "check_commits_are_seen_by_another_handle": IN_MEMORY,
    "check_dead_letters_are_seen_by_another_handle": IN_MEMORY,
    "check_a_letter_is_appended_again_under_its_key": READ_ONLY,
    "check_letters_are_marked_as_redriven": READ_ONLY,
}

# Each implementation with the checks it is excused from, and why.
IMPLEMENTATIONS: Mapping[Callable[[Path], Place], Mapping[str, str]] = {
    SqlitePlace: {},
    JsonLinesPlace: RECORDED,
    PackedJsonLinesPlace: RECORDED,
    ParquetPlace: RECORDED,
    FolderPlace: RECORDED,
    KafkaPlace: {},
}


def cases() -> Iterator[object]:
    for place, excused in IMPLEMENTATIONS.items():
        for check in CHECKS:
            if check.__name__ not in excused:
                yield pytest.param(place, check, id=f"{place.__name__}-{check.__name__}")


@pytest.mark.parametrize(("make", "check"), list(cases()))
def test_event_log_keeps_the_contract(
    make: Callable[[Path], Place], check: Callable[[Place], None], tmp_path: Path
) -> None:
    check(make(tmp_path))


def test_exclusions_name_a_check_and_a_reason() -> None:
    names = {check.__name__ for check in CHECKS}
    for excused in IMPLEMENTATIONS.values():
        assert set(excused) <= names
        assert all(excused.values())
