"""Any event survives both forms, and any bytes give an event or a DecodeError, nothing else."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from domain.errors import DecodeError
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from stream.codec import decode, encode, encode_json, event_from_message, event_to_message
from stream.event_json import from_json, to_json

ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
times = st.integers(1, 2**63 - 1)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
float64s = st.floats(allow_nan=False, allow_infinity=False)
feature_values = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    float64s,
    st.lists(ids, max_size=4).map(tuple),
    st.lists(float32s, max_size=4).map(tuple),
)
features = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), feature_values)
shown_items = st.builds(
    ShownItem,
    item_id=ids,
    position=st.integers(0, 2**31 - 1),
    score=float32s,
    probability=st.floats(2.0**-149, 1.0, width=32),
)
impressions = st.builds(
    Impression,
    event_id=ids,
    time_ms=times,
    user_id=ids,
    items=st.lists(shown_items, min_size=1, max_size=5, unique_by=lambda item: item.item_id).map(
        tuple
    ),
    context=features,
    snapshot_id=st.one_of(st.just(""), ids),
)
feedbacks = st.builds(
    Feedback,
    event_id=ids,
    time_ms=times,
    user_id=ids,
    item_id=ids,
    kind=ids,
    value=float64s,
    impression_id=st.one_of(st.none(), ids),
    context=features,
)
item_updates = st.builds(
    ItemUpdate,
    event_id=ids,
    time_ms=times,
    item_id=ids,
    features=features,
    available=st.booleans(),
)
user_updates = st.builds(UserUpdate, event_id=ids, time_ms=times, user_id=ids, features=features)
events = st.one_of(impressions, feedbacks, item_updates, user_updates)


@given(events)
def test_event_comes_back_exactly_from_protobuf(event: Event) -> None:
    assert decode(encode(event)) == event
    assert event_from_message(event_to_message(event)) == event


@given(events)
def test_event_comes_back_exactly_from_json(event: Event) -> None:
    assert from_json(to_json(event)) == event
    line = encode_json(event)
    assert b"\n" not in line
    assert decode(line) == event


@given(events)
def test_encode_gives_the_same_bytes_whatever_the_order_of_features(event: Event) -> None:
    assert encode(decode(encode(event))) == encode(event)


@given(events, st.data())
def test_damaged_bytes_give_an_event_or_a_decode_error(event: Event, data: st.DataObject) -> None:
    value = bytearray(encode(event))
    index = data.draw(st.integers(0, len(value) - 1))
    value[index] ^= data.draw(st.integers(1, 255))
    _decodes_or_says_why(bytes(value))


@given(st.binary(max_size=64))
@example(b"{")
@example(b'{"type": "feedback", "context": {"a": 1}, "context": 3}')
def test_any_bytes_give_an_event_or_a_decode_error(value: bytes) -> None:
    _decodes_or_says_why(value)
    _decodes_or_says_why(b"{" + value)


@given(st.binary(max_size=64).filter(lambda value: b"\n" not in value))
def test_a_line_of_text_without_a_brace_is_never_taken_for_protobuf(value: bytes) -> None:
    # Field 1, the event id, opens with the byte 0x0A, which is the newline itself.
    if value[:1] == b"{":
        return
    try:
        decode(value)
    except DecodeError:
        return
    raise AssertionError(f"{value!r} was read as an event")


def _decodes_or_says_why(value: bytes) -> None:
    try:
        event = decode(value)
    except DecodeError:
        return
    assert decode(encode(event)) == event
