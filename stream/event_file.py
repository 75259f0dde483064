"""One recorded file of events, read from any record on or written as a whole.

Two forms, told apart by the name:

`.jsonl`, `.jsonl.gz`
    One event per line, as `stream.event_json` describes it. Every line is a record, whose value is
    the line itself; a line that is no event becomes a dead letter with its own text.
`.parquet`
    One event per row. Only the column `value` is read: the event's wire form, see `stream.codec`.
    The other columns (`type`, `event_id`, `time_ms`, `user_id`, `item_id`; null where the event has
    none) repeat what is in it, for people and query engines.
"""

from __future__ import annotations

import gzip
import itertools
import os
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from domain.errors import LogError, LogUnavailableError
from domain.events import Event, Feedback, Impression, ItemUpdate, UserUpdate
from stream.codec import encode, encode_json

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")

_SCHEMA = pa.schema(
    [
        pa.field("type", pa.string(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("time_ms", pa.int64(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("value", pa.binary(), nullable=False),
    ]
)

_TYPES = {
    Impression: "impression",
    Feedback: "feedback",
    ItemUpdate: "item_update",
    UserUpdate: "user_update",
}

_ROWS_PER_GROUP = 16_384
"""A reader holds one row group: about 2 MB at 120 bytes an event."""

_CHUNK_BYTES = 2**20


class EventFile(Protocol):
    """An open file of records; it remembers where it stopped, reading on from there is cheap."""

    num_records: int

    def read(self, start: int, limit: int) -> list[bytes]:
        """Return at least one and at most `limit` values from record `start` on."""

    def close(self) -> None:
        """Close the file; may be called twice."""


def is_event_file(path: Path) -> bool:
    """Return whether the name says that the file holds events."""
    return path.name.endswith(SUFFIXES)


def open_event_file(path: Path) -> EventFile:
    """Open a recorded file.

    Raises:
        LogError: the file is missing, damaged, or of neither form.
    """
    _reject_other_forms(path)
    with _damage_reported(path):
        return _ParquetFile(path) if path.suffix == ".parquet" else _JsonLinesFile(path)


def write_event_file(path: Path | str, events: Iterable[Event]) -> int:
    """Write events to a new file, in the form that its name asks for; returns how many.

    The file is written aside and renamed: it appears complete or not at all, and replaces an older
    one of the same name. The same events give the same bytes.

    Raises:
        LogError: an event contradicts itself, or the name asks for neither form.
        LogUnavailableError: the file cannot be written now.
    """
    path = Path(path)
    _reject_other_forms(path)
    write = _write_parquet if path.suffix == ".parquet" else _write_json_lines
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            num_events = write(file, path, events)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise LogUnavailableError(f"{path}: cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return num_events


class _JsonLinesFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0
        self._lines = _open_lines(path)
        try:
            self.num_records = self._count()
        except BaseException:
            self._lines.close()
            raise

    def read(self, start: int, limit: int) -> list[bytes]:
        with _damage_reported(self._path):
            if start < self._next:
                self._lines.seek(0)
                self._next = 0
            for _ in itertools.islice(self._lines, start - self._next):
                pass
            lines = [line.removesuffix(b"\n") for line in itertools.islice(self._lines, limit)]
        if not lines:
            raise LogError(f"{self._path}: became shorter than the {self.num_records} lines it had")
        self._next = start + len(lines)
        return lines

    def close(self) -> None:
        self._lines.close()

    def _count(self) -> int:
        num_lines, last = 0, b"\n"
        while chunk := self._lines.read(_CHUNK_BYTES):
            num_lines += chunk.count(b"\n")
            last = chunk[-1:]
        self._lines.seek(0)
        return num_lines + (last != b"\n")


class _ParquetFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = pq.ParquetFile(path, page_checksum_verification=True)
        schema = self._file.schema_arrow
        if "value" not in schema.names or schema.field("value").type != pa.binary():
            self._file.close()
            raise LogError(
                f"{path}: expected a column value of type binary, got {', '.join(schema.names)}"
            )
        metadata = self._file.metadata
        groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
        self._starts = [0, *itertools.accumulate(groups)]
        self._group = -1
        self._values = pa.chunked_array([], pa.binary())
        self.num_records: int = metadata.num_rows

    def read(self, start: int, limit: int) -> list[bytes]:
        group = bisect_right(self._starts, start) - 1
        if group != self._group:
            with _damage_reported(self._path):
                table = self._file.read_row_group(group, columns=["value"], use_threads=False)
            self._group, self._values = group, table.column(0)
        values = self._values.slice(start - self._starts[group], limit).to_pylist()
        return [value or b"" for value in values]

    def close(self) -> None:
        self._file.close()


def _reject_other_forms(path: Path) -> None:
    if not is_event_file(path):
        raise LogError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}")


def _open_lines(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise LogError(f"{path}: there is no such file") from error
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise LogError(f"{path}: cannot be read as recorded events: {reason}") from error


def _write_json_lines(file: BinaryIO, path: Path, events: Iterable[Event]) -> int:
    if path.suffix != ".gz":
        return _write_lines(file, events)
    # Neither name nor time in the header: the same events give the same bytes.
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        return _write_lines(cast(BinaryIO, packed), events)


def _write_lines(file: BinaryIO, events: Iterable[Event]) -> int:
    num_events = 0
    for event in events:
        file.write(encode_json(event) + b"\n")
        num_events += 1
    return num_events


def _write_parquet(file: BinaryIO, path: Path, events: Iterable[Event]) -> int:
    num_events = 0
    remaining = iter(events)
    with pq.ParquetWriter(
        file,
        _SCHEMA,
        compression="zstd",
        use_dictionary=["type", "user_id", "item_id"],
        write_page_checksum=True,
    ) as writer:
        while group := list(itertools.islice(remaining, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist([_row(event) for event in group], _SCHEMA))
            num_events += len(group)
    return num_events


def _row(event: Event) -> dict[str, object]:
    return {
        "type": _TYPES[type(event)],
        "event_id": event.event_id,
        "time_ms": event.time_ms,
        "user_id": None if isinstance(event, ItemUpdate) else event.user_id,
        "item_id": event.item_id if isinstance(event, Feedback | ItemUpdate) else None,
        "value": encode(event),
    }


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
