"""Many records at once: their events, or their columns without an object per event.

Records of one Protobuf event are parsed together by compiled code; what it does not understand,
and events that contradict themselves, are decoded one by one. So the result is always that of
`codec.decode_record`, which is its slow twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors import DecodeError
from domain.events import Event
from stream import bulk_kernels as kernels
from stream.codec import BadEvent, decode, decode_record, encode
from stream.columnar_build import columns_of
from stream.columnar_form import columns_from_bytes, is_columnar
from stream.columnar_layout import NO_TEXT, EventColumns, unusable
from stream.columnar_objects import events_of

_CHUNK_BYTES = 4 * 2**20
"""Parsed together: enough to forget the cost of a call; memory is about 12 times as much."""

_FEW = 32
"""So many records or fewer are decoded one by one: a call costs about as much as 20 of them."""

_MAX_RECORD_BYTES = 2**30
"""A larger record would not fit columns of int32; no log of ours takes one."""


@dataclass(frozen=True, slots=True)
class ColumnsOfRecords:
    """The columns of consecutive records.

    Attributes:
        first: number of the first of the records among those that were given.
        num_records: how many there are.
        bad: records among them that are no event, by number; they have no row in the columns.
    """

    first: int
    num_records: int
    columns: EventColumns
    bad: dict[int, str]


def decode_records(values: Sequence[bytes]) -> list[list[Event | BadEvent]]:
    """Return `codec.decode_record` of each value, faster."""
    if len(values) <= _FEW:
        return [decode_record(value) for value in values]
    found: list[list[Event | BadEvent]] = [[] for _ in values]
    plain = [index for index, value in enumerate(values) if _is_plain(value)]
    for chunk in _chunks(plain, values):
        columns, understood = parse([values[index] for index in chunk])
        events, bad = events_of(columns)
        usable: list[Event | None] = [*events]
        for row in bad:
            usable[row] = None
        row_of = (np.cumsum(understood) - 1).tolist()
        for index, row, is_understood in zip(chunk, row_of, understood.tolist(), strict=True):
            event = usable[row] if is_understood else None
            found[index] = decode_record(values[index]) if event is None else [event]
    for index in set(range(len(values))).difference(plain):
        found[index] = decode_record(values[index])
    return found


def decode_columns(values: Sequence[bytes]) -> list[ColumnsOfRecords]:
    """Return the columns of records, in order: one for each columnar record or run of others.

    Events that contradict themselves are left out of a run of single events and named in `bad`; in
    a columnar record they stay, see `columnar_layout.unusable`. A record that cannot be read at all
    is named in `bad` as well.
    """
    found: list[ColumnsOfRecords] = []
    start = 0
    while start < len(values):
        end = start + 1
        if is_columnar(values[start]):
            found.append(_columns_of_one(start, values[start]))
        else:
            num_bytes = len(values[start])
            while end < len(values) and not is_columnar(values[end]) and num_bytes < _CHUNK_BYTES:
                num_bytes += len(values[end])
                end += 1
            found.append(_columns_of_run(start, values[start:end]))
        start = end
    return found


def _columns_of_one(number: int, value: bytes) -> ColumnsOfRecords:
    try:
        return ColumnsOfRecords(number, 1, columns_from_bytes(value), {})
    except DecodeError as error:
        return ColumnsOfRecords(number, 1, columns_of([]), {number: error.reason})


def _columns_of_run(first: int, values: Sequence[bytes]) -> ColumnsOfRecords:
    columns, understood = parse(values)
    doubtful = ~understood
    doubtful[np.flatnonzero(understood)[unusable(columns) | _repeats(columns)]] = True
    bad: dict[int, str] = {}
    if doubtful.any():
        # Written anew, an event that was sound but written in an unusual way is understood.
        kept: list[bytes] = []
        for index, value in enumerate(values):
            try:
                kept.append(_rewritten(value) if doubtful[index] else value)
            except DecodeError as error:
                bad[first + index] = error.reason
        columns, understood = parse(kept)
        assert understood.all()
    return ColumnsOfRecords(first, len(values), columns, bad)


def _rewritten(value: bytes) -> bytes:
    return encode(decode(value))


def _repeats(columns: EventColumns) -> NDArray[np.bool_]:
    """Return which events show an item twice; the texts are distinct, so numbers tell."""
    rows = np.repeat(np.arange(len(columns)), np.diff(columns.shown_starts))
    order = np.lexsort((columns.shown_items, rows))
    same = np.diff(rows[order]) == 0
    same &= np.diff(columns.shown_items[order]) == 0
    repeats = np.zeros(len(columns), np.bool_)
    repeats[rows[order][1:][same]] = True
    return repeats


def _is_plain(value: bytes) -> bool:
    return value[:1] != b"{" and not is_columnar(value) and len(value) < _MAX_RECORD_BYTES


def _chunks(indices: Sequence[int], values: Sequence[bytes]) -> list[list[int]]:
    chunks: list[list[int]] = []
    room = 0
    for index in indices:
        if room <= 0:
            chunks.append([])
            room = _CHUNK_BYTES
        chunks[-1].append(index)
        room -= len(values[index])
    return chunks


def parse(values: Sequence[bytes]) -> tuple[EventColumns, NDArray[np.bool_]]:
    """Return the columns of those records that were understood, and which ones those are.

    The texts are distinct; an event may contradict itself.
    """
    data = np.frombuffer(b"".join(values), np.uint8)
    bounds = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(value) for value in values], out=bounds[1:])
    understood = np.empty(len(values), np.bool_)
    # An entry of any column takes at least two bytes of a record.
    most = max(len(values), len(data) // 2) + 2
    ints = np.empty((kernels.NUM_INTS, most), np.int32)
    longs = np.empty((kernels.NUM_LONGS, most), np.int64)
    for row in (kernels.SHOWN_STARTS, kernels.TEXT_STARTS, kernels.SET_STARTS):
        ints[row, 0] = 0
    # At most half full; a text takes at least two bytes, and most take more than four.
    table = np.full(1 << (len(data) // 2 + 1).bit_length(), NO_TEXT, np.int32)
    text_bytes = np.empty(len(data), np.uint8)
    counts = np.zeros(8, np.int64)
    num_events = kernels.parse_events(
        data, bounds, understood, ints, longs, text_bytes, table, counts
    )
    return _columns(num_events, ints, longs, text_bytes, counts.tolist()), understood


def _columns(
    num_events: int,
    ints: NDArray[np.int32],
    longs: NDArray[np.int64],
    text_bytes: NDArray[np.uint8],
    counts: Sequence[int],
) -> EventColumns:
    """Return what was filled, copied: what was not filled is far larger."""
    shown, texts, num_bytes, sets, features, part_texts, numbers, floats = counts

    def column(row: int, length: int, dtype: Any = np.int32) -> Any:
        return ints[row, :length].astype(dtype)

    def bits(row: int, length: int) -> Any:
        return ints[row, :length].copy().view(np.float32)

    return EventColumns(
        times_ms=longs[kernels.TIMES_MS, :num_events].copy(),
        values=longs[kernels.VALUES, :num_events].copy().view(np.float64),
        **{
            name: column(kernels.EVENT_TEXTS + index, num_events)
            for index, name in enumerate(kernels.TEXT_COLUMNS)
        },
        feature_sets=column(kernels.FEATURE_SETS, num_events),
        kinds=column(kernels.KINDS, num_events, np.uint8),
        withdrawn=column(kernels.WITHDRAWN, num_events, np.uint8),
        shown_starts=column(kernels.SHOWN_STARTS, num_events + 1),
        shown_items=column(kernels.SHOWN_ITEMS, shown),
        positions=column(kernels.POSITIONS, shown),
        scores=bits(kernels.SCORES, shown),
        probabilities=bits(kernels.PROBABILITIES, shown),
        text_starts=column(kernels.TEXT_STARTS, texts + 1),
        text_bytes=text_bytes[:num_bytes].copy(),
        set_starts=column(kernels.SET_STARTS, sets + 1),
        feature_names=column(kernels.FEATURE_NAMES, features),
        feature_kinds=column(kernels.FEATURE_KINDS, features, np.uint8),
        feature_sizes=column(kernels.FEATURE_SIZES, features),
        part_texts=column(kernels.PART_TEXTS, part_texts),
        part_numbers=longs[kernels.PART_NUMBERS, :numbers].copy().view(np.float64),
        part_floats=bits(kernels.PART_FLOATS, floats),
    )
