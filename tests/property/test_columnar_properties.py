"""Events survive the columnar form as they survive the other two, and any bytes are no harm."""

from __future__ import annotations

import struct
from dataclasses import fields, replace

import crc32c
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.errors import DecodeError, LogError
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from stream.codec import BadEvent, decode, decode_record, encode
from stream.columnar_build import columns_of, encode_columnar
from stream.columnar_form import COLUMNS, MAGIC, columns_from_bytes, columns_to_bytes
from stream.columnar_layout import COLUMN_NAMES, EventColumns, unusable
from stream.columnar_objects import events_of
from stream.event_check import contradiction
from tests.property.test_codec_properties import events

many_events = st.lists(events, min_size=1, max_size=12)
_FIRST_COLUMN = 48


@given(many_events)
def test_events_come_back_as_from_records_of_one_event(sent: list[Event]) -> None:
    received = decode_record(encode_columnar(sent))
    assert received == [decode(encode(event)) for event in sent]
    assert [type(event) for event in received] == [type(event) for event in sent]


@given(many_events)
def test_made_objects_are_like_constructed_ones(sent: list[Event]) -> None:
    for event in decode_record(encode_columnar(sent)):
        assert not isinstance(event, BadEvent)
        again = type(event)(**{one.name: getattr(event, one.name) for one in fields(event)})
        assert event == again
        assert repr(event) == repr(again)
        for one in fields(event):
            assert type(getattr(event, one.name)) is type(getattr(again, one.name))


@given(many_events)
def test_same_events_give_the_same_bytes_whatever_the_order_of_features(sent: list[Event]) -> None:
    value = encode_columnar(sent)
    received = [event for event in decode_record(value) if not isinstance(event, BadEvent)]
    assert encode_columnar(received) == value
    assert columns_to_bytes(columns_from_bytes(value)) == value


@given(many_events, st.data())
def test_damaged_bytes_are_one_bad_event(sent: list[Event], data: st.DataObject) -> None:
    value = bytearray(encode_columnar(sent))
    index = data.draw(st.integers(1, len(value) - 1))
    value[index] ^= data.draw(st.integers(1, 255))
    (bad,) = decode_record(bytes(value))
    assert isinstance(bad, BadEvent)
    assert (bad.index, bad.value) == (0, bytes(value))


@given(many_events, st.data())
def test_truncated_bytes_are_one_bad_event(sent: list[Event], data: st.DataObject) -> None:
    value = encode_columnar(sent)
    end = data.draw(st.integers(1, len(value) - 1))
    assert isinstance(decode_record(value[:end])[0], BadEvent)
    assert isinstance(decode_record(value + b"\0")[0], BadEvent)


@given(many_events, st.data())
def test_hostile_bytes_with_a_right_checksum_are_read_or_refused(
    sent: list[Event], data: st.DataObject
) -> None:
    body = bytearray(encode_columnar(sent)[12:])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 4))
        body[at : at + 4] = data.draw(st.binary(min_size=4, max_size=4))
    value = _sealed(bytes(body))
    for event in decode_record(value):
        if isinstance(event, BadEvent):
            assert event.reason
        else:
            assert contradiction(event) == ""


@given(st.binary(max_size=96))
@example(b"")
def test_any_body_is_refused_without_an_error_of_ours(body: bytes) -> None:
    assert decode_record(_sealed(body))
    assert decode_record(MAGIC[:1] + body)


@given(st.binary(max_size=64))
def test_the_magic_byte_opens_no_protobuf_event(rest: bytes) -> None:
    from protos.headrace.v1 import events_pb2

    with pytest.raises(Exception, match=r"Error parsing|parse|Wire"):
        events_pb2.Event.FromString(MAGIC[:1] + rest)


@given(many_events, st.data())
def test_unusable_events_are_those_that_contradict_themselves(
    sent: list[Event], data: st.DataObject
) -> None:
    columns = columns_of(sent)
    spoiled = _spoil(columns, data)
    found, bad = events_of(spoiled)
    assert bad == [i for i, event in enumerate(found) if contradiction(event)]
    twice = {i for i in bad if "shown twice" in contradiction(found[i])}
    assert {*np.flatnonzero(unusable(spoiled)).tolist()} | twice == {*bad}
    received = decode_record(columns_to_bytes(spoiled))
    for index, (event, element) in enumerate(zip(found, received, strict=True)):
        if index in bad:
            assert isinstance(element, BadEvent)
            assert (element.index, element.reason) == (index, contradiction(event))
            # Alone it is refused for the same reason: what is set aside can be looked into.
            assert decode_record(element.value) == [
                BadEvent(0, element.reason, element.value)
            ] or not isinstance(decode_record(element.value)[0], BadEvent)
        else:
            assert element == event


def test_bad_event_leaves_the_others_as_they_are() -> None:
    clicks: list[Event] = [
        Feedback(event_id=f"c{i}", time_ms=i + 1, user_id="ann", item_id="film", kind="click")
        for i in range(3)
    ]
    columns = columns_of(clicks)
    times = columns.times_ms.copy()
    times[1] = 0
    first, second, third = decode_record(columns_to_bytes(replace(columns, times_ms=times)))
    assert (first, third) == (clicks[0], clicks[2])
    assert isinstance(second, BadEvent)
    assert (second.index, second.reason[:7]) == (1, "time_ms")
    assert decode_record(second.value) == [BadEvent(0, second.reason, second.value)]


def test_bad_events_that_share_much_do_not_grow_beyond_bounds() -> None:
    shared = {"note": "x" * 100_000}
    lists: list[Event] = [
        UserUpdate(event_id=f"u{i}", time_ms=1, user_id="ann", features=shared) for i in range(100)
    ]
    columns = columns_of(lists)
    value = columns_to_bytes(replace(columns, times_ms=np.zeros(100, np.int64)))
    (bad,) = decode_record(value)
    assert isinstance(bad, BadEvent)
    assert bad.reason.startswith("too many events that cannot be used")
    assert bad.value == value


def test_texts_that_repeat_are_the_same_text() -> None:
    shown = Impression(
        event_id="list", time_ms=1, user_id="ann", items=(_shown("a", 0), _shown("b", 1))
    )
    columns = columns_of([shown])
    raw = columns.text_bytes.tobytes().replace(b"b", b"a")
    (bad,) = decode_record(
        columns_to_bytes(replace(columns, text_bytes=np.frombuffer(raw, np.uint8)))
    )
    assert isinstance(bad, BadEvent)
    assert bad.reason == "impression.items[1].item_id: 'a' is shown twice in one list"


def test_columns_say_what_the_events_say() -> None:
    columns = columns_of(
        [
            ItemUpdate(event_id="i", time_ms=5, item_id="film", available=False),
            Impression(event_id="l", time_ms=6, user_id="ann", items=(_shown("film", 3),)),
            Feedback(
                event_id="f", time_ms=7, user_id="ann", item_id="film", kind="like",
                impression_id="l", context={"tab": "1"},
            ),
        ]
    )  # fmt: skip
    texts = [*columns.texts(), None]
    assert columns.kinds.tolist() == [3, 1, 2]
    assert columns.times_ms.tolist() == [5, 6, 7]
    assert [texts[i] for i in columns.users] == [None, "ann", "ann"]
    assert [texts[i] for i in columns.items] == ["film", None, "film"]
    assert [texts[i] for i in columns.impression_ids] == [None, None, "l"]
    assert columns.shown_starts.tolist() == [0, 0, 1, 1]
    assert columns.positions.tolist() == [3]
    assert columns.withdrawn.tolist() == [1, 0, 0]
    assert columns.feature_sets.tolist() == [-1, -1, 0]


def test_encode_refuses_what_decode_would() -> None:
    with pytest.raises(LogError, match="at least one event"):
        encode_columnar([])
    with pytest.raises(LogError, match="'e': time_ms: expected"):
        encode_columnar([UserUpdate(event_id="e", time_ms=0, user_id="u")])
    with pytest.raises(LogError, match=r"'e': .*utf-8"):
        encode_columnar([UserUpdate(event_id="e", time_ms=1, user_id="\ud800")])


def test_single_event_is_expected_where_one_is_decoded() -> None:
    value = encode_columnar([UserUpdate(event_id="e", time_ms=1, user_id="u")])
    with pytest.raises(DecodeError, match="expected one event, got a columnar record"):
        decode(value)


def test_every_column_is_on_the_wire_once() -> None:
    assert sorted(name for name, *_ in COLUMNS) == sorted(COLUMN_NAMES)
    widths = [np.dtype(dtype).itemsize for _, dtype, _, _ in COLUMNS]
    assert widths == sorted(widths, reverse=True)  # so that all of them are aligned
    assert _FIRST_COLUMN % 8 == 0


def _shown(item_id: str, position: int) -> ShownItem:
    return ShownItem(item_id=item_id, position=position)


def _sealed(body: bytes) -> bytes:
    """Return a body with a header whose checksum is right."""
    return struct.pack("<4sB3sI", MAGIC, 2, bytes(3), crc32c.crc32c(body)) + body


def _spoil(columns: EventColumns, data: st.DataObject) -> EventColumns:
    """Return columns in which one entry of one column says something else, within its range."""
    last_text = columns.num_texts - 1
    texts = st.integers(-1, last_text)
    floats = st.sampled_from([float("nan"), float("inf"), -1.0, 0.0, 2.0])
    choices = {
        "times_ms": st.sampled_from([0, -1]),
        "values": floats,
        **dict.fromkeys(("event_ids", "users", "items", "actions", "shown_items"), texts),
        "positions": st.just(-1),
        "scores": floats,
        "probabilities": floats,
        "part_numbers": floats,
        "part_floats": floats,
        "kinds": st.integers(1, 4),
    }
    filled = sorted(name for name in choices if len(getattr(columns, name)))
    name = data.draw(st.sampled_from(filled))
    column = getattr(columns, name).copy()
    column[data.draw(st.integers(0, len(column) - 1))] = data.draw(choices[name])
    return replace(columns, **{name: column})
