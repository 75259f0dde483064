"""The gRPC server: services, health, reflection, a bound port and an orderly end."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from domain.clock import Clock
from domain.errors import ConfigError
from monitoring.metrics import ServingMetrics
from protos.headrace.v1 import (
    events_pb2,
    events_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
)
from serving.events_servicer import EventsServicer
from serving.interceptors import CallInterceptor
from serving.live_models import LiveModelSlot
from serving.publish import Publisher
from serving.ranking_servicer import RankingServicer
from serving.recommend import Recommender
from serving.recommender_servicer import RecommenderServicer
from serving.retrieval_servicer import RetrievalServicer

_logger = logging.getLogger(__name__)

SERVICE_NAMES: tuple[str, ...] = tuple(
    service.full_name
    for module in (events_pb2, recommender_pb2, retrieval_pb2, ranking_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""Full names of our services."""

_PACKAGE: str = recommender_pb2.DESCRIPTOR.package


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where and how the server listens.

    Attributes:
        address: "host:port"; port 0 takes a free one.
        threads: threads that answer calls. More than the recommender and the publisher let in
            together, so that refusals, health checks and reflection always find one.
        max_calls: calls queued or running at once, all services; beyond, gRPC itself refuses.
        max_message_bytes: largest request or response.
        drain_s: time between saying NOT_SERVING and refusing calls, for load balancers to notice.
        grace_s: time that running calls then have to finish.
    """

    address: str = "127.0.0.1:50051"
    threads: int = 32
    max_calls: int = 512
    max_message_bytes: int = 16 * 2**20
    drain_s: float = 0.0
    grace_s: float = 10.0

    def __post_init__(self) -> None:
        host, colon, port = self.address.rpartition(":")
        if not (host and colon and port.isdecimal() and int(port) < 65_536):
            raise ConfigError(f"server.address must be host:port, got {self.address!r}")
        for name in ("threads", "max_calls", "max_message_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"server.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("drain_s", "grace_s"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"server.{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the server answers with."""

    slot: LiveModelSlot
    recommender: Recommender
    publisher: Publisher


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundServer:
    """A gRPC server on its port, with what must end together with it."""

    server: grpc.Server
    readiness: health.HealthServicer
    threads: ThreadPoolExecutor
    port: int


class ServerHandle:
    """Starts and ends a server; made by `create_server`."""

    def __init__(self, bound: BoundServer, config: ServerConfig, clock: Clock) -> None:
        self._bound = bound
        self._config = config
        self._clock = clock

    @property
    def port(self) -> int:
        """Return the bound port."""
        return self._bound.port

    def start(self) -> None:
        """Start answering; health says SERVING from the first live snapshot on."""
        self._bound.server.start()
        _logger.info("listening", extra={"address": self._config.address, "port": self.port})

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the server has stopped; return whether it has."""
        return not self._bound.server.wait_for_termination(timeout_s)

    def stop(self) -> None:
        """End in order.

        1. Health says NOT_SERVING: load balancers stop sending.
        2. After `drain_s`, new calls are refused.
        3. Running calls have `grace_s` to finish; then they are cancelled.
        """
        self._bound.readiness.enter_graceful_shutdown()
        self._clock.sleep(self._config.drain_s)
        self._bound.server.stop(self._config.grace_s).wait()
        self._bound.threads.shutdown(wait=True, cancel_futures=True)


def create_server(
    services: Services, config: ServerConfig, clock: Clock, metrics: ServingMetrics
) -> ServerHandle:
    """Build, but do not start, a server that listens on `config.address`.

    Raises:
        ConfigError: the port is in use or not ours to take, or there are too few threads.
    """
    let_in = services.recommender.capacity + services.publisher.capacity
    if config.threads <= let_in:
        raise ConfigError(
            f"server.threads must be more than the {let_in} calls that recommender and publisher "
            f"let in together, got {config.threads}"
        )
    threads = ThreadPoolExecutor(config.threads, thread_name_prefix="grpc")
    server = grpc.server(
        threads,
        interceptors=(CallInterceptor(_PACKAGE, clock, metrics),),
        options=(
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", config.max_message_bytes),
            # Shared ports would hide a second server on the same one until half the calls fail.
            ("grpc.so_reuseport", 0),
        ),
        maximum_concurrent_rpcs=config.max_calls,
    )
    _add_services(server, services, clock)
    readiness = _add_health(server, services.slot)
    reflection.enable_server_reflection(
        (*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    bound = BoundServer(
        server=server, readiness=readiness, threads=threads, port=_bind(server, config.address)
    )
    return ServerHandle(bound, config, clock)


def _add_services(server: grpc.Server, services: Services, clock: Clock) -> None:
    """Add our services; generated code has no types."""
    answers = services.recommender
    events = EventsServicer(services.publisher, clock)
    events_pb2_grpc.add_EventsServicer_to_server(events, server)
    recommender_pb2_grpc.add_RecommenderServicer_to_server(RecommenderServicer(answers), server)
    retrieval_pb2_grpc.add_RetrievalServicer_to_server(RetrievalServicer(answers), server)
    ranking_pb2_grpc.add_RankingServicer_to_server(RankingServicer(answers), server)


def _add_health(server: grpc.Server, slot: LiveModelSlot) -> health.HealthServicer:
    """Add health checks: overall and each service, SERVING while a snapshot is live."""
    readiness = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(readiness, server)
    names = (health.OVERALL_HEALTH, *SERVICE_NAMES)

    def report(status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in names:
            readiness.set(name, status)

    report(health_pb2.HealthCheckResponse.NOT_SERVING)
    slot.add_listener(lambda models: report(health_pb2.HealthCheckResponse.SERVING))
    return readiness


def _bind(server: grpc.Server, address: str) -> int:
    try:
        port: int = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigError(
            f"server.address: cannot listen on {address}: the port is in use, or the address is "
            f"not this machine's"
        ) from error
    return port
