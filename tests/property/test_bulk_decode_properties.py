"""Decoding many records at once gives what decoding each of them gives, whatever they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.events import Event, Feedback, Impression, ShownItem, UserUpdate
from protos.headrace.v1 import events_pb2
from stream.bulk_decode import decode_columns, decode_records, parse
from stream.codec import BadEvent, decode_record, encode, encode_json, event_to_message
from stream.columnar_build import columns_of, encode_columnar
from stream.columnar_objects import events_of
from tests.property.test_codec_properties import events

_CLICK = Feedback(event_id="c", time_ms=7, user_id="ann", item_id="film", kind="click")


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Draw a record: sound, written in an unusual way, damaged, or of another form."""
    event = draw(events)
    value = encode(event)
    match draw(st.integers(0, 7)):
        case 0:
            return encode_json(event)
        case 1:
            return encode_columnar([event, draw(events)])
        case 2:
            damaged = bytearray(value)
            at = draw(st.integers(0, len(value) - 1))
            damaged[at] ^= draw(st.integers(1, 255))
            return bytes(damaged)
        case 3:
            return value[: draw(st.integers(0, len(value)))]
        case 4:  # written twice, one after the other: the library merges them
            return value + encode(draw(events))
        case 5:
            return draw(st.binary(max_size=40))
        case _:
            return value


@given(st.lists(records(), max_size=8))
@example([b""])
@example([])
def test_records_give_what_each_gives_alone(values: list[bytes]) -> None:
    values = _enough(values)
    together = decode_records(values)
    assert together == [decode_record(value) for value in values]
    assert [[*map(repr, found)] for found in together] == [
        [repr(event) for event in decode_record(value)] for value in values
    ]


@given(st.lists(events, max_size=8))
def test_what_we_encode_is_understood_without_the_library(sent: list[Event]) -> None:
    columns, understood = parse([encode(event) for event in sent])
    assert understood.all()
    assert events_of(columns) == (events_of(columns_of(sent))[0], [])
    texts = columns.texts()
    assert len({*texts}) == len(texts)


@given(st.lists(records(), max_size=8))
def test_columns_hold_the_events_that_records_hold(values: list[bytes]) -> None:
    seen = 0
    for part in decode_columns(values):
        assert part.first == seen
        seen += part.num_records
        mine = range(part.first, seen)
        alone = {number: decode_record(values[number]) for number in mine}
        found, unusable = events_of(part.columns)
        usable = [event for row, event in enumerate(found) if row not in unusable]
        expected = [event for one in alone.values() for event in one]
        assert usable == [event for event in expected if not isinstance(event, BadEvent)]
        bad = {
            number: one[0].reason
            for number, one in alone.items()
            if len(one) == 1 and isinstance(one[0], BadEvent)
        }
        assert part.bad == bad
    assert seen == len(values)


@pytest.mark.parametrize(
    "raw",
    [b"\xc3\xa9", b"\xe2\x82\xac", b"\xf0\x9f\x8e\xac", b"\xed\x9f\xbf", b"\xf4\x8f\xbf\xbf",
     b"\xc0\x80", b"\xc3", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff",
     b"\xe2\x82", b"\x80", b"\xf0\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"a\xe2(\xa1"],
)  # fmt: skip
def test_utf8_is_what_python_says_it_is(raw: bytes) -> None:
    value = b"\x0a" + bytes([len(raw)]) + raw + encode(_CLICK)[3:]
    _, understood = parse([value])
    assert bool(understood[0]) == (raw.decode(errors="ignore").encode() == raw)
    assert decode_records(_enough([value]))[0] == decode_record(value)


@pytest.mark.parametrize("field", [b"\x38\x01", b"\x3b\x3c", b"\x0a\x01x", b"\x10\x05"])
def test_unusual_records_are_left_to_the_library(field: bytes) -> None:
    # An unknown field, a group, and fields that come a second time: the later one counts.
    value = encode(_CLICK) + field
    _, understood = parse([value])
    assert not understood[0]
    found = decode_records(_enough([value]))[0]
    assert found == decode_record(value)
    assert not isinstance(found[0], BadEvent)
    (part,) = decode_columns([encode(_CLICK), value])
    assert [*found] == events_of(part.columns)[0][1:]


def test_feature_that_comes_twice_in_a_map_counts_as_the_library_says() -> None:
    first = event_to_message(
        UserUpdate(event_id="u", time_ms=1, user_id="ann", features={"age": 1.0})
    )
    second = events_pb2.Event()
    second.user_update.features["age"].number = 2.0
    first_body = first.user_update.SerializeToString()
    body = first_body + second.user_update.SerializeToString()
    value = b"\x0a\x01u\x10\x01\x32" + bytes([len(body)]) + body
    assert decode_records(_enough([value]))[0] == decode_record(value)
    (event,) = decode_record(value)
    assert isinstance(event, UserUpdate)
    assert event.features == {"age": 2.0}


def test_records_larger_than_a_chunk_are_decoded_in_their_order() -> None:
    shown = tuple(ShownItem(item_id="x" * 50 + str(i), position=i) for i in range(400))
    values = [
        encode(Impression(event_id=f"list-{i}", time_ms=1, user_id="ann", items=shown))
        for i in range(240)
    ]
    assert sum(map(len, values)) > 4 * 2**20
    found: list[Any] = [events[0] for events in decode_records(values)]
    assert [event.event_id for event in found] == [f"list-{i}" for i in range(240)]
    parts = decode_columns(values)
    assert len(parts) == 2
    assert [part.num_records for part in parts] == [len(part.columns) for part in parts]
    assert np.concatenate([part.columns.times_ms for part in parts]).sum() == 240


def _enough(values: list[bytes]) -> list[bytes]:
    """Return the records so many times over that they are decoded together."""
    return values * (40 // len(values) + 1) if values else []
