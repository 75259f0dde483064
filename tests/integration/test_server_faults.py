"""Clients that send slowly, too much or nothing, or vanish: others are served all the same."""

from __future__ import annotations

import socket
import threading
import time

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.headrace.v1 import recommender_pb2
from serving.publish import PublisherConfig
from serving.recommend import RecommenderConfig
from serving.server import ServerConfig
from tests.unit.serving.running_server import RunningServer, items_of, until
from tests.unit.serving.worlds import SlowRanker, count, make_known, make_models

FEW = {
    "recommender": RecommenderConfig(max_concurrency=1, max_waiting=0),
    "publisher": PublisherConfig(max_concurrency=1),
}
"""Two calls are let in, so that few threads are enough, and soon used up."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
RECOMMEND = "/headrace.v1.Recommender/Recommend"
PING = 6


@pytest.fixture
def start(tmp_path):
    started = []

    def run(parts=None, **config) -> RunningServer:
        server = RunningServer(
            tmp_path, server=ServerConfig(address="127.0.0.1:0", **config), **(parts or {})
        )
        started.append(server)
        server.start()
        server.serve("s1", lambda: make_models("s1"))
        return server

    yield run
    for running in started:
        running.close()


def connect(server: RunningServer, *said: bytes) -> socket.socket:
    """Return a connection on which a client said this and nothing more."""
    host, _, port = server.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20.0)
    for one in said:
        connection.sendall(one)
    return connection


def test_calls_whose_message_does_not_come_are_ended_and_others_answered(start):
    server = start(FEW, threads=4, max_streams=1, receive_timeout_s=0.4)
    release = threading.Event()

    def nothing():
        release.wait(20)
        yield from ()

    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_unary(RECOMMEND)
        slow = [call.future(nothing(), timeout=20.0) for _ in range(12)]
        # All four threads wait for messages; as soon as these calls are ended, others are served.
        assert items_of(server.recommend("ann", limit=1, timeout_s=20.0)) == ["i9"]
        until(lambda: all(one.done() for one in slow), 20.0)
        assert {one.code() for one in slow} == {grpc.StatusCode.CANCELLED}
        release.set()
    until(lambda: count(server.metrics.requests, method="recommend", code="CANCELLED") == 12)
    assert items_of(server.recommend("ann", limit=1)) == ["i9"]


def test_streams_do_not_take_the_threads_of_calls(start):
    server = start(FEW, threads=5, max_streams=2)
    release = threading.Event()

    def idle():
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        release.wait(20)

    with grpc.insecure_channel(server.address) as channel:
        info = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        streams = [info(idle(), timeout=20.0) for _ in range(2)]
        for stream in streams:
            next(stream)
        with pytest.raises(grpc.RpcError) as caught:
            next(info(idle(), timeout=20.0))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(caught.value.trailing_metadata())["retry-after-ms"] == "1000"
        assert items_of(server.recommend("ann", limit=1)) == ["i9"]
        release.set()
        for stream in streams:
            assert list(stream) == []
    with grpc.insecure_channel(server.address) as channel:
        info = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        assert len(list(info(iter([ask]), timeout=5.0))) == 1  # the places are free again


def test_refused_callers_are_told_when_to_come_again(start):
    gate, entered = threading.Event(), threading.Event()
    server = start(FEW)
    bundles = []

    def make():
        bundles.append(make_models("s2"))
        make_known(bundles[-1], "ann")
        return bundles[-1]

    def wait() -> None:
        entered.set()
        gate.wait(10)

    server.serve("s2", make)
    bundles[0].ranker.predict = SlowRanker(wait).predict
    request = recommender_pb2.RecommendRequest(user_id="ann", limit=1)
    running = server.recommender.Recommend.future(request, timeout=10.0)
    assert entered.wait(5)
    with pytest.raises(grpc.RpcError) as caught:
        server.recommend("ann")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(caught.value.trailing_metadata())["retry-after-ms"]) >= 10
    assert count(server.metrics.refused) == 1
    gate.set()
    assert items_of(running.result()) == ["i9"]


def test_time_in_both_queues_is_measured(start):
    gate, entered = threading.Event(), threading.Event()
    server = start({"recommender": RecommenderConfig(max_concurrency=1, max_waiting=1)})
    bundles = []

    def make():
        bundles.append(make_models("s2"))
        make_known(bundles[-1], "ann")
        return bundles[-1]

    def wait() -> None:
        entered.set()
        gate.wait(10)

    server.serve("s2", make)
    bundles[0].ranker.predict = SlowRanker(wait).predict
    request = recommender_pb2.RecommendRequest(user_id="ann", limit=1)
    calls = [server.recommender.Recommend.future(request, timeout=10.0)]
    assert entered.wait(5)
    calls.append(server.recommender.Recommend.future(request, timeout=10.0))
    until(lambda: count(server.metrics.in_flight) == 2)
    time.sleep(0.3)
    gate.set()
    assert [items_of(call.result()) for call in calls] == [["i9"], ["i9"]]
    for place, least_s in (("thread", 0.0), ("turn", 0.2)):
        waited = server.metrics.queue_seconds.labels(place=place)
        assert waited._sum.get() > least_s
        assert sum(bucket.get() for bucket in waited._buckets) == 2


def test_a_huge_request_is_refused_and_the_connection_lives_on(start):
    server = start(max_message_bytes=100_000)
    for _ in range(6):
        with pytest.raises(grpc.RpcError) as caught:
            server.recommend("u" * 5_000_000)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert items_of(server.recommend("ann", limit=1)) == ["i9"]


@pytest.mark.parametrize("said", [(), (PREFACE, EMPTY_SETTINGS), (b"GET / HTTP/1.1\r\n\r\n",)])
def test_connections_that_stay_silent_cost_little_and_hinder_nobody(start, said):
    server = start()
    idle = [connect(server, *said) for _ in range(200)]
    try:
        assert items_of(server.recommend("ann", limit=1)) == ["i9"]
        assert server.health_of("") == "SERVING"
    finally:
        for connection in idle:
            connection.close()
    assert items_of(server.recommend("ann", limit=1)) == ["i9"]


def test_a_client_that_vanished_is_asked_whether_it_lives_and_then_dropped(start):
    server = start(keepalive_s=0.5)
    # A half-open connection looks like this from here: it is there, and nothing comes back.
    connection = connect(server, PREFACE, EMPTY_SETTINGS)
    received = b""
    began = time.monotonic()
    while chunk := connection.recv(4_096):
        received += chunk
    connection.close()
    assert time.monotonic() - began < 15.0  # usually 1.1
    assert PING in frame_types(received)


def test_a_call_in_mid_air_when_its_client_vanishes_frees_its_place(start):
    gate, entered = threading.Event(), threading.Event()
    server = start(FEW, keepalive_s=0.5)
    bundles = []

    def make():
        bundles.append(make_models("s2"))
        make_known(bundles[-1], "ann")
        return bundles[-1]

    def wait() -> None:
        entered.set()
        gate.wait(10)

    server.serve("s2", make)
    fast, bundles[0].ranker.predict = bundles[0].ranker.predict, SlowRanker(wait).predict
    channel = grpc.insecure_channel(server.address)
    request = recommender_pb2.RecommendRequest(user_id="ann", limit=1).SerializeToString()
    call = channel.unary_unary(RECOMMEND).future(request, timeout=20.0)
    assert entered.wait(5)
    channel.close()
    assert call.code() is grpc.StatusCode.CANCELLED
    bundles[0].ranker.predict = fast
    gate.set()
    until(lambda: count(server.metrics.in_flight) == 0)
    assert items_of(server.recommend("ann", limit=1)) == ["i9"]


def frame_types(data: bytes) -> set[int]:
    """Types of the HTTP/2 frames in what a server said."""
    types = set()
    while len(data) >= 9:
        types.add(data[3])
        data = data[9 + int.from_bytes(data[:3], "big") :]
    return types
