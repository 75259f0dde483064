"""Health, reflection, ports and an orderly end of a real gRPC server."""

from __future__ import annotations

import contextlib
import threading

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from domain.errors import ConfigError
from protos.headrace.v1 import recommender_pb2
from serving.recommend import RecommenderConfig
from serving.server import ServerConfig, create_server
from tests.unit.serving.running_server import RunningServer, items_of, until
from tests.unit.serving.worlds import CLOCK, SlowRanker, count, make_models, serving_metrics

SERVICES = (
    "headrace.v1.Admin",
    "headrace.v1.Drift",
    "headrace.v1.Events",
    "headrace.v1.Ranking",
    "headrace.v1.Recommender",
    "headrace.v1.Retrieval",
)


@pytest.fixture
def server(tmp_path):
    running = RunningServer(tmp_path)
    running.start()
    yield running
    running.close()


def test_server_is_usable_by_a_client_that_knows_only_its_address(server):
    server.serve("s1")
    with grpc.insecure_channel(server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        ours = sorted(name for name in database.get_services() if name.startswith("headrace."))
        assert ours == list(SERVICES)
        pool = DescriptorPool(database)
        method = pool.FindServiceByName("headrace.v1.Recommender").FindMethodByName("Recommend")
        request_class = GetMessageClass(method.input_type)
        response_class = GetMessageClass(method.output_type)
        call = channel.unary_unary(
            "/headrace.v1.Recommender/Recommend",
            request_serializer=request_class.SerializeToString,
            response_deserializer=response_class.FromString,
        )
        response = call(request_class(user_id="ann", limit=2), timeout=5)
    assert [item.item_id for item in response.items] == ["i9", "i8"]


def test_reflection_describes_every_service(server):
    with grpc.insecure_channel(server.address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        methods = {
            name: [method.name for method in pool.FindServiceByName(name).methods]
            for name in (*SERVICES, "grpc.health.v1.Health")
        }
    assert methods == {
        "headrace.v1.Admin": ["ListSnapshots", "Promote", "Rollback"],
        "headrace.v1.Drift": ["WatchSignals"],
        "headrace.v1.Events": ["Publish", "PublishStream"],
        "headrace.v1.Ranking": ["Rank", "BatchRank"],
        "headrace.v1.Recommender": ["Recommend", "BatchRecommend"],
        "headrace.v1.Retrieval": ["Retrieve", "BatchRetrieve"],
        "grpc.health.v1.Health": ["Check", "List", "Watch"],
    }


@pytest.mark.parametrize("service", ["", *SERVICES])
def test_health_is_serving_only_while_a_snapshot_is_live(server, service):
    assert server.health_of(service) == "NOT_SERVING"
    server.serve("s1")
    assert server.health_of(service) == "SERVING"


def test_health_watch_sees_every_change(tmp_path):
    running = RunningServer(tmp_path)
    running.start()
    seen = []
    watch = running.health.Watch(health_pb2.HealthCheckRequest(service=""))

    def collect() -> None:
        with contextlib.suppress(grpc.RpcError):  # how a cancelled stream ends
            seen.extend(answer.status for answer in watch)

    watcher = threading.Thread(target=collect)
    watcher.start()
    until(lambda: len(seen) == 1)
    running.serve("s1")
    until(lambda: len(seen) == 2)
    stopping = threading.Thread(target=running.handle.stop)
    stopping.start()
    until(lambda: len(seen) == 3)
    watch.cancel()
    stopping.join(10)
    watcher.join(10)
    running.close()
    status = health_pb2.HealthCheckResponse
    assert seen == [status.NOT_SERVING, status.SERVING, status.NOT_SERVING]


def test_health_does_not_know_services_that_are_not_there(server):
    with pytest.raises(grpc.RpcError) as caught:
        server.health_of("headrace.v1.Nothing")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_stop_lets_running_calls_finish_and_takes_no_new_ones(tmp_path):
    gate, entered = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        gate.wait(5)

    running = RunningServer(tmp_path)
    running.start()
    bundles = []

    def make():
        bundles.append(make_models("s1"))
        return bundles[-1]

    running.serve("s1", make)
    bundles[0].ranker.predict = SlowRanker(wait).predict
    call = running.recommender.Recommend.future(
        recommender_pb2.RecommendRequest(user_id="ann", limit=1), timeout=5
    )
    assert entered.wait(5)
    stopping = threading.Thread(target=running.handle.stop)
    stopping.start()
    until(lambda: refused(running))
    assert not running.handle.wait(0.01)
    gate.set()
    response = call.result()
    stopping.join(5)
    assert items_of(response) == ["i9"]
    assert running.handle.wait(5)
    running.close()
    assert response.impression_id


def refused(running) -> bool:
    with grpc.insecure_channel(running.address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=0.05)
        except grpc.FutureTimeoutError:
            return True
        return False


def test_stop_says_not_serving_while_it_still_answers(tmp_path):
    config = ServerConfig(address="127.0.0.1:0", drain_s=0.5, grace_s=5.0)
    running = RunningServer(tmp_path, server=config)
    running.start()
    running.serve("s1")
    stopping = threading.Thread(target=running.handle.stop)
    stopping.start()
    until(lambda: running.health_of("") == "NOT_SERVING")
    assert running.recommend("ann").info.snapshot_id == "s1"
    running.serve("s2")  # a swap while stopping does not make it ready again
    assert running.health_of("") == "NOT_SERVING"
    stopping.join(10)
    running.close()


def test_stop_cancels_calls_that_outlast_the_grace(tmp_path):
    gate, entered = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        gate.wait(5)

    config = ServerConfig(address="127.0.0.1:0", grace_s=0.1)
    running = RunningServer(tmp_path, server=config)
    running.start()
    bundles = []

    def make():
        bundles.append(make_models("s1"))
        return bundles[-1]

    running.serve("s1", make)
    bundles[0].ranker.predict = SlowRanker(wait).predict
    call = running.recommender.Recommend.future(
        recommender_pb2.RecommendRequest(user_id="ann"), timeout=30
    )
    assert entered.wait(5)
    stopping = threading.Thread(target=running.handle.stop)
    stopping.start()
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    assert caught.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    gate.set()
    stopping.join(5)
    running.close()


def test_create_server_says_in_one_line_that_the_port_is_in_use(server):
    config = ServerConfig(address=server.address)
    with pytest.raises(ConfigError) as caught:
        create_server(server.services, config, CLOCK, serving_metrics())
    message = str(caught.value)
    assert message.startswith(f"server.address: cannot listen on {server.address}")
    assert "\n" not in message


def test_create_server_wants_a_thread_to_spare_for_refusals_and_health(server):
    config = ServerConfig(address="127.0.0.1:0", threads=44)
    with pytest.raises(ConfigError, match=r"^server.threads must be more than the 44 calls"):
        create_server(server.services, config, CLOCK, serving_metrics())


def test_server_refuses_a_request_larger_than_its_limit(tmp_path):
    config = ServerConfig(address="127.0.0.1:0", max_message_bytes=1_000)
    running = RunningServer(tmp_path, server=config)
    running.start()
    with pytest.raises(grpc.RpcError) as caught:
        running.recommend("u" * 2_000)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    running.close()


def test_server_answers_many_callers_at_once(tmp_path):
    running = RunningServer(tmp_path, recommender=RecommenderConfig(max_waiting=12))
    running.start()
    running.serve("s1")
    request = recommender_pb2.RecommendRequest(user_id="ann", limit=3)
    answers = []

    def ask() -> None:
        mine = [running.recommender.Recommend(request, timeout=10) for _ in range(10)]
        answers.extend(mine)

    callers = [threading.Thread(target=ask) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert len(answers) == 80
    assert len({answer.impression_id for answer in answers}) == 80
    until(lambda: count(running.metrics.in_flight) == 0)
    assert len(running.stored()) == 80
    running.close()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"address": "localhost"}, "server.address must be host:port, got 'localhost'"),
        ({"address": "localhost:99999"}, "server.address must be host:port"),
        ({"threads": 0}, "server.threads must be at least 1, got 0"),
        ({"grace_s": -1.0}, "server.grace_s must not be negative, got -1.0"),
    ],
)
def test_server_config_names_the_key_that_is_out_of_range(setting, message):
    with pytest.raises(ConfigError, match=message):
        ServerConfig(**setting)
