"""Errors of a real gRPC server: which status, which field, how early."""

from __future__ import annotations

import logging
import threading
import time

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from domain.errors import LogUnavailableError
from domain.events import Feedback
from protos.headrace.v1 import events_pb2, ranking_pb2, recommender_pb2, retrieval_pb2
from serving.publish import PublisherConfig
from serving.recommend import RecommenderConfig
from stream.codec import event_to_message
from tests.unit.serving.running_server import RunningServer, items_of, until
from tests.unit.serving.worlds import SlowRanker, count, make_known, make_models


@pytest.fixture
def start(tmp_path):
    started = []

    def run(**config) -> RunningServer:
        started.append(RunningServer(tmp_path, **config))
        started[-1].start()
        return started[-1]

    yield run
    for running in started:
        running.close()


def error_of(call, *args, **kwargs) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(*args, **kwargs)
    return caught.value


def field_of(error) -> str:
    (violation,) = detail_of(error, error_details_pb2.BadRequest).field_violations
    return violation.field


def detail_of(error, kind):
    found = kind()
    assert any(detail.Unpack(found) for detail in rpc_status.from_call(error).details)
    return found


def request_id_of(call) -> str:
    return dict(call.trailing_metadata())["x-request-id"]


def feedback(**changes):
    given = {"event_id": "f", "time_ms": 1, "user_id": "ann", "item_id": "i1", "kind": "click"}
    return event_to_message(Feedback(**{**given, **changes}))


def context(**numbers):
    return {name: events_pb2.FeatureValue(number=number) for name, number in numbers.items()}


def test_server_is_unavailable_before_a_snapshot_is_live_but_takes_events(start):
    server = start()
    for call in (
        lambda: server.recommend("ann"),
        lambda: server.retrieval.Retrieve(retrieval_pb2.RetrieveRequest(user_id="ann"), timeout=5),
        lambda: server.ranking.Rank(
            ranking_pb2.RankRequest(user_id="ann", item_ids=["i1"]), timeout=5
        ),
    ):
        error = error_of(call)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "no snapshot is live" in error.details()
    assert server.click("ann", "i1") == ["ann-i1"]
    assert len(server.stored()) == 1


@pytest.mark.parametrize(
    ("stub", "method", "request_", "field"),
    [
        ("recommender", "Recommend", recommender_pb2.RecommendRequest(), "user_id"),
        (
            "recommender",
            "Recommend",
            recommender_pb2.RecommendRequest(user_id="ann", limit=501),
            "limit",
        ),
        (
            "recommender",
            "Recommend",
            recommender_pb2.RecommendRequest(user_id="ann", context=context(tab=3.0)),
            "context.tab",
        ),
        (
            "recommender",
            "Recommend",
            recommender_pb2.RecommendRequest(user_id="ann", context=context(hour=float("nan"))),
            "context.hour",
        ),
        (
            "retrieval",
            "Retrieve",
            retrieval_pb2.RetrieveRequest(user_id="ann", limit=5_001),
            "limit",
        ),
        ("ranking", "Rank", ranking_pb2.RankRequest(user_id="ann"), "item_ids"),
        (
            "ranking",
            "Rank",
            ranking_pb2.RankRequest(user_id="ann", item_ids=["i1", "i1"]),
            "item_ids[1]",
        ),
        (
            "events",
            "Publish",
            events_pb2.PublishRequest(events=[feedback(), feedback(item_id="")]),
            "events[1].feedback.item_id",
        ),
        (
            "events",
            "Publish",
            events_pb2.PublishRequest(events=[feedback(context={"shoe": "big"})]),
            "events[0].feedback.context.shoe",
        ),
        (
            "events",
            "Publish",
            events_pb2.PublishRequest(events=[feedback(time_ms=2**61)]),
            "events[0].time_ms",
        ),
        ("events", "Publish", events_pb2.PublishRequest(events=[feedback()] * 1_001), "events"),
    ],
)
def test_server_names_the_field_of_a_malformed_request(start, stub, method, request_, field):
    server = start()
    server.serve("s1")
    error = error_of(getattr(getattr(server, stub), method), request_, timeout=5)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(f"{field}: ")
    assert field_of(error) == field
    assert server.stored() == []
    counter = server.metrics.requests
    assert count(counter, method=method.lower(), code="INVALID_ARGUMENT") == 1


def test_server_cuts_messages_that_quote_too_much_of_the_request(start):
    server = start()
    server.serve("s1")
    request = recommender_pb2.RecommendRequest(user_id="ann")
    request.context["tub" + "ä" * 100_000].text = "home"
    error = error_of(server.recommender.Recommend, request, timeout=5)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("context.tubää")


def test_server_refuses_early_when_too_many_wait_and_answers_the_rest(start):
    gate, entered = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        gate.wait(5)

    server = start(recommender=RecommenderConfig(max_concurrency=1, max_waiting=1))
    bundles = []

    def make():
        bundles.append(make_models("s1"))
        make_known(bundles[-1], "ann")
        return bundles[-1]

    server.serve("s1", make)
    bundles[0].ranker.predict = SlowRanker(wait).predict
    waiting = [
        server.recommender.Recommend.future(
            recommender_pb2.RecommendRequest(user_id="ann", limit=1), timeout=5
        )
        for _ in range(2)
    ]
    until(lambda: count(server.metrics.in_flight) == 2)
    started = time.monotonic()
    error = error_of(server.recommend, "ann")
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert time.monotonic() - started < 1.0  # usually 0.002
    assert server.health_of("") == "SERVING"  # a busy server is no dead one
    gate.set()
    assert [items_of(call.result()) for call in waiting] == [["i9"], ["i9"]]
    assert server.recommend("ann").info.snapshot_id == "s1"


def test_server_honours_deadlines_while_a_request_waits_for_its_turn(start):
    gate = threading.Event()
    server = start(recommender=RecommenderConfig(max_concurrency=1, max_waiting=4))
    bundles = []

    def make():
        bundles.append(make_models("s1"))
        return bundles[-1]

    server.serve("s1", make)
    bundles[0].ranker.predict = SlowRanker(lambda: gate.wait(5)).predict
    slow = server.recommender.Recommend.future(
        recommender_pb2.RecommendRequest(user_id="ann"), timeout=5
    )
    until(lambda: count(server.metrics.in_flight) == 1)
    error = error_of(server.recommend, "bob", timeout_s=0.1)
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    # The server gives up too, instead of working for nobody once its turn comes.
    until(lambda: count(server.metrics.in_flight) == 1)
    until(lambda: count(server.metrics.requests, method="recommend", code="DEADLINE_EXCEEDED") == 1)
    gate.set()
    assert len(slow.result().items) == 10
    assert [event.user_id for event in server.stored()] == ["ann"]


def test_server_uses_retrieval_order_rather_than_miss_a_deadline(start):
    server = start(recommender=RecommenderConfig(rank_budget_ms=3_000))

    def make():
        models = make_models("s1")
        make_known(models, "ann")
        return models

    server.serve("s1", make)
    hurried = server.recommend("ann", timeout_s=1.0)
    assert hurried.info.path == recommender_pb2.ANSWER_PATH_RETRIEVED
    assert server.recommend("ann", timeout_s=60.0).info.path == recommender_pb2.ANSWER_PATH_RANKED


def test_server_without_a_deadline_from_the_caller_uses_its_own(start):
    server = start(recommender=RecommenderConfig(default_deadline_ms=2_000, rank_budget_ms=3_000))
    server.serve("s1")
    response = server.recommender.Recommend(recommender_pb2.RecommendRequest(user_id="ann"))
    assert response.info.path == recommender_pb2.ANSWER_PATH_POPULAR


def test_server_hides_what_broke_and_logs_it_under_the_request_id(start, caplog):
    server = start()
    bundles = []

    def make():
        bundles.append(make_models("s1"))
        return bundles[-1]

    server.serve("s1", make)

    def fail(captured):
        raise RuntimeError("secret of the ranker")

    bundles[0].ranker.predict = fail
    with caplog.at_level(logging.ERROR):
        error = error_of(
            server.ranking.Rank,
            ranking_pb2.RankRequest(user_id="ann", item_ids=["i1"]),
            timeout=5,
            metadata=(("x-request-id", "call-77"),),
        )
    assert error.code() == grpc.StatusCode.INTERNAL
    assert error.details() == "internal error; the server's log has it under request call-77"
    assert request_id_of(error) == "call-77"
    assert 'event="call failed" request=call-77 method=rank' in caplog.text
    assert "secret of the ranker" in caplog.text


def test_server_gives_every_call_an_id_and_takes_none_that_would_spoil_the_log(start):
    server = start()
    server.serve("s1")

    def call_id(*metadata) -> str:
        request = recommender_pb2.RecommendRequest(user_id="ann")
        _, call = server.recommender.Recommend.with_call(request, timeout=5, metadata=metadata)
        return request_id_of(call)

    assert call_id() != call_id()
    assert call_id(("x-request-id", "trace.1:a-b_c")) == "trace.1:a-b_c"
    assert len(call_id(("x-request-id", "two words request=forged"))) == 32
    assert len(call_id(("x-request-id", "x" * 65))) == 32


def test_publish_is_unavailable_when_the_log_is_and_safe_to_repeat(start):
    server = start()

    class Away:
        def append(self, events):
            raise LogUnavailableError("disk full")

    log, server.impression_log._log = server.impression_log._log, Away()
    error = error_of(server.click, "ann", "i1")
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "disk full" in error.details()
    server.impression_log._log = log
    server.click("ann", "i1")
    assert len(server.stored()) == 1


def test_publish_refuses_when_too_many_wait_for_the_log(start):
    gate, entered = threading.Event(), threading.Event()
    server = start(publisher=PublisherConfig(max_concurrency=1))

    class Stuck:
        def append(self, events):
            entered.set()
            gate.wait(5)
            log.append(events)

    log, server.impression_log._log = server.impression_log._log, Stuck()
    request = events_pb2.PublishRequest(events=[feedback()])
    waiting = server.events.Publish.future(request, timeout=5)
    assert entered.wait(5)
    assert error_of(server.click, "bob", "i1").code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    gate.set()
    assert list(waiting.result().event_ids) == ["f"]


def test_server_counts_calls_by_method_and_status(start):
    server = start()
    server.serve("s1")
    for _ in range(3):
        server.recommend("ann")
    error_of(server.recommend, "")
    assert count(server.metrics.requests, method="recommend", code="OK") == 3
    assert count(server.metrics.requests, method="recommend", code="INVALID_ARGUMENT") == 1
    timed = server.metrics.request_seconds.labels(method="recommend")
    assert sum(bucket.get() for bucket in timed._buckets) == 4
