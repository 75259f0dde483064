"""Both Python clients against a real server: the same calls, the same values, the same errors."""

from __future__ import annotations

import asyncio
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import client as headrace
from client import retry as retry_module
from client.errors import error_of_failure
from client.retry import Attempts, Budget
from monitoring.drift_signal import DriftSignal
from monitoring.signal_store import FILE_NAME, SignalStore
from protos.headrace.v1 import failure_pb2
from serving.access import AccessConfig, client_line
from serving.publish import PublisherConfig
from serving.recommend import RecommenderConfig
from serving.server import ServerConfig
from serving.tls import TlsConfig
from snapshot.local_store import LocalSnapshotStore
from stream.codec import event_to_message
from tests.certificates import Authority
from tests.unit.serving.running_server import RunningServer, until
from tests.unit.serving.worlds import SlowRanker, count, make_known, make_models


class Awaited:
    """An AsyncClient whose every call is awaited in a loop of its own."""

    def __init__(self, *args, **kwargs) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._make(args, kwargs))

    async def _make(self, args, kwargs):
        return await headrace.AsyncClient(*args, **kwargs).__aenter__()

    def __getattr__(self, name):
        method = getattr(self._client, name)

        def call(*args, **kwargs):
            made = method(*args, **kwargs)
            return self._each(made) if inspect.isasyncgen(made) else self._runner.run(made)

        return call

    def _each(self, items):
        async def following():
            return await anext(items, None)

        try:
            while (item := self._runner.run(following())) is not None:
                yield item
        finally:
            self._runner.run(items.aclose())

    def close(self) -> None:
        self._runner.run(self._client.__aexit__(None, None, None))
        self._runner.close()


@pytest.fixture(params=[headrace.Client, Awaited], ids=["sync", "asyncio"])
def make_client(request):
    made = []

    def make(server: RunningServer | str, **options):
        address = server if isinstance(server, str) else server.address
        made.append(request.param(address, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def server(tmp_path):
    running = RunningServer(tmp_path)
    running.start()
    models = make_models("s1")
    make_known(models, "ann", "i9")
    running.serve("s1", lambda: models)
    yield running
    running.close()


def test_answers_are_those_of_the_server(server, make_client):
    client = make_client(server)
    shown = client.recommend("ann", 2, context={"tab": "home"}, request_id="trace-1")
    assert (shown.item_ids, shown.path, shown.snapshot_id) == (("i8", "i7"), "ranked", "s1")
    assert shown.scores == pytest.approx((0.08, 0.07))
    assert shown.impression_id.startswith("trace-1.")
    found = client.retrieve("ann", 3, filters=headrace.Filters(exclude_seen=True, deny=["i1"]))
    assert (found.item_ids, found.path) == (("i0", "i2", "i3"), "retrieved")
    ranked = client.rank("ann", ["i1", "i5", "i3"])
    assert ranked.item_ids == ("i5", "i3", "i1")
    assert (found.impression_id, ranked.impression_id) == ("", "")


def test_filters_arrive_as_they_were_given(server, make_client):
    client = make_client(server)
    where = [
        headrace.Condition(feature="tags", one_of=["a", "b"], negated=True),
        headrace.Condition(feature="tags", one_of=[]),
    ]
    client.retrieve("ann", filters=headrace.Filters(allow=[], where=where))
    (asked,) = server.slot.current().retriever.requests[-1:]
    assert asked.allow == frozenset()
    assert [(one.one_of, one.negated) for one in asked.where] == [
        ({"a", "b"}, True),
        (frozenset(), False),
    ]


def test_batches_give_an_answer_or_an_error_each(server, make_client):
    client = make_client(server)
    answers = client.recommend_many(
        [
            headrace.RecommendQuery(user_id="ann", limit=1),
            headrace.RecommendQuery(user_id="", limit=1),
        ],
        request_id="trace-2",
    )
    assert answers[0].item_ids == ("i8",)
    assert isinstance(answers[1], headrace.InvalidRequestError)
    assert (answers[1].field, answers[1].reason) == ("user_id", "INVALID_FIELD")
    assert answers[1].request_id == "trace-2"
    ranked = client.rank_many([headrace.RankQuery(user_id="ann", item_ids=["i1", "i2"])] * 2)
    assert [one.item_ids for one in ranked] == [("i2", "i1")] * 2
    found = client.retrieve_many([headrace.RetrieveQuery(user_id="ann", limit=1)])
    assert [one.item_ids for one in found] == [("i0",)]


EVENTS = [
    headrace.Impression(
        user_id="ann",
        items=[headrace.Shown(item_id="i1", position=0, score=0.5, probability=0.25)],
        context={"tab": "home", "hour": 7.0},
        event_id="s",
        time_ms=1,
    ),
    headrace.Feedback(
        user_id="ann", item_id="i1", kind="like", value=0.0, impression_id="s", time_ms=2
    ),
    headrace.ItemUpdate(item_id="i1", features={"tags": ["a", "b"]}, event_id="n", time_ms=3),
    headrace.ItemUpdate(item_id="i2", withdrawn=True, event_id="w", time_ms=3),
    headrace.UserUpdate(user_id="ann", features={"age": 30}, event_id="u", time_ms=4),
]


def test_events_are_stored_as_they_were_given(server, make_client):
    ids = make_client(server).publish(EVENTS)
    stored = {event.event_id: event for event in server.stored()}
    assert list(ids) == list(stored)
    assert [ids[0], *ids[2:]] == ["s", "n", "w", "u"]
    assert stored["s"].items[0].probability == 0.25
    assert stored["s"].context == {"tab": "home", "hour": 7.0}
    assert (stored[ids[1]].value, stored[ids[1]].impression_id) == (0.0, "s")
    assert stored["n"].features == {"tags": ("a", "b")}
    assert not stored["w"].available
    assert stored["u"].features == {"age": 30.0}


def test_stream_of_events_is_acknowledged_batch_by_batch(server, make_client):
    batches = [
        [headrace.UserUpdate(user_id=f"u{number}", event_id=f"e{number}", time_ms=1)]
        for number in range(5)
    ]
    batches[2] = [headrace.UserUpdate(user_id="", event_id="e2", time_ms=1)]
    answers = list(make_client(server).publish_stream(batches))
    assert [one.number for one in answers] == [0, 1, 2, 3, 4]
    assert answers[2].error.field == "events[0].user_update.user_id"
    assert [one.event_ids for one in answers if one.error is None] == [
        ("e0",),
        ("e1",),
        ("e3",),
        ("e4",),
    ]


def test_drift_signals_are_told_as_they_come(server, make_client, tmp_path):
    signal = DriftSignal(
        stream="loss/click",
        kind="concept",
        detector="adwin",
        time_ms=20,
        since_ms=10,
        before=0.2,
        after=0.5,
        deviations=4.0,
        points_before=40,
        points_after=10,
        contributors=(("item.tags", 0.75),),
    )
    store = SignalStore(tmp_path / FILE_NAME)
    store.write([signal])
    told = make_client(server).watch_signals(kind="concept", min_severity="medium", stream="loss/")
    first = next(told)
    told.close()
    store.close()
    assert (first.kind, first.severity, first.measure) == ("concept", "medium", "deviations")
    assert (first.since_ms, first.ended_ms, first.size) == (10, None, 4.0)
    assert first.contributors == (("item.tags", 0.75),)
    assert first.sentence == signal.describe()
    with pytest.raises(ValueError, match="expected one of covariate, label"):
        next(make_client(server).watch_signals(kind="weather"))


def test_snapshots_are_listed_promoted_and_rolled_back(server, make_client, tmp_path):
    store = LocalSnapshotStore(tmp_path / "snapshots")
    first, second = (
        store.publish(
            {"ranking": {"weight": step}},
            positions={"events/0": step},
            step=step,
            event_time_ms=step,
            schema_hash="h",
        )
        for step in (1, 2)
    )
    client = make_client(server)
    assert [(one.snapshot_id, one.is_current) for one in client.list_snapshots()] == [
        (first, False),
        (second, True),
    ]
    assert client.rollback() == headrace.Switched(first, second)
    assert client.promote(second) == headrace.Switched(second, first)
    with pytest.raises(headrace.CallError) as caught:
        client.promote("nothing")
    assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "SNAPSHOT_NOT_FOUND")
    store.close()


def test_malformed_request_names_its_field_and_is_not_tried_again(server, make_client):
    with pytest.raises(headrace.InvalidRequestError) as caught:
        make_client(server).recommend("ann", 501)
    assert (caught.value.code, caught.value.field) == ("INVALID_ARGUMENT", "limit")
    assert count(server.metrics.requests, method="recommend", code="INVALID_ARGUMENT") == 1


def test_call_is_tried_again_until_the_server_can_answer(tmp_path, make_client):
    server = RunningServer(tmp_path)
    server.start()
    client = make_client(server, retry=headrace.Retry(max_attempts=20), timeout_s=20.0)
    snapshot = threading.Timer(0.3, server.serve, ["s1"])
    snapshot.start()
    assert client.recommend("bob", 1).item_ids == ("i9",)
    snapshot.join()
    assert count(server.metrics.requests, method="recommend", code="UNAVAILABLE") >= 1
    server.close()


def test_refused_call_says_so_when_its_time_is_up(tmp_path, make_client):
    gate = threading.Event()
    server = RunningServer(
        tmp_path, recommender=RecommenderConfig(max_concurrency=1, max_waiting=0)
    )
    server.start()
    models = make_models("s1")
    server.serve("s1", lambda: models)
    models.ranker.predict = SlowRanker(lambda: gate.wait(20)).predict
    slow = threading.Thread(target=server.recommend, args=("ann",), kwargs={"timeout_s": 20})
    slow.start()
    until(lambda: count(server.metrics.in_flight) == 1)
    with pytest.raises(headrace.CallError) as caught:
        make_client(server).recommend("bob", timeout_s=0.4)
    gate.set()
    slow.join(20)
    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert caught.value.retry_after_s > 0.0
    assert count(server.metrics.requests, method="recommend", code="RESOURCE_EXHAUSTED") >= 2
    server.close()


def test_publish_that_is_repeated_stores_its_events_once_known_by_their_ids(tmp_path, make_client):
    server = RunningServer(tmp_path, publisher=PublisherConfig(log_timeout_ms=100))
    server.start()
    log, stuck = server.impression_log._log, threading.Event()

    class Slow:
        def append(self, events):
            server.impression_log._log = log
            stuck.wait(0.3)  # stored all the same, after the caller was told that it may not be
            log.append(events)

    server.impression_log._log = Slow()
    (event_id,) = make_client(server, timeout_s=20.0).publish(
        [headrace.UserUpdate(user_id="ann", time_ms=1)]
    )
    assert {event.event_id for event in server.stored()} == {event_id}
    server.close()


def test_nobody_listens_is_a_plain_error(make_client):
    with pytest.raises(headrace.CallError) as caught:
        make_client("127.0.0.1:1", retry=headrace.Retry(max_attempts=2)).recommend("ann")
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "")


@pytest.mark.parametrize("make", [headrace.Client, headrace.AsyncClient])
def test_token_does_not_leave_the_machine_unencrypted(make):
    with pytest.raises(ValueError, match="would travel unencrypted"):
        make("headrace.example:50051", token="secret")


def test_token_travels_with_every_call(make_client):
    seen = []

    class Eavesdropper(grpc.GenericRpcHandler):
        def service(self, details):
            seen.append(dict(details.invocation_metadata))

    listener = grpc.server(ThreadPoolExecutor(1), handlers=[Eavesdropper()])
    port = listener.add_insecure_port("127.0.0.1:0")
    listener.start()
    with pytest.raises(headrace.CallError):
        make_client(f"127.0.0.1:{port}", token="s3cret").rollback()
    listener.stop(None).wait()
    assert seen[0]["authorization"] == "Bearer s3cret"
    assert len(seen[0]["x-request-id"]) == 32


def test_tls_certificate_and_token_let_the_client_in_and_say_what_it_may(tmp_path, make_client):
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server")
    ours, our_key = authority.sign("client")
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"{client_line('shop', ['read'], 'token-of-the-shop')}\n")
    running = RunningServer(
        tmp_path,
        server=ServerConfig(
            address="127.0.0.1:0",
            tls=TlsConfig(
                certificate=str(certificate), key=str(key), client_ca=str(authority.certificate)
            ),
            access=AccessConfig(tokens=str(tokens)),
        ),
    )
    running.start()
    running.serve("s1", lambda: make_models("s1"))
    tls = headrace.Tls(ca=authority.certificate, certificate=ours, key=our_key)
    client = make_client(running, tls=tls, token="token-of-the-shop")
    assert client.recommend("bob", 1).item_ids == ("i9",)
    with pytest.raises(headrace.CallError) as caught:
        client.rollback()
    assert (caught.value.code, caught.value.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    with pytest.raises(headrace.CallError) as caught:
        make_client(running, tls=tls, token="another").recommend("bob")
    assert caught.value.reason == "UNAUTHENTICATED"
    running.close()


def passing(code: int = 14, retry_after_ms: int = 0) -> headrace.CallError:
    return error_of_failure(failure_pb2.Failure(code=code, retry_after_ms=retry_after_ms), "r")


def test_pauses_double_and_heed_the_server(monkeypatch):
    monkeypatch.setattr(retry_module.secrets, "randbelow", lambda most: 0)
    retry = headrace.Retry(max_attempts=5, first_pause_s=1.0, max_pause_s=3.0)
    attempts = Attempts(retry, Budget(retry), 1_000.0)
    pauses = [attempts.pause_s(passing(retry_after_ms=ms)) for ms in (0, 0, 0, 9_000, 0)]
    assert pauses == [1.0, 2.0, 3.0, 9.0, None]


def test_no_retry_after_the_deadline_or_of_what_does_not_pass():
    retry = headrace.Retry()
    attempts = Attempts(retry, Budget(retry), 1.0)
    assert attempts.pause_s(passing(retry_after_ms=2_000)) is None
    assert attempts.pause_s(passing(code=13)) is None


def test_retries_of_all_calls_share_a_budget():
    retry = headrace.Retry(max_attempts=2, budget_share=0.1, budget_most=2.0)
    budget = Budget(retry)
    allowed = [Attempts(retry, budget, 100.0).pause_s(passing()) is not None for _ in range(42)]
    assert allowed[:2] == [True, True]
    assert sum(allowed) == 6  # two saved up, and one for every ten calls


def test_condition_asks_one_kind_of_thing():
    with pytest.raises(ValueError, match="tags: expected either one_of or a range"):
        headrace.Condition(feature="tags")
    with pytest.raises(ValueError, match="price"):
        headrace.Condition(feature="price", one_of=["a"], at_least=1.0)


def test_client_makes_the_events_that_the_trainer_reads(server, make_client):
    make_client(server).publish(EVENTS)
    assert [event_to_message(event).WhichOneof("kind") for event in server.stored()] == [
        "impression",
        "feedback",
        "item_update",
        "item_update",
        "user_update",
    ]
