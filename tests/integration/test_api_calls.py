"""Batches, filters, tensors, streams and snapshots over a real gRPC server."""

from __future__ import annotations

import threading

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from domain.errors import CallCancelledError
from domain.events import Feedback
from monitoring.drift_signal import DriftSignal
from monitoring.signal_store import FILE_NAME, SignalStore
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
from serving import cancellation
from serving.packed_texts import pack_texts, unpack_texts
from serving.recommend import RecommenderConfig
from snapshot.local_store import LocalSnapshotStore
from stream.codec import event_to_message
from tests.unit.serving.running_server import RunningServer, items_of, until
from tests.unit.serving.worlds import SlowRanker, count, make_known, make_models

TENSORS = tensors_pb2.ANSWER_FORM_TENSORS


@pytest.fixture
def server(tmp_path):
    running = RunningServer(tmp_path)
    running.start()
    running.serve("s1", known_models)
    yield running
    running.close()


def known_models():
    models = make_models("s1")
    make_known(models, "ann", "i9")
    return models


def error_of(call, *args, **kwargs) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **kwargs)
    return caught.value


def detail_of(error, kind):
    found = kind()
    assert any(detail.Unpack(found) for detail in rpc_status.from_call(error).details)
    return found


def reason_of(error) -> str:
    return detail_of(error, error_details_pb2.ErrorInfo).reason


def text_tensor(*texts: str) -> tensors_pb2.Tensor:
    return tensors_pb2.Tensor(
        dtype=tensors_pb2.DATA_TYPE_TEXT, shape=[len(texts)], data=pack_texts(texts)
    )


def unpacked(tensor: tensors_pb2.Tensor) -> tuple[str, ...]:
    assert tensor.dtype == tensors_pb2.DATA_TYPE_TEXT
    return unpack_texts("", tensor.data, tensor.shape)


def test_tensors_say_what_items_say(server):
    ids = ["i3", "i7", "i5"]
    plain = server.ranking.Rank(ranking_pb2.RankRequest(user_id="ann", item_ids=ids), timeout=5)
    packed = server.ranking.Rank(
        ranking_pb2.RankRequest(
            user_id="ann", item_id_tensor=text_tensor(*ids), answer_form=TENSORS
        ),
        timeout=5,
    )
    assert items_of(plain) == ["i7", "i5", "i3"]
    assert not plain.HasField("tensors")
    assert list(packed.items) == []
    tensors = packed.tensors
    assert unpacked(tensors.item_ids) == ("i7", "i5", "i3")
    scores = np.frombuffer(tensors.scores.data, "<f4").reshape(tensors.scores.shape)
    assert scores.tolist() == [item.score for item in plain.items]
    assert tensors.scores.dtype == tensors_pb2.DATA_TYPE_FLOAT32


@pytest.mark.parametrize("form", [tensors_pb2.ANSWER_FORM_UNSPECIFIED, TENSORS])
def test_recommend_and_retrieve_answer_in_the_form_asked_for(server, form):
    shown = server.recommender.Recommend(
        recommender_pb2.RecommendRequest(user_id="ann", limit=2, answer_form=form), timeout=5
    )
    found = server.retrieval.Retrieve(
        retrieval_pb2.RetrieveRequest(user_id="ann", limit=2, answer_form=form), timeout=5
    )
    if form == TENSORS:
        lists = [list(unpacked(one.tensors.item_ids)) for one in (shown, found)]
    else:
        lists = [items_of(shown), items_of(found)]
    assert lists == [["i8", "i7"], ["i0", "i1"]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"item_ids": ["i1"]}, "item_id_tensor"),
        ({"dtype": tensors_pb2.DATA_TYPE_FLOAT32}, "item_id_tensor.dtype"),
        ({"shape": [3]}, "item_id_tensor.shape"),
        ({"data": b"i3i7"}, "item_id_tensor.shape"),
        ({"data": b"i3\xff7"}, "item_id_tensor.data"),
        ({"answer_form": 9}, "answer_form"),
    ],
)
def test_rank_names_what_is_wrong_with_a_tensor(server, change, field):
    request = ranking_pb2.RankRequest(user_id="ann", item_id_tensor=text_tensor("i3", "i7"))
    for name, value in change.items():
        if name in ("item_ids", "shape"):
            owner = request if name == "item_ids" else request.item_id_tensor
            del getattr(owner, name)[:]
            getattr(owner, name).extend(value)
        else:
            setattr(request if name == "answer_form" else request.item_id_tensor, name, value)
    error = error_of(server.ranking.Rank, request, timeout=5)
    violations = detail_of(error, error_details_pb2.BadRequest).field_violations
    assert [one.field for one in violations] == [field]
    assert reason_of(error) == "INVALID_FIELD"


def test_recommend_leaves_seen_items_out_unless_told_otherwise(server):
    def shown(**filters) -> list[str]:
        return items_of(
            server.recommender.Recommend(
                recommender_pb2.RecommendRequest(
                    user_id="ann", limit=2, filters=filters_pb2.Filters(**filters)
                ),
                timeout=5,
            )
        )

    assert shown() == ["i8", "i7"]
    assert shown(exclude_seen=False) == ["i9", "i8"]
    assert shown(deny=["i8"]) == ["i7", "i6"]


def test_filters_reach_the_search_as_they_were_asked(server):
    condition = filters_pb2.ItemCondition(feature="tags", negated=True)
    condition.one_of.values.extend(["a", "b"])
    request = retrieval_pb2.RetrieveRequest(user_id="ann", exclude_seen=True)
    request.filters.where.append(condition)
    request.filters.allow.values.extend(["i1", "i2"])
    server.retrieval.Retrieve(request, timeout=5)
    (asked,) = server.slot.current().retriever.requests[-1:]
    assert asked.allow == {"i1", "i2"}
    assert asked.exclude == {"i9"}
    (met,) = asked.where
    assert (met.feature, met.one_of, met.negated) == ("tags", {"a", "b"}, True)


@pytest.mark.parametrize(
    ("condition", "field"),
    [
        (filters_pb2.ItemCondition(feature="tags"), "filters.where[0]"),
        (
            filters_pb2.ItemCondition(
                feature="tags", range=filters_pb2.NumberRange(at_least=2.0, at_most=1.0)
            ),
            "filters.where[0].range",
        ),
        (
            filters_pb2.ItemCondition(feature="tags", range=filters_pb2.NumberRange(at_least=2.0)),
            "filters.where[0].range",
        ),
        (
            filters_pb2.ItemCondition(feature="shoe", one_of=events_pb2.StringList(values=["a"])),
            "filters.where[0].feature",
        ),
    ],
)
def test_condition_that_cannot_be_asked_is_named(server, condition, field):
    request = retrieval_pb2.RetrieveRequest(user_id="ann")
    request.filters.where.append(condition)
    error = error_of(server.retrieval.Retrieve, request, timeout=5)
    (violation,) = detail_of(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == field


def test_batch_answers_each_request_and_one_failure_costs_no_other(server):
    batch = recommender_pb2.BatchRecommendRequest(
        requests=[
            recommender_pb2.RecommendRequest(user_id="ann", limit=1),
            recommender_pb2.RecommendRequest(user_id="bob", limit=501),
            recommender_pb2.RecommendRequest(user_id="bob", limit=1),
        ]
    )
    first, second, third = server.recommender.BatchRecommend(batch, timeout=5).outcomes
    assert items_of(first.response) == ["i8"]
    assert items_of(third.response) == ["i9"]
    assert (second.failure.reason, second.failure.field) == ("INVALID_FIELD", "limit")
    assert second.failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    stored = [event.event_id for event in server.stored()]
    assert stored == [first.response.impression_id, third.response.impression_id]


def test_batches_of_rank_and_retrieve_answer_as_single_calls_do(server):
    ranks = [ranking_pb2.RankRequest(user_id="ann", item_ids=[one, "i5"]) for one in ("i3", "i7")]
    ranked = server.ranking.BatchRank(ranking_pb2.BatchRankRequest(requests=ranks), timeout=5)
    single = [server.ranking.Rank(one, timeout=5) for one in ranks]
    assert [items_of(one.response) for one in ranked.outcomes] == [items_of(one) for one in single]
    found = server.retrieval.BatchRetrieve(
        retrieval_pb2.BatchRetrieveRequest(
            requests=[retrieval_pb2.RetrieveRequest(user_id="ann", limit=2)] * 2
        ),
        timeout=5,
    )
    assert [items_of(one.response) for one in found.outcomes] == [["i0", "i1"]] * 2


@pytest.mark.parametrize("size", [0, 101])
def test_batch_of_none_or_too_many_is_refused_whole(server, size):
    batch = ranking_pb2.BatchRankRequest(requests=[ranking_pb2.RankRequest()] * size)
    error = error_of(server.ranking.BatchRank, batch, timeout=5)
    (violation,) = detail_of(error, error_details_pb2.BadRequest).field_violations
    assert violation.field == "requests"


def click(number: int, **changes) -> events_pb2.Event:
    given = {"event_id": f"e{number}", "time_ms": 1, "user_id": "ann", "item_id": "i1"}
    return event_to_message(Feedback(kind="click", **{**given, **changes}))


def test_publish_stream_acknowledges_each_request_in_order_and_goes_on_after_a_bad_one(server):
    requests = [
        events_pb2.PublishStreamRequest(number=number, events=[click(number)])
        for number in range(40)
    ]
    requests[20].events[0].feedback.item_id = ""
    answers = list(server.events.PublishStream(iter(requests), timeout=20))
    assert [one.number for one in answers] == list(range(40))
    bad = answers.pop(20)
    assert (bad.failure.reason, bad.failure.field) == (
        "INVALID_FIELD",
        "events[0].feedback.item_id",
    )
    assert list(bad.event_ids) == []
    assert all(not one.HasField("failure") for one in answers)
    stored = [event.event_id for event in server.stored()]
    assert stored == [f"e{number}" for number in range(40) if number != 20]
    assert [event_id for one in answers for event_id in one.event_ids] == stored


def test_publish_stream_acknowledges_while_its_caller_goes_on_sending(server):
    acknowledged = threading.Event()

    def requests():
        yield events_pb2.PublishStreamRequest(number=1, events=[click(1)])
        assert acknowledged.wait(10)
        yield events_pb2.PublishStreamRequest(number=2, events=[click(2)])

    answers = server.events.PublishStream(requests(), timeout=20)
    assert next(answers).number == 1
    acknowledged.set()
    assert next(answers).number == 2


def test_publish_stream_ends_when_the_server_stops(tmp_path):
    running = RunningServer(tmp_path)
    running.start()
    over = threading.Event()

    def requests():
        yield events_pb2.PublishStreamRequest(number=1, events=[click(1)])
        over.wait(10)

    answers = running.events.PublishStream(requests(), timeout=20)
    assert next(answers).number == 1
    stopping = threading.Thread(target=running.handle.stop)
    stopping.start()
    error = error_of(next, answers)
    over.set()
    stopping.join(10)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
    assert detail_of(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
    running.close()


def drift_signal(since_ms: int, **changes) -> DriftSignal:
    given = {
        "stream": "loss/click",
        "kind": "concept",
        "detector": "adwin",
        "time_ms": since_ms + 10,
        "since_ms": since_ms,
        "before": 0.2,
        "after": 0.5,
        "deviations": 7.0,
        "points_before": 40,
        "points_after": 10,
        "contributors": (("item.tags", 0.75),),
    }
    return DriftSignal(**{**given, **changes})


def test_watch_signals_tells_old_ones_then_new_ones_then_ends(server, tmp_path):
    watch = server.drift.WatchSignals(drift_pb2.WatchSignalsRequest(), timeout=30)
    store = SignalStore(tmp_path / FILE_NAME)  # a trainer comes up later than who watches
    store.write([drift_signal(100)])
    told = next(watch)
    assert (told.stream, told.kind, told.severity, told.HasField("ended_ms")) == (
        "loss/click",
        drift_pb2.DRIFT_KIND_CONCEPT,
        drift_pb2.DRIFT_SEVERITY_LARGE,
        False,
    )
    assert told.sentence == drift_signal(100).describe()
    assert [(one.name, one.part) for one in told.contributors] == [("item.tags", 0.75)]
    store.write([drift_signal(200)])
    assert next(watch).since_ms == 200
    store.write([drift_signal(100, ended_ms=900)])
    again = next(watch)
    assert (again.since_ms, again.ended_ms) == (100, 900)
    store.close()
    watch.cancel()


def test_watch_signals_tells_only_what_is_wanted(server, tmp_path):
    store = SignalStore(tmp_path / FILE_NAME)
    store.write(
        [
            drift_signal(100, stream="field/a", kind="covariate"),
            drift_signal(200, deviations=1.0),
            drift_signal(300, ended_ms=400),
            drift_signal(500),
        ]
    )

    def first(**wanted) -> int:
        request = drift_pb2.WatchSignalsRequest(**wanted)
        watch = server.drift.WatchSignals(request, timeout=30)
        since_ms = next(watch).since_ms
        watch.cancel()
        return since_ms

    assert first() == 100
    assert first(stream="loss/") == 200
    assert first(kind=drift_pb2.DRIFT_KIND_COVARIATE) == 100
    assert first(stream="loss/", min_severity=drift_pb2.DRIFT_SEVERITY_LARGE) == 300
    assert first(since_ms=250, live_only=True) == 500
    store.close()
    error = error_of(next, server.drift.WatchSignals(drift_pb2.WatchSignalsRequest(kind=99)))
    assert reason_of(error) == "INVALID_FIELD"


def test_watch_signals_ends_with_its_caller_and_with_the_server(server, tmp_path):
    store = SignalStore(tmp_path / FILE_NAME)
    store.write([drift_signal(100)])
    store.close()
    watch = server.drift.WatchSignals(drift_pb2.WatchSignalsRequest(), timeout=30)
    next(watch)
    watch.cancel()
    until(lambda: count(server.metrics.requests, method="watchsignals", code="CANCELLED") == 1)
    watch = server.drift.WatchSignals(drift_pb2.WatchSignalsRequest(), timeout=30)
    next(watch)
    stopping = threading.Thread(target=server.handle.stop)
    stopping.start()
    error = error_of(next, watch)
    stopping.join(10)
    assert error.code() == grpc.StatusCode.UNAVAILABLE


def publish_snapshot(store: LocalSnapshotStore, step: int) -> str:
    return store.publish(
        {"ranking": {"weight": step}},
        positions={"events/0": step},
        step=step,
        event_time_ms=step * 1_000,
        schema_hash="h",
        extra={"events": step * 10},
    )


def test_admin_lists_promotes_and_rolls_back(server, tmp_path):
    store = LocalSnapshotStore(tmp_path / "snapshots")
    first, second = publish_snapshot(store, 1), publish_snapshot(store, 2)
    listed = server.admin.ListSnapshots(admin_pb2.ListSnapshotsRequest(), timeout=5).snapshots
    assert [(one.snapshot_id, one.step, one.is_current) for one in listed] == [
        (first, 1, False),
        (second, 2, True),
    ]
    assert (listed[1].events, listed[1].event_time_ms, listed[1].parent_id) == (20, 2_000, first)
    assert listed[1].size_bytes == store.size_bytes(second)
    back = server.admin.Rollback(admin_pb2.RollbackRequest(), timeout=5)
    assert (back.snapshot_id, back.previous_id, store.current_id()) == (first, second, first)
    error = error_of(server.admin.Rollback, admin_pb2.RollbackRequest(), timeout=5)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.NOT_FOUND, "SNAPSHOT_NOT_FOUND")
    forth = server.admin.Promote(admin_pb2.PromoteRequest(snapshot_id=second), timeout=5)
    assert (forth.snapshot_id, forth.previous_id, store.current_id()) == (second, first, second)
    store.close()


def test_admin_promotes_nothing_that_is_damaged_or_not_there(server, tmp_path):
    store = LocalSnapshotStore(tmp_path / "snapshots")
    first, second = publish_snapshot(store, 1), publish_snapshot(store, 2)
    for path in (tmp_path / "snapshots" / first).glob("ranking*"):
        path.write_bytes(b"")
    for wanted, code, reason in (
        (first, grpc.StatusCode.FAILED_PRECONDITION, "SNAPSHOT_DAMAGED"),
        ("../../etc", grpc.StatusCode.NOT_FOUND, "SNAPSHOT_NOT_FOUND"),
        ("", grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    ):
        request = admin_pb2.PromoteRequest(snapshot_id=wanted)
        error = error_of(server.admin.Promote, request, timeout=5)
        assert (error.code(), reason_of(error)) == (code, reason)
    assert store.current_id() == second
    store.close()


def caller_has_gone() -> bool:
    """Tell whether the call that this thread answers was cancelled, as far as the server knows."""
    try:
        cancellation.check("the test went on")
    except CallCancelledError:
        return True
    return False


def test_call_whose_caller_has_gone_is_not_ranked_and_not_logged(tmp_path):
    gate, entered = threading.Event(), threading.Event()
    models = make_models("s1")
    make_known(models, "ann", "i9")
    found = models.retriever.retrieve
    running = RunningServer(tmp_path, recommender=RecommenderConfig(max_concurrency=1))
    running.start()
    running.serve("s1", lambda: models)
    models.ranker.captured.clear()

    def wait_then_retrieve(request):
        entered.set()
        gate.wait(10)
        until(caller_has_gone)  # the news of it travels, and may come after the gate opens
        return found(request)

    models.retriever.retrieve = wait_then_retrieve
    request = recommender_pb2.RecommendRequest(user_id="ann", limit=2)
    call = running.recommender.Recommend.future(request, timeout=20)
    assert entered.wait(10)
    waiting = running.recommender.Recommend.future(request, timeout=20)
    until(lambda: count(running.metrics.in_flight) == 2)
    waiting.cancel()
    until(lambda: count(running.metrics.in_flight) == 1)  # it gave up its place in the queue
    call.cancel()
    gate.set()
    until(lambda: count(running.metrics.requests, method="recommend", code="CANCELLED") == 2)
    assert models.ranker.captured == []
    assert running.stored() == []
    running.close()


def test_rank_that_is_too_late_for_the_model_never_reaches_it(tmp_path):
    gate = threading.Event()
    running = RunningServer(tmp_path, recommender=RecommenderConfig(max_concurrency=1))
    running.start()
    models = make_models("s1")
    running.serve("s1", lambda: models)
    models.ranker.predict = SlowRanker(lambda: gate.wait(10)).predict
    models.ranker.captured.clear()
    request = ranking_pb2.RankRequest(user_id="ann", item_ids=["i1"])
    first = running.ranking.Rank.future(request, timeout=20)
    until(lambda: len(models.ranker.captured) == 1)
    error = error_of(running.ranking.Rank, request, timeout=0.2)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    gate.set()
    assert items_of(first.result()) == ["i1"]
    until(lambda: count(running.metrics.in_flight) == 0)
    assert len(models.ranker.captured) == 1
    running.close()


def test_impression_id_begins_with_the_request_id(server):
    request = recommender_pb2.RecommendRequest(user_id="ann", limit=1)
    metadata = (("x-request-id", "trace-7"),)
    first = server.recommender.Recommend(request, timeout=5, metadata=metadata)
    again = server.recommender.Recommend(request, timeout=5, metadata=metadata)
    ids = {first.impression_id, again.impression_id}
    assert len(ids) == 2
    assert all(one.startswith("trace-7.") for one in ids)
    assert {event.event_id for event in server.stored()} == ids
