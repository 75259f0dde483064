"""From the wire to the domain: Protobuf requests in; `convert_answers` has the way back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Protocol

from domain.errors import DecodeError, InvalidRequestError
from domain.events import Event, Features, FeatureValue
from domain.filters import ItemCondition, ItemFilters
from protos.headrace.v1 import (
    drift_pb2,
    events_pb2,
    filters_pb2,
    ranking_pb2,
    recommender_pb2,
    retrieval_pb2,
    tensors_pb2,
)
from serving import validate
from serving.convert_answers import DRIFT_KIND_VALUES, SEVERITY_VALUES
from serving.packed_texts import unpack_texts
from serving.signal_feed import SignalQuery
from stream.codec import event_from_message, feature_from_message

MAX_BATCH = 100
"""Most requests in one batch; each holds its place in the server's queue as if it came alone."""

_MAX_LISTED = 10_000
"""Most ids in an allow or deny list."""

_MAX_CONDITIONS = 32
"""Most conditions of one request."""

_FLOAT32_MAX = 3.4028234663852886e38


class EventsMessage(Protocol):
    """A request that carries events."""

    @property
    def events(self) -> Sequence[events_pb2.Event]:
        """Return the events, which may be changed in place."""


def events_from_request(request: EventsMessage, now_ms: int, max_events: int) -> list[Event]:
    """Return the events of a request, with ids and times filled in where the caller gave none.

    Raises:
        InvalidRequestError: naming the field, e.g. "events[3].feedback.item_id".
    """
    if len(request.events) > max_events:
        raise InvalidRequestError(
            "events", f"expected at most {max_events}, got {len(request.events)}"
        )
    events = []
    for index, message in enumerate(request.events):
        if not message.event_id:
            message.event_id = uuid.uuid4().hex
        if not message.time_ms:
            message.time_ms = now_ms
        try:
            events.append(event_from_message(message))
        except DecodeError as error:
            raise validate.named_field(error.reason, f"events[{index}].") from error
    return events


def features_from_message(
    where: str, wire: Mapping[str, events_pb2.FeatureValue]
) -> dict[str, FeatureValue]:
    """Return features by name, in the order of their names.

    Raises:
        InvalidRequestError: naming the feature that is empty or not finite.
    """
    try:
        features = {
            name: feature_from_message(f"{where}.{name}", wire[name]) for name in sorted(wire)
        }
    except DecodeError as error:
        raise validate.named_field(error.reason) from error
    _check_finite(where, features)
    return features


def recommend_filters(request: recommender_pb2.RecommendRequest) -> ItemFilters:
    """Return what may be in an answer of Recommend: unseen items, unless the caller says other.

    Raises:
        InvalidRequestError: naming the field, e.g. "filters.where[0].range".
    """
    return _filters(request.filters, exclude_seen=True)


def retrieve_filters(request: retrieval_pb2.RetrieveRequest) -> ItemFilters:
    """Return what may be in an answer of Retrieve.

    Raises:
        InvalidRequestError: as `recommend_filters`.
    """
    return _filters(request.filters, exclude_seen=request.exclude_seen)


def ranked_ids(request: ranking_pb2.RankRequest) -> tuple[str, ...]:
    """Return the ids to be ranked, from whichever of the two fields has them.

    Raises:
        InvalidRequestError: both have, or the tensor is none of texts.
    """
    if not request.HasField("item_id_tensor"):
        return tuple(request.item_ids)
    if request.item_ids:
        raise InvalidRequestError("item_id_tensor", "expected either this or item_ids, got both")
    tensor = request.item_id_tensor
    if tensor.dtype != tensors_pb2.DATA_TYPE_TEXT:
        raise InvalidRequestError(
            "item_id_tensor.dtype", f"expected DATA_TYPE_TEXT, got {tensor.dtype}"
        )
    return unpack_texts("item_id_tensor", tensor.data, tensor.shape)


def wants_tensors(form: tensors_pb2.AnswerForm) -> bool:
    """Return whether an answer is to be written as tensors.

    Raises:
        InvalidRequestError: there is no such form.
    """
    if form not in tensors_pb2.AnswerForm.values():
        raise InvalidRequestError("answer_form", f"expected an AnswerForm, got {form}")
    return form == tensors_pb2.ANSWER_FORM_TENSORS


def signal_query(request: drift_pb2.WatchSignalsRequest) -> SignalQuery:
    """Return which drift signals are wanted.

    Raises:
        InvalidRequestError: naming the field.
    """
    kinds = {value: kind for kind, value in DRIFT_KIND_VALUES.items()}
    severities = {value: severity for severity, value in SEVERITY_VALUES.items()}
    if request.kind and request.kind not in kinds:
        raise InvalidRequestError("kind", f"expected a DriftKind, got {request.kind}")
    if request.min_severity and request.min_severity not in severities:
        raise InvalidRequestError(
            "min_severity", f"expected a DriftSeverity, got {request.min_severity}"
        )
    return SignalQuery(
        since_ms=request.since_ms,
        stream=request.stream or None,
        kind=kinds.get(request.kind),
        min_severity=severities.get(request.min_severity, "small"),
        live_only=request.live_only,
    )


def check_batch(requests: Sequence[object]) -> None:
    """Check that there is something to answer, and not too much.

    Raises:
        InvalidRequestError: naming "requests".
    """
    if not 0 < len(requests) <= MAX_BATCH:
        raise InvalidRequestError("requests", f"expected 1 to {MAX_BATCH}, got {len(requests)}")


def _filters(wire: filters_pb2.Filters, *, exclude_seen: bool) -> ItemFilters:
    if wire.HasField("exclude_seen"):
        exclude_seen = wire.exclude_seen
    deny = _listed("filters.deny", wire.deny)
    allow = _listed("filters.allow", wire.allow.values) if wire.HasField("allow") else None
    if len(wire.where) > _MAX_CONDITIONS:
        raise InvalidRequestError(
            "filters.where", f"expected at most {_MAX_CONDITIONS}, got {len(wire.where)}"
        )
    where = tuple(
        _condition(f"filters.where[{index}]", condition)
        for index, condition in enumerate(wire.where)
    )
    return ItemFilters(exclude_seen=exclude_seen, allow=allow, deny=deny, where=where)


def _listed(where: str, item_ids: Sequence[str]) -> frozenset[str]:
    if len(item_ids) > _MAX_LISTED:
        raise InvalidRequestError(where, f"expected at most {_MAX_LISTED} ids, got {len(item_ids)}")
    return frozenset(item_ids)


def _condition(where: str, wire: filters_pb2.ItemCondition) -> ItemCondition:
    test = wire.WhichOneof("test")
    if test is None:
        raise InvalidRequestError(where, "expected one_of or range, got neither")
    if test == "one_of":
        texts = frozenset(wire.one_of.values)
        return ItemCondition(feature=wire.feature, one_of=texts, negated=wire.negated)
    try:
        return ItemCondition(
            feature=wire.feature,
            at_least=wire.range.at_least if wire.range.HasField("at_least") else None,
            at_most=wire.range.at_most if wire.range.HasField("at_most") else None,
            negated=wire.negated,
        )
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where}.range", error.reason) from error


def _check_finite(where: str, features: Features) -> None:
    """Refuse what the event log would refuse in the impression's context."""
    for name, value in features.items():
        parts = value if isinstance(value, tuple) else (value,)
        for part in parts:
            if not isinstance(part, str) and not (isfinite(part) and abs(part) <= _FLOAT32_MAX):
                raise InvalidRequestError(f"{where}.{name}", f"expected finite float32, got {part}")
