"""Between the wire and the domain: Protobuf requests in, Protobuf answers out."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from math import isfinite

from domain.errors import DecodeError, InvalidRequestError
from domain.events import Event, Features, FeatureValue
from domain.recommendations import Path, Recommendation
from protos.headrace.v1 import (
    events_pb2,
    ranking_pb2,
    recommender_pb2,
    retrieval_pb2,
)
from serving import validate
from stream.codec import event_from_message, feature_from_message

_PATHS: dict[Path, recommender_pb2.AnswerPath] = {
    "ranked": recommender_pb2.ANSWER_PATH_RANKED,
    "retrieved": recommender_pb2.ANSWER_PATH_RETRIEVED,
    "popular": recommender_pb2.ANSWER_PATH_POPULAR,
    "cold_start": recommender_pb2.ANSWER_PATH_COLD_START,
}

_FLOAT32_MAX = 3.4028234663852886e38


def events_from_request(
    request: events_pb2.PublishRequest, now_ms: int, max_events: int
) -> list[Event]:
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


def recommend_response(answer: Recommendation) -> recommender_pb2.RecommendResponse:
    """Return the wire form of an answer to Recommend."""
    return recommender_pb2.RecommendResponse(
        items=_items(answer), info=_info(answer), impression_id=answer.impression_id
    )


def retrieve_response(answer: Recommendation) -> retrieval_pb2.RetrieveResponse:
    """Return the wire form of an answer to Retrieve."""
    return retrieval_pb2.RetrieveResponse(items=_items(answer), info=_info(answer))


def rank_response(answer: Recommendation) -> ranking_pb2.RankResponse:
    """Return the wire form of an answer to Rank."""
    return ranking_pb2.RankResponse(items=_items(answer), info=_info(answer))


def _items(answer: Recommendation) -> list[recommender_pb2.ScoredItem]:
    return [
        recommender_pb2.ScoredItem(item_id=item.item_id, score=item.score) for item in answer.items
    ]


def _info(answer: Recommendation) -> recommender_pb2.AnswerInfo:
    return recommender_pb2.AnswerInfo(
        snapshot_id=answer.snapshot_id, path=_PATHS[answer.path], model_age_ms=answer.age_ms
    )


def _check_finite(where: str, features: Features) -> None:
    """Refuse what the event log would refuse in the impression's context."""
    for name, value in features.items():
        parts = value if isinstance(value, tuple) else (value,)
        for part in parts:
            if not isinstance(part, str) and not (isfinite(part) and abs(part) <= _FLOAT32_MAX):
                raise InvalidRequestError(f"{where}.{name}", f"expected finite float32, got {part}")
