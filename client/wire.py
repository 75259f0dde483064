"""Between the client's values and the protos; the same for both kinds of client.

Ids and scores travel as tensors both ways: the same values as repeated fields, for less work.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from client.errors import CallError, error_of_failure
from client.events import event_messages, write_features
from client.types import (
    Acknowledgement,
    Answer,
    Condition,
    DriftSignal,
    Filters,
    RankQuery,
    RecommendQuery,
    RetrieveQuery,
    Snapshot,
    Switched,
)
from protos.headrace.v1 import (
    admin_pb2,
    drift_pb2,
    events_pb2,
    filters_pb2,
    ranking_pb2,
    recommender_pb2,
    retrieval_pb2,
    tensors_pb2,
)

_Request = TypeVar("_Request", recommender_pb2.RecommendRequest, retrieval_pb2.RetrieveRequest)


def recommend_request(query: RecommendQuery) -> recommender_pb2.RecommendRequest:
    """Return the request of a query."""
    return _filled(recommender_pb2.RecommendRequest(), query)


def retrieve_request(query: RetrieveQuery) -> retrieval_pb2.RetrieveRequest:
    """Return the request of a query."""
    return _filled(retrieval_pb2.RetrieveRequest(), query)


def rank_request(query: RankQuery) -> ranking_pb2.RankRequest:
    """Return the request of a query."""
    request = ranking_pb2.RankRequest(
        user_id=query.user_id,
        item_id_tensor=text_tensor(query.item_ids),
        answer_form=tensors_pb2.ANSWER_FORM_TENSORS,
    )
    write_features(request.context, query.context)
    return request


def publish_request(events: Iterable[Any]) -> events_pb2.PublishRequest:
    """Return the request that stores events."""
    return events_pb2.PublishRequest(events=event_messages(events))


def stream_request(number: int, events: Iterable[Any]) -> events_pb2.PublishStreamRequest:
    """Return one request of a stream."""
    return events_pb2.PublishStreamRequest(number=number, events=event_messages(events))


def watch_request(
    since_ms: int, stream: str, kind: str, min_severity: str, live_only: bool
) -> drift_pb2.WatchSignalsRequest:
    """Return the request that watches signals.

    Raises:
        ValueError: there is no such kind or severity.
    """
    return drift_pb2.WatchSignalsRequest(
        since_ms=since_ms,
        stream=stream,
        kind=_number(drift_pb2.DriftKind, "DRIFT_KIND", kind),
        min_severity=_number(drift_pb2.DriftSeverity, "DRIFT_SEVERITY", min_severity),
        live_only=live_only,
    )


def answer_of(
    response: (
        recommender_pb2.RecommendResponse
        | retrieval_pb2.RetrieveResponse
        | ranking_pb2.RankResponse
    ),
) -> Answer:
    """Return the answer in a response."""
    tensors = response.tensors
    return Answer(
        item_ids=texts_of(tensors.item_ids),
        scores=struct.unpack(f"<{len(tensors.scores.data) // 4}f", tensors.scores.data),
        path=_name(recommender_pb2.AnswerPath, "ANSWER_PATH", response.info.path),
        snapshot_id=response.info.snapshot_id,
        model_age_ms=response.info.model_age_ms,
        impression_id=(
            response.impression_id
            if isinstance(response, recommender_pb2.RecommendResponse)
            else ""
        ),
    )


def outcomes_of(outcomes: Iterable[Any], request_id: str) -> list[Answer | CallError]:
    """Return what became of each request of a batch."""
    return [
        error_of_failure(outcome.failure, request_id)
        if outcome.HasField("failure")
        else answer_of(outcome.response)
        for outcome in outcomes
    ]


def acknowledgement_of(
    response: events_pb2.PublishStreamResponse, request_id: str
) -> Acknowledgement:
    """Return the server's word on one request of a stream."""
    failed = response.HasField("failure")
    error = error_of_failure(response.failure, request_id) if failed else None
    return Acknowledgement(response.number, tuple(response.event_ids), error)


def signal_of(wire: drift_pb2.DriftSignal) -> DriftSignal:
    """Return a drift signal."""
    return DriftSignal(
        stream=wire.stream,
        kind=_name(drift_pb2.DriftKind, "DRIFT_KIND", wire.kind),
        detector=wire.detector,
        severity=_name(drift_pb2.DriftSeverity, "DRIFT_SEVERITY", wire.severity),
        size=wire.size,
        measure=_name(drift_pb2.DriftMeasure, "DRIFT_MEASURE", wire.measure),
        time_ms=wire.time_ms,
        since_ms=wire.since_ms,
        before=wire.before,
        after=wire.after,
        ended_ms=wire.ended_ms if wire.HasField("ended_ms") else None,
        contributors=tuple((one.name, one.part) for one in wire.contributors),
        sentence=wire.sentence,
    )


def snapshot_of(wire: admin_pb2.SnapshotInfo) -> Snapshot:
    """Return one stored snapshot."""
    names = Snapshot.__dataclass_fields__
    return Snapshot(**{name: getattr(wire, name) for name in names})


def switched_of(wire: admin_pb2.PromoteResponse | admin_pb2.RollbackResponse) -> Switched:
    """Return what is current now and what was before."""
    return Switched(wire.snapshot_id, wire.previous_id)


def text_tensor(texts: Sequence[str]) -> tensors_pb2.Tensor:
    """Return texts as one tensor; a text with a zero byte becomes two, which the shape betrays."""
    return tensors_pb2.Tensor(
        dtype=tensors_pb2.DATA_TYPE_TEXT, shape=[len(texts)], data="\0".join(texts).encode()
    )


def texts_of(tensor: tensors_pb2.Tensor) -> tuple[str, ...]:
    """Return the texts of a tensor."""
    return tuple(tensor.data.decode().split("\0")) if any(tensor.shape) else ()


def _filled(request: _Request, query: RecommendQuery | RetrieveQuery) -> _Request:
    request.user_id = query.user_id
    request.limit = query.limit
    request.answer_form = tensors_pb2.ANSWER_FORM_TENSORS
    write_features(request.context, query.context)
    if query.filters is not None:
        _write_filters(request.filters, query.filters)
    return request


def _write_filters(wire: filters_pb2.Filters, filters: Filters) -> None:
    if filters.exclude_seen is not None:
        wire.exclude_seen = filters.exclude_seen
    if filters.allow is not None:
        wire.allow.SetInParent()
        wire.allow.values.extend(sorted(filters.allow))
    wire.deny.extend(sorted(filters.deny))
    for condition in filters.where:
        _write_condition(wire.where.add(), condition)


def _write_condition(wire: filters_pb2.ItemCondition, condition: Condition) -> None:
    wire.feature = condition.feature
    wire.negated = condition.negated
    if condition.one_of is not None:
        wire.one_of.SetInParent()
        wire.one_of.values.extend(sorted(condition.one_of))
    if condition.at_least is not None:
        wire.range.at_least = condition.at_least
    if condition.at_most is not None:
        wire.range.at_most = condition.at_most


def _name(enum: Any, prefix: str, number: int) -> str:
    """Return the word for a number; of one that this client does not know yet, the number."""
    try:
        name = str(enum.Name(number))
    except ValueError:
        return str(number)
    return name.removeprefix(f"{prefix}_").lower()


def _number(enum: Any, prefix: str, name: str) -> Any:
    if not name:
        return 0
    known = {word.removeprefix(f"{prefix}_").lower(): number for word, number in enum.items()}
    if name not in known:
        words = ", ".join(word for word, number in known.items() if number)
        raise ValueError(f"expected one of {words}, got {name!r}")
    return known[name]
