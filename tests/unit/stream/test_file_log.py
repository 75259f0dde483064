"""Recorded logs: both forms, lines that are no events, and files that are damaged or missing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.clock import ManualClock
from domain.errors import DecodeError, LogError, LogUnavailableError
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from stream import event_file
from stream.codec import decode, encode
from stream.file_log import PARTITION, FileLog, write_event_file

EVENTS: list[Event] = [
    ItemUpdate(event_id="e0", time_ms=1, item_id="i", features={"vector": (0.1, 0.2)}),
    UserUpdate(event_id="e1", time_ms=2, user_id="u"),
    Impression(event_id="e2", time_ms=3, user_id="u", items=(ShownItem(item_id="i", position=0),)),
    Feedback(event_id="e3", time_ms=4, user_id="ü", item_id="i", kind="click"),
]
NAMES = ("events.jsonl", "events.jsonl.gz", "events.parquet")
names = pytest.mark.parametrize("name", NAMES)


def many(num_events: int) -> list[Event]:
    return [UserUpdate(event_id=f"e{n}", time_ms=1 + n, user_id="u") for n in range(num_events)]


def read_values(path: Path, start: int = 0, max_records: int = 10_000) -> list[bytes]:
    log = FileLog(path, clock=ManualClock())
    records = log.read({PARTITION: start}, max_records=max_records, timeout_s=0.0)
    log.close()
    assert [record.offset for record in records] == list(range(start, start + len(records)))
    return [record.value for record in records]


@names
def test_written_events_are_read_back(tmp_path: Path, name: str) -> None:
    assert write_event_file(tmp_path / "new" / name, iter(EVENTS)) == 4
    found = [decode(value) for value in read_values(tmp_path / "new" / name)]
    vectors_are_float32 = name == "events.parquet"
    assert found == ([decode(encode(e)) for e in EVENTS] if vectors_are_float32 else EVENTS)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


@names
def test_same_events_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    for folder in ("one", "two"):
        write_event_file(tmp_path / folder / name, EVENTS)
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@names
def test_reading_may_jump_anywhere(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "_ROWS_PER_GROUP", 7)
    write_event_file(tmp_path / name, many(40))
    log = FileLog(tmp_path / name)
    for start in (0, 6, 7, 13, 5, 39, 0, 38):
        records = log.read({PARTITION: start}, max_records=9, timeout_s=0.0)
        ids = [decode(record.value).event_id for record in records]
        assert ids == [f"e{n}" for n in range(start, min(start + 9, 40))]
    log.close()


def test_folder_is_read_in_name_order_and_other_files_are_left_out(tmp_path: Path) -> None:
    write_event_file(tmp_path / "2.parquet", EVENTS[2:3])
    write_event_file(tmp_path / "1.jsonl", EVENTS[:2])
    write_event_file(tmp_path / "3.jsonl", [])
    write_event_file(tmp_path / "4.jsonl.gz", EVENTS[3:])
    (tmp_path / "README.md").write_text("notes")
    (tmp_path / ".5.jsonl.77.partial").write_text("half")
    ids = [decode(value).event_id for value in read_values(tmp_path)]
    assert ids == ["e0", "e1", "e2", "e3"]
    assert read_values(tmp_path, start=1, max_records=2) == read_values(tmp_path)[1:3]


@pytest.mark.parametrize("name", NAMES[:2])
def test_line_that_is_no_event_is_a_record_that_fails_in_decode(tmp_path: Path, name: str) -> None:
    good = b'{"type":"user_update","event_id":"e","time_ms":1,"user_id":"u"}'
    lines = [good, b"", b"# a comment", b'{"type":"user_update"}', b"\xff\xfe", good]
    content = b"\n".join(lines)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    values = read_values(tmp_path / name)
    assert values == lines
    for value in values[1:-1]:
        with pytest.raises(DecodeError):
            decode(value)
    assert decode(values[0]) == decode(values[-1])


def test_last_line_may_end_with_a_newline_or_not(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    for content, num_records in ((b"", 0), (b"\n", 1), (b"a", 1), (b"a\n", 1), (b"a\nb", 2)):
        path.write_bytes(content)
        log = FileLog(path)
        assert log.end_positions() == {PARTITION: num_records}
        log.close()


def test_json_lines_are_what_people_expect(tmp_path: Path) -> None:
    write_event_file(tmp_path / "e.jsonl", EVENTS)
    lines = (tmp_path / "e.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[3]) == {
        "type": "feedback",
        "event_id": "e3",
        "time_ms": 4,
        "user_id": "ü",
        "item_id": "i",
        "kind": "click",
    }
    assert "ü" in lines[3]


def test_parquet_columns_describe_the_events(tmp_path: Path) -> None:
    write_event_file(tmp_path / "e.parquet", EVENTS)
    table = pq.read_table(tmp_path / "e.parquet").drop_columns("value").to_pydict()
    assert table == {
        "type": ["item_update", "user_update", "impression", "feedback"],
        "event_id": ["e0", "e1", "e2", "e3"],
        "time_ms": [1, 2, 3, 4],
        "user_id": [None, "u", "u", "ü"],
        "item_id": ["i", None, None, "i"],
    }


def test_parquet_of_another_making_needs_only_the_value_column(tmp_path: Path) -> None:
    values = [encode(EVENTS[1]), b"garbage", None]
    pq.write_table(pa.table({"value": pa.array(values, pa.binary())}), tmp_path / "e.parquet")
    assert read_values(tmp_path / "e.parquet") == [encode(EVENTS[1]), b"garbage", b""]
    pq.write_table(pa.table({"value": ["text"]}), tmp_path / "f.parquet")
    with pytest.raises(LogError, match="expected a column value of type binary, got value"):
        FileLog(tmp_path / "f.parquet")


@names
def test_failed_write_leaves_the_older_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_event_file(path, EVENTS)
    before = path.read_bytes()
    nobody = UserUpdate(event_id="e", time_ms=1, user_id="")
    with pytest.raises(LogError, match="user_id: expected an id"):
        write_event_file(path, [*EVENTS, nobody])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_write_says_what_is_wrong_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"expected a name that ends in \.jsonl, \.jsonl\.gz"):
        write_event_file(tmp_path / "events.csv", EVENTS)
    (tmp_path / "file").touch()
    with pytest.raises(LogUnavailableError, match="cannot be written"):
        write_event_file(tmp_path / "file" / "e.jsonl", EVENTS)


def test_recorded_log_refuses_to_be_written(tmp_path: Path) -> None:
    write_event_file(tmp_path / "e.jsonl", EVENTS)
    log = FileLog(tmp_path / "e.jsonl")
    with pytest.raises(LogError, match="read only"):
        log.append(EVENTS)
    with pytest.raises(LogError, match="read only"):
        log.append_raw([("u", b"")])
    with pytest.raises(LogError, match="read only; nothing is redriven into it"):
        log.mark_redriven([], 1)
    with pytest.raises(LogError, match="read only; nothing is redriven into it"):
        log.append_again([])
    log.close()


def test_end_is_waited_at_on_the_clock_it_was_given(tmp_path: Path) -> None:
    write_event_file(tmp_path / "e.jsonl", EVENTS)
    clock = ManualClock()
    log = FileLog(tmp_path / "e.jsonl", clock=clock)
    assert log.read({PARTITION: 4}, max_records=1, timeout_s=0.25) == []
    assert clock.now_ms() == 250
    log.close()


def test_missing_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"e\.jsonl: there is no such file"):
        FileLog(tmp_path / "e.jsonl")
    with pytest.raises(LogError, match=r"e\.parquet: there is no such file"):
        FileLog(tmp_path / "e.parquet")
    with pytest.raises(LogError, match=r"expected files that end in .*, found none"):
        FileLog(tmp_path)
    (tmp_path / "e.txt").touch()
    with pytest.raises(LogError, match="expected a name that ends in"):
        FileLog(tmp_path / "e.txt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("e.jsonl.gz", b"not packed"),
        ("e.jsonl.gz", gzip.compress(b"line\n" * 1_000)[:-10]),
        ("e.jsonl.gz", gzip.compress(b"line\n" * 1_000)[:20] + b"\xff" * 20),
        ("e.parquet", b"PAR1 but no more"),
        ("e.parquet", b""),
    ],
)
def test_damaged_file_is_named_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LogError, match=f"{name}: cannot be read as recorded events") as caught:
        FileLog(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_parquet_with_a_damaged_row_group_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    write_event_file(path, many(2_000))
    values = pq.read_metadata(path).row_group(0).column(5)
    assert values.path_in_schema == "value"
    content = bytearray(path.read_bytes())
    content[values.data_page_offset + values.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    log = FileLog(path)
    with pytest.raises(LogError, match=r"e\.parquet: cannot be read"):
        log.read({}, max_records=2_000, timeout_s=0.0)
    log.close()


def test_file_that_became_shorter_is_an_error_not_an_endless_loop(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    write_event_file(path, many(10))
    log = FileLog(path)
    path.write_bytes(b"")
    with pytest.raises(LogError, match="became shorter than the 10 lines it had"):
        log.read({}, max_records=20, timeout_s=0.0)
    log.close()
