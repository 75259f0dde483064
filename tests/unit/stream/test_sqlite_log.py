"""The embedded log: real processes on one file, and files that are not ours, full or damaged."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from domain.clock import ManualClock
from domain.errors import LogError, LogGapError, LogUnavailableError
from domain.event_log import DeadLetter, advance
from domain.events import Feedback
from stream.codec import decode
from stream.sqlite_log import PARTITION, SqliteLog

APPEND_MANY = """
import sys
from domain.events import Feedback
from stream.sqlite_log import SqliteLog

path, name, num_batches = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = SqliteLog(path)
for batch in range(num_batches):
    log.append([
        Feedback(event_id=f"{name}-{batch:03d}-{n}", time_ms=1, user_id=name, item_id="i", kind="k")
        for n in range(5)
    ])
    print(batch, flush=True)
log.close()
"""


def click(event_id: str) -> Feedback:
    return Feedback(event_id=event_id, time_ms=1, user_id="u", item_id="i", kind="click")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(path)
    yield log
    log.close()


def writer_process(path: Path, name: str, num_batches: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", APPEND_MANY, str(path), name, str(num_batches)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def test_processes_that_open_and_append_at_the_same_time_lose_nothing(path: Path) -> None:
    writers = [writer_process(path, name, 40) for name in ("a", "b", "c")]
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    log = SqliteLog(path)
    records = log.read({}, max_records=10_000, timeout_s=0.0)
    log.close()
    assert [record.offset for record in records] == list(range(600))
    found = [decode(record.value).event_id for record in records]
    for name in ("a", "b", "c"):
        mine = [event_id for event_id in found if event_id.startswith(name)]
        assert mine == [f"{name}-{batch:03d}-{n}" for batch in range(40) for n in range(5)]


def test_acknowledged_events_survive_when_the_writer_is_killed(path: Path) -> None:
    writer = writer_process(path, "a", 1_000_000)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(20)][-1]
    writer.kill()
    writer.communicate(timeout=60)
    log = SqliteLog(path)
    records = log.read({}, max_records=1_000_000, timeout_s=0.0)
    log.append([click("after")])
    assert log.end_positions() == {PARTITION: len(records) + 1}
    log.close()
    assert len(records) % 5 == 0, "a batch is stored as a whole"
    assert len(records) >= 5 * (acknowledged + 1)


def test_offsets_are_never_given_twice_after_everything_was_dropped(log: SqliteLog) -> None:
    log.append([click("a"), click("b")])
    assert log.drop_before(2) == 2
    assert log.beginning_positions() == log.end_positions() == {PARTITION: 2}
    assert log.read({}, max_records=10, timeout_s=0.0) == []
    log.append([click("c")])
    (record,) = log.read({}, max_records=10, timeout_s=0.0)
    assert record.offset == 2
    with pytest.raises(LogGapError, match=r"events/0@1, but the log holds 2 to 3;"):
        log.read({PARTITION: 1}, max_records=10, timeout_s=0.0)


def test_dropped_space_is_used_again(log: SqliteLog, path: Path) -> None:
    payload = [("u", b"x" * 10_000)] * 100
    for _ in range(3):
        log.append_raw(payload)
        log.drop_before(log.end_positions()[PARTITION])
    before = path.stat().st_size
    for _ in range(10):
        log.append_raw(payload)
        log.drop_before(log.end_positions()[PARTITION])
    assert path.stat().st_size < 1.5 * before + 1_000_000


def test_read_waits_on_the_clock_it_was_given(path: Path) -> None:
    clock = ManualClock(1_000)
    log = SqliteLog(path, clock=clock)
    assert log.read({}, max_records=1, timeout_s=0.0255) == []
    assert 1_025 <= clock.now_ms() <= 1_027
    log.close()


def test_every_commit_is_synced_to_disk(log: SqliteLog) -> None:
    full = 2
    assert log._writer.execute("PRAGMA synchronous").fetchone() == (full,)
    assert log._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_append_of_a_bad_event_stores_nothing_of_its_batch(log: SqliteLog) -> None:
    with pytest.raises(LogError, match="cannot store event ''"):
        log.append([click("a"), click("")])
    with pytest.raises(LogError, match="surrogates not allowed"):
        log.append_raw([("u", b""), ("\ud800", b"")])
    assert log.end_positions() == {PARTITION: 0}


def test_locked_file_is_unavailable_and_says_for_how_long(log: SqliteLog, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    hasty = SqliteLog.__new__(SqliteLog)
    with pytest.raises(LogUnavailableError, match=r"log.sqlite: another process .* for 0.05 s"):
        hasty.__init__(path, busy_timeout_s=0.05)  # type: ignore[misc]
    other.execute("ROLLBACK")
    hasty = SqliteLog(path, busy_timeout_s=0.05)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailableError, match=r"log.sqlite: another process .* for 0.05 s"):
        hasty.append([click("a")])
    assert hasty.read({}, max_records=1, timeout_s=0.0) == [], "readers do not wait for writers"
    other.execute("ROLLBACK")
    other.close()
    hasty.append([click("b")])
    hasty.close()
    assert log.end_positions() == {PARTITION: 1}


def test_opening_waits_for_a_reader_of_a_log_that_is_not_yet_write_ahead(path: Path) -> None:
    SqliteLog(path).close()
    reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    reader.execute("PRAGMA journal_mode = DELETE")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM records").fetchall()
    done = threading.Timer(0.2, reader.execute, ["COMMIT"])
    done.start()
    log = SqliteLog(path)
    log.append([click("a")])
    log.close()
    done.join()
    reader.close()


def test_full_disk_is_unavailable_and_the_log_goes_on_afterwards(log: SqliteLog) -> None:
    (pages,) = log._writer.execute("PRAGMA page_count").fetchone()
    log._writer.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(LogUnavailableError, match=r"log.sqlite: database or disk is full"):
        log.append_raw([("u", b"x" * 100_000)])
    log._writer.execute("PRAGMA max_page_count = 1000000")
    log.append([click("a")])
    assert len(log.read({}, max_records=10, timeout_s=0.0)) == 1


def test_damaged_file_is_unavailable_and_says_so(path: Path) -> None:
    log = SqliteLog(path)
    log.append_raw([("u", b"x" * 3_000)] * 200)
    log.close()
    content = bytearray(path.read_bytes())
    content[8_192:400_000] = b"\x5a" * (400_000 - 8_192)
    path.write_bytes(content)
    log = SqliteLog(path)
    with pytest.raises(LogUnavailableError, match=r"log.sqlite: the file is damaged"):
        log.read({}, max_records=1_000, timeout_s=0.0)
    log.close()


@pytest.mark.parametrize(
    "content", [b"x", b"not a database at all", b"SQLite format 3\x00 cut", b"{}\n" * 5_000]
)
def test_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LogError, match=r"log.sqlite: not an event log \(no SQLite database\)"):
        SqliteLog(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_database_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE songs (title TEXT)")
    other.close()
    content = path.read_bytes()
    with pytest.raises(LogError, match=r"not an event log \(an SQLite database of something else"):
        SqliteLog(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_log_of_a_later_format_is_refused(path: Path) -> None:
    SqliteLog(path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 9")
    other.close()
    with pytest.raises(LogError, match="is an event log of format 9, expected 2"):
        SqliteLog(path)


def test_log_of_the_first_format_keeps_its_dead_letters_and_can_mark_them(path: Path) -> None:
    SqliteLog(path).close()
    other = sqlite3.connect(path)
    other.execute("DROP TABLE dead_letters")
    other.execute(
        "CREATE TABLE dead_letters (partition TEXT NOT NULL, offset INTEGER NOT NULL, "
        "key TEXT NOT NULL, value BLOB NOT NULL, reason TEXT NOT NULL, time_ms INTEGER NOT NULL, "
        "PRIMARY KEY (partition, offset))"
    )
    other.execute("INSERT INTO dead_letters VALUES ('events/0', 9, 'u', x'ff', 'later', 20)")
    other.execute("INSERT INTO dead_letters VALUES ('events/0', 3, '', x'', 'first', 10)")
    other.execute("PRAGMA user_version = 1")
    other.commit()
    other.close()
    expected = [
        DeadLetter("events/0", 9, "u", b"\xff", "later", 20),
        DeadLetter("events/0", 3, "", b"", "first", 10),
    ]
    with closing(SqliteLog(path)) as log:
        assert log.dead_letters() == expected
        log.mark_redriven(expected[1:], 30)
        second = DeadLetter("events/0", 3, "", b"x", "of the same record", 40, index=1)
        log.dead_letter(second)
    expected[1] = replace(expected[1], redriven_ms=30)
    with closing(SqliteLog(path)) as log:
        assert log.dead_letters() == [*expected, second]


def test_empty_file_becomes_a_log_and_folders_are_made(tmp_path: Path) -> None:
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    for place in (empty, tmp_path / "new" / "folder" / "log.sqlite"):
        log = SqliteLog(place)
        log.append([click("a")])
        assert log.end_positions() == {PARTITION: 1}
        log.close()


def test_folder_in_place_of_the_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailableError, match="unable to open database file"):
        SqliteLog(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(LogUnavailableError, match=r"Not a directory|File exists"):
        SqliteLog(tmp_path / "file" / "log.sqlite")


def test_reading_a_million_positions_ahead_names_the_end(log: SqliteLog) -> None:
    log.append([click("a")])
    records = log.read({}, max_records=10, timeout_s=0.0)
    assert advance({}, records) == {PARTITION: 1}
    with pytest.raises(LogGapError, match=r"events/0@1000000, but the log holds 0 to 1;"):
        log.read({PARTITION: 1_000_000}, max_records=10, timeout_s=0.0)
