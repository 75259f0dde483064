"""Events as JSON: the documented examples, and errors that name the key."""

from __future__ import annotations

import json
from typing import Any

import pytest

import stream.event_json
from domain.errors import DecodeError
from domain.events import Feedback, Impression, ItemUpdate, ShownItem, UserUpdate
from stream.event_json import from_json, to_json

FEEDBACK = {
    "type": "feedback",
    "event_id": "e",
    "time_ms": 5,
    "user_id": "u",
    "item_id": "i",
    "kind": "click",
}
IMPRESSION = {
    "type": "impression",
    "event_id": "e",
    "time_ms": 5,
    "user_id": "u",
    "items": [{"item_id": "i", "position": 0}],
}


def without(raw: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key != name}


def test_documented_examples_are_what_from_json_reads() -> None:
    text = (stream.event_json.__doc__ or "").split("\n\n")[1]
    documented, end = [], 0
    while end < len(text.rstrip()):
        raw, end = json.JSONDecoder().raw_decode(text, text.index("{", end))
        documented.append(from_json(raw))
        assert to_json(documented[-1]) == raw
    assert documented == [
        Impression(
            event_id="e1",
            time_ms=1_700_000_000_000,
            user_id="u1",
            items=(ShownItem(item_id="i1", position=0, score=0.25),),
            context={"device": "phone"},
        ),
        Feedback(
            event_id="e2",
            time_ms=1_700_000_001_000,
            user_id="u1",
            item_id="i1",
            kind="click",
            impression_id="e1",
        ),
        ItemUpdate(
            event_id="e3",
            time_ms=1_700_000_002_000,
            item_id="i1",
            features={
                "author": "a7",
                "tags": ("red", "new"),
                "length_s": 12.5,
                "vector": (0.1, 0.2),
            },
        ),
        UserUpdate(
            event_id="e4", time_ms=1_700_000_003_000, user_id="u1", features={"country": "NL"}
        ),
    ]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({}, "type: expected one of impression, feedback, item_update, user_update, got None"),
        (FEEDBACK | {"type": ["feedback"]}, "type: expected one of"),
        (FEEDBACK | {"item": "i"}, "item: unknown key"),
        (FEEDBACK | {"items": []}, "items: unknown key"),
        (without(FEEDBACK, "user_id"), "user_id: missing"),
        (without(FEEDBACK, "event_id"), "event_id: missing"),
        (FEEDBACK | {"user_id": 7}, "user_id: expected text, got 7"),
        (FEEDBACK | {"user_id": "\ud800"}, "user_id: expected text, got half a surrogate pair"),
        (FEEDBACK | {"time_ms": 5.0}, "time_ms: expected a whole number, got 5.0"),
        (FEEDBACK | {"time_ms": True}, "time_ms: expected a whole number, got True"),
        (FEEDBACK | {"time_ms": 0}, "time_ms: expected a time in ms"),
        (FEEDBACK | {"value": "1"}, "value: expected a number, got '1'"),
        (FEEDBACK | {"value": False}, "value: expected a number, got False"),
        (FEEDBACK | {"value": 10**400}, "value: expected a number that fits a float"),
        (FEEDBACK | {"value": float("nan")}, "feedback.value: expected a finite number, got nan"),
        (FEEDBACK | {"context": []}, "context: expected an object of features, got []"),
        (FEEDBACK | {"context": {"x": None}}, "context['x']: expected a number, got None"),
        (FEEDBACK | {"context": {"x": ["a", 1]}}, "context['x']: expected text, got 1"),
        (FEEDBACK | {"context": {"x": [1, "a"]}}, "context['x']: expected a number, got 'a'"),
        (IMPRESSION | {"items": {}}, "items: expected a list of items, got {}"),
        (IMPRESSION | {"items": []}, "impression.items: expected at least one item"),
        (IMPRESSION | {"items": ["i"]}, "items[0]: expected an item, got 'i'"),
        (IMPRESSION | {"items": [{"item_id": "i"}]}, "items[0].position: missing"),
        (
            IMPRESSION | {"items": [{"item_id": "i", "position": 0, "socre": 1.0}]},
            "items[0].socre: unknown key",
        ),
        (
            {"type": "item_update", "event_id": "e", "time_ms": 5, "item_id": "i", "available": 0},
            "available: expected true or false, got 0",
        ),
    ],
)
def test_from_json_names_the_key_when_something_is_wrong(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        from_json(raw)
    assert caught.value.reason.startswith(reason)


def test_from_json_reads_whole_numbers_as_features() -> None:
    event = from_json(
        {"type": "user_update", "event_id": "e", "time_ms": 5, "user_id": "u"}
        | {"features": {"age": 31, "bins": [1, 2], "none": []}}
    )
    assert isinstance(event, UserUpdate)
    assert event.features == {"age": 31.0, "bins": (1.0, 2.0), "none": ()}
