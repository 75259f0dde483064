"""From the domain to the wire: answers, failures, snapshots and drift signals out."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from domain.recommendations import Path, Recommendation
from monitoring.drift_signal import DriftKind, DriftSignal, Measure, Severity
from protos.headrace.v1 import (
    admin_pb2,
    drift_pb2,
    failure_pb2,
    ranking_pb2,
    recommender_pb2,
    retrieval_pb2,
    tensors_pb2,
)
from serving.failures import Failed
from serving.packed_texts import pack_texts
from serving.snapshot_desk import StoredSnapshot

_PATHS: dict[Path, recommender_pb2.AnswerPath] = {
    "ranked": recommender_pb2.ANSWER_PATH_RANKED,
    "retrieved": recommender_pb2.ANSWER_PATH_RETRIEVED,
    "popular": recommender_pb2.ANSWER_PATH_POPULAR,
    "cold_start": recommender_pb2.ANSWER_PATH_COLD_START,
}

DRIFT_KIND_VALUES: Mapping[DriftKind, drift_pb2.DriftKind] = {
    "covariate": drift_pb2.DRIFT_KIND_COVARIATE,
    "label": drift_pb2.DRIFT_KIND_LABEL,
    "concept": drift_pb2.DRIFT_KIND_CONCEPT,
    "model": drift_pb2.DRIFT_KIND_MODEL,
    "stream": drift_pb2.DRIFT_KIND_STREAM,
}

_MEASURES: Mapping[Measure, drift_pb2.DriftMeasure] = {
    "deviations": drift_pb2.DRIFT_MEASURE_DEVIATIONS,
    "psi": drift_pb2.DRIFT_MEASURE_PSI,
    "share": drift_pb2.DRIFT_MEASURE_SHARE,
}

SEVERITY_VALUES: Mapping[Severity, drift_pb2.DriftSeverity] = {
    "small": drift_pb2.DRIFT_SEVERITY_SMALL,
    "medium": drift_pb2.DRIFT_SEVERITY_MEDIUM,
    "large": drift_pb2.DRIFT_SEVERITY_LARGE,
}


def recommend_response(
    answer: Recommendation, *, as_tensors: bool = False
) -> recommender_pb2.RecommendResponse:
    """Return the wire form of an answer to Recommend."""
    response = recommender_pb2.RecommendResponse(
        info=_info(answer), impression_id=answer.impression_id
    )
    _write_items(response, answer, as_tensors)
    return response


def retrieve_response(
    answer: Recommendation, *, as_tensors: bool = False
) -> retrieval_pb2.RetrieveResponse:
    """Return the wire form of an answer to Retrieve."""
    response = retrieval_pb2.RetrieveResponse(info=_info(answer))
    _write_items(response, answer, as_tensors)
    return response


def rank_response(answer: Recommendation, *, as_tensors: bool = False) -> ranking_pb2.RankResponse:
    """Return the wire form of an answer to Rank."""
    response = ranking_pb2.RankResponse(info=_info(answer))
    _write_items(response, answer, as_tensors)
    return response


def failure_message(failed: Failed) -> failure_pb2.Failure:
    """Return the wire form of why one of several requests failed."""
    return failure_pb2.Failure(
        code=failed.code.value[0],
        reason=failed.reason,
        message=failed.message,
        field=failed.field,
        retry_after_ms=round(failed.retry_after_s * 1_000),
    )


def add_outcomes(outcomes: Any, answers: Iterable[Any]) -> None:
    """Add what became of each request of a batch to a repeated field of outcomes.

    Args:
        outcomes: messages with a `response`, of the method's own type, and a `failure`.
        answers: a response or a `Failed` for each request, in their order.
    """
    for answer in answers:
        outcome = outcomes.add()
        if isinstance(answer, Failed):
            outcome.failure.CopyFrom(failure_message(answer))
        else:
            outcome.response.CopyFrom(answer)


def snapshot_message(snapshot: StoredSnapshot, live_id: str) -> admin_pb2.SnapshotInfo:
    """Return the wire form of a stored snapshot; `live_id` is the one this server answers from."""
    return admin_pb2.SnapshotInfo(
        snapshot_id=snapshot.snapshot_id,
        step=snapshot.step,
        event_time_ms=snapshot.event_time_ms,
        events=snapshot.events,
        size_bytes=snapshot.size_bytes,
        parent_id=snapshot.parent_id,
        is_current=snapshot.is_current,
        is_live=snapshot.snapshot_id == live_id,
        is_damaged=snapshot.is_damaged,
    )


def signal_message(signal: DriftSignal) -> drift_pb2.DriftSignal:
    """Return the wire form of a drift signal."""
    return drift_pb2.DriftSignal(
        stream=signal.stream,
        kind=DRIFT_KIND_VALUES[signal.kind],
        detector=signal.detector,
        time_ms=signal.time_ms,
        since_ms=signal.since_ms,
        before=signal.before,
        after=signal.after,
        deviations=signal.deviations,
        points_before=signal.points_before,
        points_after=signal.points_after,
        ended_ms=signal.ended_ms,
        measure=_MEASURES[signal.measure],
        size=signal.size,
        severity=SEVERITY_VALUES[signal.severity],
        compared_with=signal.compared_with,
        contributors=[
            drift_pb2.DriftContributor(name=name, part=part) for name, part in signal.contributors
        ],
        sentence=signal.describe(),
    )


def _write_items(
    response: (
        recommender_pb2.RecommendResponse
        | retrieval_pb2.RetrieveResponse
        | ranking_pb2.RankResponse
    ),
    answer: Recommendation,
    as_tensors: bool,
) -> None:
    if not as_tensors:
        add = response.items.add
        for item in answer.items:
            add(item_id=item.item_id, score=item.score)
        return
    count = len(answer.items)
    ids, scores = response.tensors.item_ids, response.tensors.scores
    ids.dtype = tensors_pb2.DATA_TYPE_TEXT
    ids.shape.append(count)
    ids.data = pack_texts([item.item_id for item in answer.items])
    scores.dtype = tensors_pb2.DATA_TYPE_FLOAT32
    scores.shape.append(count)
    scores.data = struct.pack(f"<{count}f", *[item.score for item in answer.items])


def _info(answer: Recommendation) -> recommender_pb2.AnswerInfo:
    return recommender_pb2.AnswerInfo(
        snapshot_id=answer.snapshot_id, path=_PATHS[answer.path], model_age_ms=answer.age_ms
    )
