"""The wire form of events: bytes in a log to events and back.

A value is a `headrace.v1.Event` (Protocol Buffers), one JSON object as `stream.event_json`
describes it, or many events as columns (`stream.columnar_form`); the first byte tells them apart,
because "{" opens no Protobuf event and 0xDF opens neither.

Scores, probabilities and vectors are float32 on the wire: a value that needs more bits comes back
rounded. Everything else comes back as it was. `stream.event_check` says what is refused, on the way
in and on the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from google.protobuf.message import DecodeError as ProtobufDecodeError

from domain.errors import DecodeError, LogError
from domain.events import (
    Event,
    Features,
    FeatureValue,
    Feedback,
    Impression,
    ItemUpdate,
    ShownItem,
    UserUpdate,
)
from protos.headrace.v1 import events_pb2
from stream.columnar_form import columns_from_bytes, is_columnar
from stream.columnar_objects import events_of
from stream.event_check import contradiction
from stream.event_json import event_from_text, event_to_text

_BAD_BYTES = 2**20
"""Bytes that the bad events of one columnar record may take alone, beyond what it takes itself."""


@dataclass(frozen=True, slots=True)
class BadEvent:
    """One event of a record that cannot be used.

    Attributes:
        index: its place in the record, 0 in a record of one event.
        reason: what was expected and what came.
        value: the wire form of that one event, as far as it can be told; the record's own bytes
            when it holds one event, or cannot be read at all.
    """

    index: int
    reason: str
    value: bytes


def encode(event: Event) -> bytes:
    """Return the wire form of an event; the same event always gives the same bytes.

    Raises:
        LogError: the event contradicts itself, or does not fit the wire form.
    """
    return _encode_with(_event_to_bytes, event)


def encode_json(event: Event) -> bytes:
    """Return an event as one line of JSON, without the newline; `decode` reads it as well.

    Raises:
        LogError: the event contradicts itself, or does not fit JSON in UTF-8.
    """
    return _encode_with(event_to_text, event)


def decode(value: bytes) -> Event:
    """Return the event that a log's bytes stand for.

    Raises:
        DecodeError: the bytes are no event, or the event contradicts itself; says which.
    """
    if value[:1] == b"{":
        return event_from_text(value)
    if is_columnar(value):
        raise DecodeError("expected one event, got a columnar record")
    try:
        message = events_pb2.Event.FromString(value)
    except ProtobufDecodeError as error:
        raise DecodeError(f"expected a headrace.v1.Event, got {len(value)} other bytes") from error
    return event_from_message(message)


def decode_record(value: bytes) -> list[Event | BadEvent]:
    """Return all that a record holds, in order; never raises for what a record may hold.

    A record that cannot be read at all gives one `BadEvent` with the record's own bytes. A record's
    position is one: it is passed when all of its events have been led through the loop.
    """
    try:
        return _columnar_events(value) if is_columnar(value) else [decode(value)]
    except DecodeError as error:
        return [BadEvent(0, error.reason, value)]


def _columnar_events(value: bytes) -> list[Event | BadEvent]:
    """Return the events of a columnar record; raises DecodeError when it cannot be read at all."""
    found, bad = events_of(columns_from_bytes(value))
    events: list[Event | BadEvent] = [*found]
    # Columns share texts and features, single events do not: a hostile record could grow much.
    budget = len(value) + _BAD_BYTES
    for index in bad:
        reason, alone = contradiction(found[index]), _event_to_bytes(found[index])
        budget -= len(alone)
        if budget < 0:
            raise DecodeError(f"too many events that cannot be used, the last at {index}: {reason}")
        events[index] = BadEvent(index, reason, alone)
    return events


def event_from_message(message: events_pb2.Event) -> Event:
    """Convert a Protobuf event to a domain event.

    Raises:
        DecodeError: its reason starts with the field that is missing or contradicts the rest.
    """
    event: Event
    match message.WhichOneof("kind"):
        case "impression":
            event = _impression(message)
        case "feedback":
            event = _feedback(message)
        case "item_update":
            event = _item_update(message)
        case "user_update":
            event = _user_update(message)
        case _:
            raise DecodeError(
                "kind: expected impression, feedback, item_update or user_update, got none"
            )
    reason = contradiction(event)
    if reason:
        raise DecodeError(reason)
    return event


def event_to_message(event: Event) -> events_pb2.Event:
    """Convert a domain event to a Protobuf event.

    Raises:
        TypeError, ValueError: a field holds what its type on the wire cannot hold.
    """
    message = events_pb2.Event(event_id=event.event_id, time_ms=event.time_ms)
    match event:
        case Impression():
            _fill_impression(message.impression, event)
        case Feedback():
            _fill_feedback(message.feedback, event)
        case ItemUpdate():
            message.item_update.item_id = event.item_id
            message.item_update.withdrawn = not event.available
            _fill_features(message.item_update.features, event.features)
        case UserUpdate():
            message.user_update.user_id = event.user_id
            _fill_features(message.user_update.features, event.features)
        case _:
            assert_never(event)
    return message


def _encode_with(form: Callable[[Event], bytes], event: Event) -> bytes:
    try:
        reason = contradiction(event)
        if not reason:
            return form(event)
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise LogError(f"cannot store event {event.event_id!r}: {reason}")


def _event_to_bytes(event: Event) -> bytes:
    value: bytes = event_to_message(event).SerializeToString(deterministic=True)
    return value


def _impression(message: events_pb2.Event) -> Impression:
    body = message.impression
    return Impression(
        event_id=message.event_id,
        time_ms=message.time_ms,
        user_id=body.user_id,
        items=tuple(
            [
                ShownItem(
                    item_id=item.item_id,
                    position=item.position,
                    score=item.score,
                    probability=item.probability if item.HasField("probability") else 1.0,
                )
                for item in body.items
            ]
        ),
        context=_features("impression.context", body.context),
        snapshot_id=body.snapshot_id,
    )


def _feedback(message: events_pb2.Event) -> Feedback:
    body = message.feedback
    return Feedback(
        event_id=message.event_id,
        time_ms=message.time_ms,
        user_id=body.user_id,
        item_id=body.item_id,
        kind=body.kind,
        value=body.value if body.HasField("value") else 1.0,
        impression_id=body.impression_id or None,
        context=_features("feedback.context", body.context),
    )


def _item_update(message: events_pb2.Event) -> ItemUpdate:
    body = message.item_update
    return ItemUpdate(
        event_id=message.event_id,
        time_ms=message.time_ms,
        item_id=body.item_id,
        features=_features("item_update.features", body.features),
        available=not body.withdrawn,
    )


def _user_update(message: events_pb2.Event) -> UserUpdate:
    body = message.user_update
    return UserUpdate(
        event_id=message.event_id,
        time_ms=message.time_ms,
        user_id=body.user_id,
        features=_features("user_update.features", body.features),
    )


def _features(where: str, wire: Mapping[str, events_pb2.FeatureValue]) -> dict[str, FeatureValue]:
    if not wire:
        return {}
    # Protobuf hands a map over in an order that changes from process to process; a replay must not.
    return {name: feature_from_message(f"{where}[{name!r}]", wire[name]) for name in sorted(wire)}


def feature_from_message(where: str, value: events_pb2.FeatureValue) -> FeatureValue:
    """Return the value of one feature.

    Raises:
        DecodeError: it has no kind; the reason begins with `where`.
    """
    match value.WhichOneof("kind"):
        case "text":
            return value.text
        case "number":
            return value.number
        case "texts":
            return tuple(value.texts.values)
        case "vector":
            return tuple(value.vector.values)
        case _:
            raise DecodeError(f"{where}: expected text, number, texts or vector, got none")


def _fill_impression(body: events_pb2.Impression, event: Impression) -> None:
    body.user_id = event.user_id
    body.snapshot_id = event.snapshot_id
    for item in event.items:
        wire = body.items.add(item_id=item.item_id, position=item.position, score=item.score)
        if item.probability != 1.0:
            wire.probability = item.probability
    _fill_features(body.context, event.context)


def _fill_feedback(body: events_pb2.Feedback, event: Feedback) -> None:
    body.user_id = event.user_id
    body.item_id = event.item_id
    body.kind = event.kind
    if event.value != 1.0:
        body.value = event.value
    if event.impression_id is not None:
        body.impression_id = event.impression_id
    _fill_features(body.context, event.context)


def _fill_features(wire: Any, features: Features) -> None:
    for name, value in features.items():
        target = wire[name]
        if isinstance(value, str):
            target.text = value
        elif not isinstance(value, tuple):
            target.number = value
        elif value and not isinstance(value[0], str):
            target.vector.values.extend(value)
        else:
            target.texts.values.extend(value)
            # Without this an empty tuple would leave the kind unset.
            target.texts.SetInParent()
