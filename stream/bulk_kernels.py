"""The walk over Protobuf events, compiled: bytes of many records into columns.

It understands what `codec.encode` writes, fields in any order, each at most once. Whatever else the
wire format allows (unknown fields, a field twice, groups, unpacked vectors) it leaves to the
Protobuf library, by saying which records it did not understand. Its slow twin is `codec.decode`.

Columns being filled are rows of `ints` (R, C) int32 and `longs` (3, C) int64, numbered below; C is
more than any of them can need, because an entry takes at least two bytes of a record. Floats are
written as their bits. A few large arrays rather than many small ones: every array that is handed to
a compiled function is counted, and that would take longer than the parsing. `counts` holds how much
of each column is filled, `table` the numbers of texts by their hash (open addressing, -1 is empty).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numba
import numpy as np

# Rows of `ints`, one entry per event; six texts come first, in the order of `TEXT_COLUMNS`.
EVENT_TEXTS: Final = 0
FEATURE_SETS: Final = 6
SHOWN_STARTS: Final = 7
KINDS: Final = 8
WITHDRAWN: Final = 9
# One entry per shown item, text, set, feature or part.
SHOWN_ITEMS: Final = 10
POSITIONS: Final = 11
SCORES: Final = 12
PROBABILITIES: Final = 13
TEXT_STARTS: Final = 14
SET_STARTS: Final = 15
FEATURE_NAMES: Final = 16
FEATURE_KINDS: Final = 17
FEATURE_SIZES: Final = 18
PART_TEXTS: Final = 19
PART_FLOATS: Final = 20
NUM_INTS: Final = 21

# Rows of `longs`.
TIMES_MS: Final = 0
VALUES: Final = 1
PART_NUMBERS: Final = 2
NUM_LONGS: Final = 3

TEXT_COLUMNS: Final = (
    "event_ids",
    "users",
    "items",
    "actions",
    "impression_ids",
    "snapshot_ids",
)

# Places in `counts`.
_S, _T, _B, _G, _F, _K, _M, _V = range(8)

_ONE_AS_FLOAT = 0x3F800000
_ONE_AS_DOUBLE = 0x3FF0000000000000
_MAX_INT32 = 2**31 - 1

_TEXT_OF_FIELD = np.full((5, 8), -1, np.int64)
"""Which text column a field of text goes to, by kind of event and field number."""
_TEXT_OF_FIELD[1, 1] = _TEXT_OF_FIELD[2, 1] = _TEXT_OF_FIELD[4, 1] = 1
_TEXT_OF_FIELD[2, 2] = _TEXT_OF_FIELD[3, 1] = 2
_TEXT_OF_FIELD[2, 3] = 3
_TEXT_OF_FIELD[2, 5] = 4
_TEXT_OF_FIELD[1, 4] = 5

_FEATURE_TAGS = np.array([0, 0x1A, 0x32, 0x12, 0x12])
"""Tag of the map of features, by kind of event."""


def _compiled(kernel: Callable[..., Any]) -> Any:
    """Compile on first call; keep the result on disk where a cache folder can be written."""
    try:
        return numba.njit(kernel, nogil=True, cache=True)
    except RuntimeError:  # "cannot cache function": a read-only installation without a home
        return numba.njit(kernel, nogil=True)


# `at` below is where to read on, -1 once something was not understood; ends are exclusive.


@_compiled
def _varint(data, at, end):  # type: ignore[no-untyped-def]
    """Return a number and the place behind it."""
    value = np.uint64(0)
    for place in range(10):
        if at >= end:
            return value, -1
        byte = np.uint64(data[at])
        at += 1
        if place == 9 and byte > 1:
            return value, -1
        value |= (byte & np.uint64(0x7F)) << np.uint64(7 * place)
        if byte < 0x80:
            return value, at
    return value, -1


@_compiled
def _field(data, at, end):  # type: ignore[no-untyped-def]
    """Return a tag of one byte, where its content begins and where it ends; tag -1 if none."""
    if at >= end or data[at] >= 0x80:
        return -1, at, -1
    tag = np.int64(data[at])
    wire_type = tag & 7
    at += 1
    if wire_type == 2:
        size, at = _varint(data, at, end)
        if at < 0 or size > np.uint64(end - at):
            return -1, at, -1
        return tag, at, at + np.int64(size)
    if wire_type == 1 and at + 8 <= end:
        return tag, at, at + 8
    if wire_type == 5 and at + 4 <= end:
        return tag, at, at + 4
    if wire_type == 0:
        _, after = _varint(data, at, end)
        if after >= 0:
            return tag, at, after
    return -1, at, -1


@_compiled
def _bits(data, at, size):  # type: ignore[no-untyped-def]
    """Return little-endian bytes as an integer."""
    bits = np.uint64(0)
    for place in range(size):
        bits |= np.uint64(data[at + place]) << np.uint64(8 * place)
    return np.int64(bits)


@_compiled
def _is_utf8(data, at, end):  # type: ignore[no-untyped-def]
    """Return whether bytes are UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF."""
    while at < end:
        first = data[at]
        at += 1
        if first < 0x80:
            continue
        if 0xC2 <= first <= 0xDF:
            following, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= first <= 0xEF:
            following = 2
            low = 0xA0 if first == 0xE0 else 0x80
            high = 0x9F if first == 0xED else 0xBF
        elif 0xF0 <= first <= 0xF4:
            following = 3
            low = 0x90 if first == 0xF0 else 0x80
            high = 0x8F if first == 0xF4 else 0xBF
        else:
            return False
        if at + following > end or data[at] < low or data[at] > high:
            return False
        for place in range(at + 1, at + following):
            if data[place] < 0x80 or data[place] > 0xBF:
                return False
        at += following
    return True


@_compiled
def _text(data, at, end, ints, longs, text_bytes, table, counts):  # type: ignore[no-untyped-def]
    """Return the number of a text, a new one when it was not met before; -1 empty, -2 no UTF-8."""
    size = end - at
    if size == 0:
        return -1
    code = np.uint64(14695981039346656037)  # FNV-1a
    for place in range(at, end):
        code = (code ^ np.uint64(data[place])) * np.uint64(1099511628211)
    code ^= code >> np.uint64(32)
    mask = np.uint64(len(table) - 1)
    slot = np.int64(code & mask)
    while True:
        number = table[slot]
        if number < 0:
            break
        start = ints[TEXT_STARTS, number]
        if ints[TEXT_STARTS, number + 1] - start == size:
            same = True
            for place in range(size):
                if text_bytes[start + place] != data[at + place]:
                    same = False
                    break
            if same:
                return np.int64(number)
        slot = np.int64(np.uint64(slot + 1) & mask)
    if not _is_utf8(data, at, end):
        return -2
    number = counts[_T]
    start = counts[_B]
    for place in range(size):
        text_bytes[start + place] = data[at + place]
    ints[TEXT_STARTS, number + 1] = start + size
    table[slot] = number
    counts[_T] = number + 1
    counts[_B] = start + size
    return number


@_compiled
def _shown_item(data, at, end, ints, longs, text_bytes, table, counts):  # type: ignore[no-untyped-def]
    item, position, seen = np.int64(-1), np.int64(0), 0
    score, probability = np.int64(0), np.int64(_ONE_AS_FLOAT)
    while at < end:
        tag, at, after = _field(data, at, end)
        if tag < 0 or seen & (1 << (tag >> 3)):
            return False
        seen |= 1 << (tag >> 3)
        if tag == 0x0A:
            item = _text(data, at, after, ints, longs, text_bytes, table, counts)
            if item == -2:
                return False
        elif tag == 0x10:
            number, _ = _varint(data, at, after)
            if number > np.uint64(_MAX_INT32):
                return False
            position = np.int64(number)
        elif tag == 0x1D:
            score = _bits(data, at, 4)
        elif tag == 0x25:
            probability = _bits(data, at, 4)
        else:
            return False
        at = after
    index = counts[_S]
    ints[SHOWN_ITEMS, index] = item
    ints[POSITIONS, index] = position
    ints[SCORES, index] = score
    ints[PROBABILITIES, index] = probability
    counts[_S] = index + 1
    return True


@_compiled
def _part_texts(data, at, end, ints, longs, text_bytes, table, counts):  # type: ignore[no-untyped-def]
    """Append the texts of a list (field 1, each time); return how many, -1 if not understood."""
    size = 0
    while at < end:
        tag, at, after = _field(data, at, end)
        text = _text(data, at, after, ints, longs, text_bytes, table, counts) if tag == 0x0A else -2
        if text == -2:
            return -1
        ints[PART_TEXTS, counts[_K]] = text
        counts[_K] += 1
        size += 1
        at = after
    return size


@_compiled
def _part_floats(data, at, end, ints, counts):  # type: ignore[no-untyped-def]
    """Append the floats of a packed list (field 1); return how many, -1 if not understood."""
    tag, at, after = _field(data, at, end)
    if tag != 0x0A or after != end or (after - at) % 4:
        return -1
    for place in range(at, after, 4):
        ints[PART_FLOATS, counts[_V]] = _bits(data, place, 4)
        counts[_V] += 1
    return (after - at) // 4


@_compiled
def _feature_value(data, at, end, ints, longs, text_bytes, table, counts):  # type: ignore[no-untyped-def]
    """Append the parts of a value; return its kind and size, -1 if not understood."""
    tag, at, after = _field(data, at, end)
    if tag < 0 or after != end:
        return 0, -1
    if tag == 0x0A:
        text = _text(data, at, after, ints, longs, text_bytes, table, counts)
        ints[PART_TEXTS, counts[_K]] = text
        counts[_K] += 1
        return 1, -1 if text == -2 else 1
    if tag == 0x11:
        longs[PART_NUMBERS, counts[_M]] = _bits(data, at, 8)
        counts[_M] += 1
        return 2, 1
    if tag == 0x1A:
        return 3, _part_texts(data, at, after, ints, longs, text_bytes, table, counts)
    if tag == 0x22 and after > at:
        return 4, _part_floats(data, at, after, ints, counts)
    return 0, -1


@_compiled
def _feature(data, at, end, ints, longs, text_bytes, table, counts):  # type: ignore[no-untyped-def]
    """Append one entry of a map of features: name (1) and value (2), each exactly once."""
    name, kind, size, seen = np.int64(-1), 0, -1, 0
    while at < end:
        tag, at, after = _field(data, at, end)
        if tag < 0 or seen & (1 << (tag >> 3)):
            return False
        seen |= 1 << (tag >> 3)
        if tag == 0x0A:
            name = _text(data, at, after, ints, longs, text_bytes, table, counts)
            if name == -2:
                return False
        elif tag == 0x12:
            kind, size = _feature_value(data, at, after, ints, longs, text_bytes, table, counts)
        else:
            return False
        at = after
    if size < 0:
        return False
    index = counts[_F]
    ints[FEATURE_NAMES, index] = name
    ints[FEATURE_KINDS, index] = kind
    ints[FEATURE_SIZES, index] = size
    counts[_F] = index + 1
    return True


@_compiled
def _own_field(data, at, after, tag, kind, row, ints, longs, text_bytes, table, counts):  # type: ignore[no-untyped-def]
    """Fill a field that an event of its kind has once: a text, a value, a flag."""
    if tag & 7 == 2:
        column = _TEXT_OF_FIELD[kind, tag >> 3]
        text = _text(data, at, after, ints, longs, text_bytes, table, counts) if column > 0 else -2
        if text == -2:
            return False
        ints[EVENT_TEXTS + column, row] = text
    elif kind == 2 and tag == 0x21:
        longs[VALUES, row] = _bits(data, at, 8)
    elif kind == 3 and tag == 0x18:
        number, _ = _varint(data, at, after)
        ints[WITHDRAWN, row] = number != 0
    else:
        return False
    return True


@_compiled
def _body(data, at, end, kind, row, ints, longs, text_bytes, table, counts):  # type: ignore[no-untyped-def]
    """Fill what belongs to the kind of an event: 1 impression, 2 feedback, 3 item, 4 user."""
    seen, features = 0, counts[_F]
    while at < end:
        tag, at, after = _field(data, at, end)
        if tag < 0 or tag >= 0x40:
            return False
        if tag == _FEATURE_TAGS[kind]:
            if not _feature(data, at, after, ints, longs, text_bytes, table, counts):
                return False
        elif kind == 1 and tag == 0x12:
            if not _shown_item(data, at, after, ints, longs, text_bytes, table, counts):
                return False
        else:
            if seen & (1 << (tag >> 3)):
                return False
            seen |= 1 << (tag >> 3)
            if not _own_field(
                data, at, after, tag, kind, row, ints, longs, text_bytes, table, counts
            ):
                return False
        at = after
    if counts[_F] > features:
        number = counts[_G]
        ints[FEATURE_SETS, row] = number
        ints[SET_STARTS, number + 1] = counts[_F]
        counts[_G] = number + 1
    return True


@_compiled
def _event(data, at, end, row, ints, longs, text_bytes, table, counts):  # type: ignore[no-untyped-def]
    for column in range(6):
        ints[EVENT_TEXTS + column, row] = -1
    longs[TIMES_MS, row] = 0
    longs[VALUES, row] = _ONE_AS_DOUBLE
    ints[WITHDRAWN, row] = 0
    ints[FEATURE_SETS, row] = -1
    kind, seen = 0, 0
    while at < end:
        tag, at, after = _field(data, at, end)
        if tag < 0 or seen & (1 << (tag >> 3)):
            return False
        seen |= 1 << (tag >> 3)
        if tag == 0x0A:
            text = _text(data, at, after, ints, longs, text_bytes, table, counts)
            if text == -2:
                return False
            ints[EVENT_TEXTS, row] = text
        elif tag == 0x10:
            number, _ = _varint(data, at, after)
            longs[TIMES_MS, row] = np.int64(number)
        elif tag == 0x1A or tag == 0x22 or tag == 0x2A or tag == 0x32:
            if kind:
                return False
            kind = (tag >> 3) - 2
            if not _body(data, at, after, kind, row, ints, longs, text_bytes, table, counts):
                return False
        else:
            return False
        at = after
    ints[KINDS, row] = kind
    ints[SHOWN_STARTS, row + 1] = counts[_S]
    return kind > 0


@_compiled
def parse_events(data, bounds, understood, ints, longs, text_bytes, table, counts):  # type: ignore[no-untyped-def]
    """Parse the records data[bounds[i]:bounds[i + 1]]; return how many events there are.

    `understood[i]` says which records became an event; the others leave no trace but texts.
    """
    row = 0
    kept = counts.copy()
    for record in range(len(bounds) - 1):
        for place in range(len(kept)):
            kept[place] = counts[place]
        if _event(
            data, bounds[record], bounds[record + 1], row, ints, longs, text_bytes, table, counts
        ):
            understood[record] = True
            row += 1
        else:
            understood[record] = False
            for place in range(len(kept)):
                if place != _T and place != _B:
                    counts[place] = kept[place]
    return row
