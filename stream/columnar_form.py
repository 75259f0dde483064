"""The columnar wire form: one record that carries many events as columns of bytes.

    bytes 0-3    magic: DF 48 52 43 (the first byte opens neither JSON nor any Protobuf message)
    byte  4      version, 2
    bytes 5-7    zero
    bytes 8-11   CRC-32C (Castagnoli, as in Kafka's own batches) of everything from byte 12 on
    bytes 12-47  nine counts: N, T, B, S, G, F, K, M, V (`stream.columnar_layout` says of what)
    bytes 48-    the columns of `COLUMNS`, one after the other, nothing between them

Version 1 differs in its checksum only, the CRC-32 of zlib and PNG, and is still read.

All numbers are little-endian. Columns of 8 bytes an entry come first, then those of 4, then those
of 1, so that all are aligned. The counts give the size of every column: a record whose length is
not their sum is refused before anything is read, and nothing larger than the record is allocated.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

import crc32c
import numpy as np
from numpy.typing import NDArray

from domain.errors import DecodeError, LogError
from stream.columnar_layout import NUMBER, TEXT, TEXTS, USER_UPDATE, VECTOR, EventColumns

MAGIC: Final = b"\xdfHRC"
"""0xDF as a Protobuf tag has wire type 7, which does not exist: no reader takes it for an event."""

VERSION: Final = 2
"""Version 2 came with a checksum that processors compute: CRC-32 was a third of the reading."""

MAX_EVENTS: Final = 65_536
"""Events in a record: what a reader must be ready to lead through its loop before it can save."""

_CHECKSUMS: Final = {1: ("CRC-32", zlib.crc32), 2: ("CRC-32C", crc32c.crc32c)}

_HEAD = struct.Struct("<4sB3sI")
_COUNTS = struct.Struct("<9I")
_BODY = _HEAD.size + _COUNTS.size

_COUNT_NAMES = "NTBSGFKMV"

COLUMNS: Final = (
    ("times_ms", "<i8", "N", 0),
    ("values", "<f8", "N", 0),
    ("part_numbers", "<f8", "M", 0),
    ("event_ids", "<i4", "N", 0),
    ("users", "<i4", "N", 0),
    ("items", "<i4", "N", 0),
    ("actions", "<i4", "N", 0),
    ("impression_ids", "<i4", "N", 0),
    ("snapshot_ids", "<i4", "N", 0),
    ("feature_sets", "<i4", "N", 0),
    ("shown_starts", "<i4", "N", 1),
    ("shown_items", "<i4", "S", 0),
    ("positions", "<i4", "S", 0),
    ("scores", "<f4", "S", 0),
    ("probabilities", "<f4", "S", 0),
    ("text_starts", "<i4", "T", 1),
    ("set_starts", "<i4", "G", 1),
    ("feature_names", "<i4", "F", 0),
    ("feature_sizes", "<i4", "F", 0),
    ("part_texts", "<i4", "K", 0),
    ("part_floats", "<f4", "V", 0),
    ("kinds", "u1", "N", 0),
    ("withdrawn", "u1", "N", 0),
    ("feature_kinds", "u1", "F", 0),
    ("text_bytes", "u1", "B", 0),
)
"""Name, type, which count gives the length, and how many entries come beyond it."""

_LAYOUT = tuple(
    (name, np.dtype(dtype), _COUNT_NAMES.index(count), extra)
    for name, dtype, count, extra in COLUMNS
)

_EVENT_TEXTS = ("event_ids", "users", "items", "actions", "impression_ids", "snapshot_ids")


def is_columnar(value: bytes) -> bool:
    """Return whether a record claims to be of the columnar form."""
    return value[:1] == MAGIC[:1]


def columns_to_bytes(columns: EventColumns) -> bytes:
    """Return the wire form of columns; the same columns always give the same bytes.

    Raises:
        LogError: there are more events than one record may carry.
    """
    if len(columns) > MAX_EVENTS:
        raise LogError(f"expected at most {MAX_EVENTS} events in a record, got {len(columns)}")
    lengths: dict[str, int] = {}
    parts = []
    for name, dtype, count, extra in COLUMNS:
        column = np.ascontiguousarray(getattr(columns, name), dtype)
        expected = lengths.setdefault(count, len(column) - extra)
        assert len(column) == expected + extra, name
        parts.append(column.tobytes())
    counts = _COUNTS.pack(*(lengths[name] for name in _COUNT_NAMES))
    body = b"".join([counts, *parts])
    return _HEAD.pack(MAGIC, VERSION, bytes(3), crc32c.crc32c(body)) + body


def columns_from_bytes(value: bytes) -> EventColumns:
    """Return the columns of a record, as views of its bytes: no Python object per event is made.

    Every number that points somewhere points to what is there; texts are UTF-8. What an event says
    is not checked here, see `columnar_layout.unusable`.

    Raises:
        DecodeError: the bytes are no such record, or damaged; says what was expected.
    """
    counts = _checked_counts(value)
    at = _BODY
    arrays: dict[str, NDArray[Any]] = {}
    for name, dtype, count, extra in _LAYOUT:
        length = counts[count] + extra
        arrays[name] = np.frombuffer(value, dtype, length, at)
        at += length * dtype.itemsize
    columns = EventColumns(**arrays)
    _check_numbers(columns)
    _check_features(columns)
    _check_texts(columns)
    return columns


def _checked_counts(value: bytes) -> tuple[int, ...]:
    """Return the nine counts of a record whose header, length and checksum are right."""
    if len(value) < _BODY or value[:4] != MAGIC:
        raise DecodeError(
            f"expected a columnar record of at least {_BODY} bytes that begins with "
            f"{MAGIC.hex()}, got {len(value)} bytes that begin with {value[:4].hex()}"
        )
    _, version, reserved, checksum = _HEAD.unpack_from(value)
    if version not in _CHECKSUMS or any(reserved):
        raise DecodeError(f"expected a columnar record of version 1 or {VERSION}, got {version}")
    counts: tuple[int, ...] = _COUNTS.unpack_from(value, _HEAD.size)
    expected = _BODY + sum(
        (counts[count] + extra) * dtype.itemsize for _, dtype, count, extra in _LAYOUT
    )
    if len(value) != expected:
        raise DecodeError(
            f"expected a columnar record of {expected} bytes, as its counts say, got {len(value)}"
        )
    if not 0 < counts[0] <= MAX_EVENTS:
        raise DecodeError(f"expected 1 to {MAX_EVENTS} events in a record, got {counts[0]}")
    name, checksum_of = _CHECKSUMS[version]
    found = checksum_of(memoryview(value)[_HEAD.size :])
    if found != checksum:
        raise DecodeError(
            f"expected a columnar record with {name} {checksum:08x}, got {found:08x}: damaged bytes"
        )
    return counts


def _check_numbers(columns: EventColumns) -> None:
    for name in _EVENT_TEXTS:
        _reject_outside(name, getattr(columns, name), -1, columns.num_texts)
    _reject_outside("shown_items", columns.shown_items, -1, columns.num_texts)
    _reject_outside("kinds", columns.kinds, 1, USER_UPDATE + 1)
    _reject_outside("withdrawn", columns.withdrawn, 0, 2)
    _reject_outside("feature_sets", columns.feature_sets, -1, len(columns.set_starts) - 1)
    _reject_bad_starts("shown_starts", columns.shown_starts, len(columns.shown_items))
    _reject_bad_starts("text_starts", columns.text_starts, len(columns.text_bytes))
    _reject_bad_starts("set_starts", columns.set_starts, len(columns.feature_names))


def _check_features(columns: EventColumns) -> None:
    if not len(columns.feature_kinds):
        if len(columns.part_texts) + len(columns.part_numbers) + len(columns.part_floats):
            raise DecodeError("feature_sizes: expected to add up to the parts, got no features")
        return
    kinds = columns.feature_kinds
    # Wide enough that a sum cannot turn over.
    sizes = columns.feature_sizes.astype(np.int64)
    _reject_outside("feature_names", columns.feature_names, -1, columns.num_texts)
    _reject_outside("feature_kinds", kinds, 1, VECTOR + 1)
    _reject_outside("feature_sizes", sizes, 0, 2**31)
    _reject_outside("part_texts", columns.part_texts, -1, columns.num_texts)
    if (sizes[(kinds == TEXT) | (kinds == NUMBER)] != 1).any():
        raise DecodeError("feature_sizes: expected 1 for one text or number, got another size")
    for name, num_parts, mine in (
        ("part_texts", len(columns.part_texts), (kinds == TEXT) | (kinds == TEXTS)),
        ("part_numbers", len(columns.part_numbers), kinds == NUMBER),
        ("part_floats", len(columns.part_floats), kinds == VECTOR),
    ):
        if sizes[mine].sum() != num_parts:
            raise DecodeError(
                f"feature_sizes: expected {num_parts} for {name}, got {sizes[mine].sum()}"
            )


def _check_texts(columns: EventColumns) -> None:
    raw = columns.text_bytes.tobytes()
    if raw.isascii():
        return
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise DecodeError(f"text_bytes: expected UTF-8, got {error.reason}") from error
    # All of it is UTF-8; each text is, if none begins in the middle of a character.
    starts = columns.text_starts[columns.text_starts < len(raw)]
    if ((columns.text_bytes[starts] & 0xC0) == 0x80).any():
        raise DecodeError("text_starts: expected UTF-8, got a text that begins inside a character")


def _reject_outside(name: str, column: NDArray[Any], low: int, end: int) -> None:
    if len(column) and (column.min() < low or column.max() >= end):
        raise DecodeError(
            f"{name}: expected numbers from {low} to {end - 1}, "
            f"got {column.min()} to {column.max()}"
        )


def _reject_bad_starts(name: str, starts: NDArray[Any], total: int) -> None:
    # Compared, not subtracted: a difference of int32 could turn over.
    if starts[0] != 0 or starts[-1] != total or (starts[1:] < starts[:-1]).any():
        raise DecodeError(f"{name}: expected to rise from 0 to {total}, got another order")
