"""The wire form: what comes back, what is refused and how the reason reads."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from domain.errors import DecodeError, LogError
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from protos.headrace.v1 import events_pb2
from stream.codec import decode, encode, encode_json, event_from_message, event_to_message

IMPRESSION = Impression(
    event_id="e1",
    time_ms=1_000,
    user_id="u",
    items=(
        ShownItem(item_id="i1", position=0, score=0.5, probability=0.25),
        ShownItem(item_id="i2", position=1),
    ),
    context={"device": "phone", "hour": 13.0},
    snapshot_id="s9",
)
FEEDBACK = Feedback(
    event_id="e2",
    time_ms=2_000,
    user_id="u",
    item_id="i1",
    kind="click",
    value=0.0,
    impression_id="e1",
)
ITEM_UPDATE = ItemUpdate(
    event_id="e3",
    time_ms=3_000,
    item_id="i1",
    features={"author": "a7", "tags": ("red", "new"), "length_s": 12.5, "vector": (0.5, -2.0)},
    available=False,
)
USER_UPDATE = UserUpdate(event_id="e4", time_ms=4_000, user_id="u", features={"country": "NL"})
EVENTS = (IMPRESSION, FEEDBACK, ITEM_UPDATE, USER_UPDATE)
kinds = pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)


def feedback_message(**fields: object) -> events_pb2.Event:
    body = {"user_id": "u", "item_id": "i", "kind": "click"} | fields
    return events_pb2.Event(event_id="e", time_ms=1, feedback=events_pb2.Feedback(**body))


def impression_message(*items: events_pb2.ShownItem) -> events_pb2.Event:
    body = events_pb2.Impression(user_id="u", items=items)
    return events_pb2.Event(event_id="e", time_ms=1, impression=body)


@kinds
def test_decode_returns_what_was_encoded(event: Event) -> None:
    assert decode(encode(event)) == event


@kinds
def test_decode_reads_json_as_well(event: Event) -> None:
    assert decode(encode_json(event)) == event


@kinds
def test_message_converters_are_the_same_form(event: Event) -> None:
    assert event_to_message(event).SerializeToString(deterministic=True) == encode(event)
    assert event_from_message(event_to_message(event)) == event


def test_decode_fills_defaults_when_optional_fields_are_unset() -> None:
    organic = event_from_message(feedback_message())
    assert isinstance(organic, Feedback)
    assert (organic.value, organic.impression_id, organic.context) == (1.0, None, {})
    shown = event_from_message(impression_message(events_pb2.ShownItem(item_id="i")))
    assert isinstance(shown, Impression)
    assert shown.items == (ShownItem(item_id="i", position=0, score=0.0, probability=1.0),)


def test_decode_keeps_zero_apart_from_unset_in_feedback() -> None:
    assert event_from_message(feedback_message(value=0.0)).value == 0.0  # type: ignore[union-attr]


def test_decode_ignores_fields_of_a_later_version() -> None:
    unknown_field_200 = b"\xc2\x0c\x03new"
    assert decode(encode(FEEDBACK) + unknown_field_200) == FEEDBACK


def test_scores_come_back_as_float32() -> None:
    shown = Impression(
        event_id="e", time_ms=1, user_id="u", items=(ShownItem(item_id="i", position=0, score=0.1),)
    )
    back = decode(encode(shown))
    assert isinstance(back, Impression)
    assert back.items[0].score == 0.10000000149011612


def test_encode_and_decode_keep_one_order_of_features_in_every_process() -> None:
    names = [f"feature{n}" for n in range(40)]
    event = UserUpdate(event_id="e", time_ms=1, user_id="u", features=dict.fromkeys(names, 1.0))
    program = (
        "import sys; from stream.codec import decode, encode; "
        "event = decode(bytes.fromhex(sys.argv[1])); "
        "print(' '.join(event.features), encode(event).hex())"
    )
    value = encode(event)
    out = subprocess.run(
        [sys.executable, "-c", program, value.hex()], capture_output=True, text=True, check=True
    ).stdout
    assert out.split() == [*sorted(names), value.hex()]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\xff\xff", "expected a headrace.v1.Event, got 3 other bytes"),
        (encode(FEEDBACK)[:-1], "expected a headrace.v1.Event"),
        (b"", "kind: expected impression, feedback, item_update or user_update, got none"),
        (b'{"type": "feedback"', "expected one JSON object"),
        (b'{"type": "view"}', "type: expected one of impression, feedback"),
        (b'{\x00"\x00', "expected one JSON object"),
        (b'{"event_id": "e", "event_id": "f"}', "event_id: the key appears twice"),
        (b"{" * 100_000, "expected one JSON object"),
    ],
)
def test_decode_says_what_came_when_bytes_are_no_event(value: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(value)
    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (events_pb2.Event(event_id="e", time_ms=1), "kind:"),
        (events_pb2.Event(time_ms=1, user_update=events_pb2.UserUpdate(user_id="u")), "event_id:"),
        (
            events_pb2.Event(event_id="e", user_update=events_pb2.UserUpdate(user_id="u")),
            "time_ms:",
        ),
        (
            events_pb2.Event(
                event_id="e", time_ms=-5, item_update=events_pb2.ItemUpdate(item_id="i")
            ),
            "time_ms:",
        ),
        (
            events_pb2.Event(event_id="e", time_ms=1, user_update=events_pb2.UserUpdate()),
            "user_update.user_id:",
        ),
        (
            events_pb2.Event(event_id="e", time_ms=1, item_update=events_pb2.ItemUpdate()),
            "item_update.item_id:",
        ),
        (feedback_message(user_id=""), "feedback.user_id:"),
        (feedback_message(item_id=""), "feedback.item_id:"),
        (feedback_message(kind=""), "feedback.kind:"),
        (feedback_message(value=math.nan), "feedback.value:"),
        (feedback_message(value=math.inf), "feedback.value:"),
        (
            feedback_message(context={"hour": events_pb2.FeatureValue(number=math.nan)}),
            "feedback.context['hour']:",
        ),
        (feedback_message(context={"x": events_pb2.FeatureValue()}), "feedback.context['x']:"),
        (
            feedback_message(
                context={"v": events_pb2.FeatureValue(vector=events_pb2.FloatList(values=[-1e39]))}
            ),
            "feedback.context['v']:",
        ),
        (impression_message(), "impression.items:"),
        (impression_message(events_pb2.ShownItem()), "impression.items[0].item_id:"),
        (
            impression_message(events_pb2.ShownItem(item_id="i", position=-1)),
            "impression.items[0].position:",
        ),
        (
            impression_message(events_pb2.ShownItem(item_id="i", score=math.nan)),
            "impression.items[0].score:",
        ),
        (
            impression_message(events_pb2.ShownItem(item_id="i", probability=0.0)),
            "impression.items[0].probability:",
        ),
        (
            impression_message(events_pb2.ShownItem(item_id="i", probability=1.5)),
            "impression.items[0].probability:",
        ),
        (
            impression_message(
                events_pb2.ShownItem(item_id="i"),
                events_pb2.ShownItem(item_id="j", position=1),
                events_pb2.ShownItem(item_id="i", position=2),
            ),
            "impression.items[2].item_id: 'i' is shown twice",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_decode_names_the_field_when_an_event_contradicts_itself(
    message: events_pb2.Event, field: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(message.SerializeToString())
    assert caught.value.reason.startswith(field)


@pytest.mark.parametrize(
    "event",
    [
        Feedback(event_id="e", time_ms=0, user_id="u", item_id="i", kind="click"),
        Feedback(event_id="e", time_ms=2**63, user_id="u", item_id="i", kind="click"),
        Feedback(event_id="e", time_ms=1, user_id="\ud800", item_id="i", kind="click"),
        Feedback(event_id="e", time_ms=1, user_id="u", item_id="i", kind="click", impression_id=""),
        Feedback(event_id="e", time_ms=1, user_id="u", item_id=7, kind="click"),  # type: ignore[arg-type]
        UserUpdate(event_id="e", time_ms=1, user_id="u", features={"x": None}),  # type: ignore[dict-item]
        UserUpdate(event_id="e", time_ms=1, user_id="u", features={"x": ("a", 1.0)}),  # type: ignore[dict-item]
        Impression(
            event_id="e",
            time_ms=1,
            user_id="u",
            items=(ShownItem(item_id="i", position=0, score=1e39),),
        ),
        Impression(
            event_id="e",
            time_ms=1,
            user_id="u",
            items=(ShownItem(item_id="i", position=0, probability=1e-50),),
        ),
    ],
)
def test_encode_refuses_what_decode_would_refuse(event: Event) -> None:
    with pytest.raises(LogError, match="cannot store event 'e': "):
        encode(event)
