"""The gRPC server: services, health, reflection, a bound port and an orderly end."""

from __future__ import annotations

import ipaddress
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from domain.clock import Clock
from domain.errors import ConfigError
from monitoring.metrics import ServingMetrics
from monitoring.tracing import Tracing
from protos.headrace.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    drift_pb2,
    drift_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
)
from serving.access import Access, AccessConfig
from serving.admin_servicer import AdminServicer
from serving.batch import BatchAnswers
from serving.drift_servicer import DriftServicer
from serving.events_servicer import EventsServicer
from serving.gate import Gate
from serving.interceptors import CallInterceptor, CallParts
from serving.live_models import LiveModelSlot
from serving.publish import Publisher
from serving.quotas import QuotaConfig, Quotas
from serving.ranking_servicer import RankingServicer
from serving.recommend import Recommender
from serving.recommender_servicer import RecommenderServicer
from serving.retrieval_servicer import RetrievalServicer
from serving.signal_feed import SignalFeed
from serving.slow_senders import SlowSenders
from serving.snapshot_desk import SnapshotDesk
from serving.tls import TlsConfig, server_credentials

_logger = logging.getLogger(__name__)

SERVICE_NAMES: tuple[str, ...] = tuple(
    service.full_name
    for module in (
        events_pb2,
        recommender_pb2,
        retrieval_pb2,
        ranking_pb2,
        drift_pb2,
        admin_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""Full names of our services."""

_PACKAGE: str = recommender_pb2.DESCRIPTOR.package


_HANDSHAKE_MS = 10_000
"""How long a new connection may take to say hello; whoever connects and is silent is dropped."""

_PONG_MS = 20_000
"""How long the answer to a ping may take."""

_LEAST_CLIENT_PING_MS = 10_000
"""Clients may ask this often whether the connection lives; more often is taken for an attack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where and how the server listens.

    Attributes:
        address: "host:port"; port 0 takes a free one.
        insecure: let other machines in without TLS, or without asking who they are.
        share_port: let other servers of this machine listen on the same port (SO_REUSEPORT); the
            kernel spreads connections over them. `headrace serve --workers` sets it.
        share_memory: fork workers from one process that has loaded libraries and the newest
            snapshot, where the system can; if not, each loads everything for itself.
        threads: threads that answer calls. More than the recommender and the publisher let in
            together and `max_streams`, so that refusals and health checks always find one.
        max_calls: calls queued or running at once, all services; beyond, gRPC itself refuses.
        max_streams: streams open at once; each keeps a thread.
        max_message_bytes: largest request or response.
        receive_timeout_s: how long the message of a call that has begun may take to come.
        keepalive_s: how often a silent connection is asked whether it lives; one that does not
            answer is dropped, so a client that vanished holds nothing.
        max_connection_age_s: age at which a client is asked to connect anew, after its running
            calls; so that clients find servers that were added. 0.0 is never.
        drain_s: time between saying NOT_SERVING and refusing calls, for load balancers to notice.
        grace_s: time that running calls then have to finish.
        tls: certificates.
        access: who may call what.
        quota: how often one client may call.
    """

    address: str = "127.0.0.1:50051"
    insecure: bool = False
    share_port: bool = False
    share_memory: bool = True
    threads: int = 48
    max_calls: int = 512
    max_streams: int = 16
    max_message_bytes: int = 16 * 2**20
    receive_timeout_s: float = 5.0
    keepalive_s: float = 60.0
    max_connection_age_s: float = 0.0
    drain_s: float = 0.0
    grace_s: float = 10.0
    tls: TlsConfig = field(default_factory=TlsConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    quota: QuotaConfig = field(default_factory=QuotaConfig)

    def __post_init__(self) -> None:
        host, colon, port = self.address.rpartition(":")
        if not (host and colon and port.isdecimal() and int(port) < 65_536):
            raise ConfigError(f"server.address must be host:port, got {self.address!r}")
        for name in ("threads", "max_calls", "max_streams", "max_message_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"server.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("receive_timeout_s", "keepalive_s"):
            if not getattr(self, name) > 0.0:
                raise ConfigError(f"server.{name} must be positive, got {getattr(self, name)}")
        for name in ("max_connection_age_s", "drain_s", "grace_s"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"server.{name} must not be negative, got {getattr(self, name)}")

    @property
    def local(self) -> bool:
        """Return whether only this machine can reach the server."""
        host = self.address.rpartition(":")[0].strip("[]")
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False  # a name; what it means is known only to whoever looks it up

    def check_exposure(self) -> None:
        """Refuse to be reached from other machines by anybody.

        Raises:
            ConfigError: saying what is missing and how to go without it.
        """
        if self.local or self.insecure:
            return
        missing = []
        if not self.tls.enabled:
            missing.append("TLS (server.tls.certificate and server.tls.key)")
        if not (self.access.tokens or self.tls.client_ca):
            missing.append("a list of who may call (server.access.tokens or server.tls.client_ca)")
        if missing:
            raise ConfigError(
                f"server.address: {self.address} can be reached from other machines and lacks "
                f"{' and '.join(missing)}; --insecure lets everybody in"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the server answers with.

    Attributes:
        draining: set when the server begins to stop; streams end then, which would go on for ever.
        tracing: makes spans of calls; None makes none.
    """

    slot: LiveModelSlot
    recommender: Recommender
    publisher: Publisher
    snapshots: SnapshotDesk
    signals: SignalFeed
    draining: threading.Event = field(default_factory=threading.Event)
    tracing: Tracing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerParts:
    """A gRPC server, with what must end together with it."""

    server: grpc.Server
    readiness: health.HealthServicer
    threads: ThreadPoolExecutor
    draining: threading.Event
    senders: SlowSenders
    batches: BatchAnswers


class ServerHandle:
    """Starts and ends a server; made by `create_server`."""

    def __init__(self, parts: ServerParts, config: ServerConfig, clock: Clock) -> None:
        self._parts = parts
        self._config = config
        self._clock = clock
        self._port: int | None = None
        self._listening = False

    @property
    def listening(self) -> bool:
        """Return whether calls are answered since `start`."""
        return self._listening

    @property
    def port(self) -> int:
        """Return the bound port, 0 while none is."""
        return self._port or 0

    def bind(self) -> None:
        """Take the port; from now on the kernel lets clients connect.

        Raises:
            ConfigError: it is in use or not ours to take.
        """
        self._port = _bind(self._parts.server, self._config, self._clock)

    def start(self) -> None:
        """Start answering; health says SERVING from the first live snapshot on.

        Raises:
            ConfigError: as `bind`, which is done now if it was not before.
        """
        if self._port is None:
            self.bind()
        self._parts.senders.start()
        self._parts.server.start()
        self._listening = True
        _logger.info("listening", extra={"address": self._config.address, "port": self.port})

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the server has stopped; return whether it has."""
        return not self._parts.server.wait_for_termination(timeout_s)

    def stop(self) -> None:
        """End in order.

        1. Health says NOT_SERVING: load balancers stop sending.
        2. After `drain_s`, new calls are refused, and streams end.
        3. Running calls have `grace_s` to finish; then they are cancelled.
        """
        self._parts.readiness.enter_graceful_shutdown()
        self._clock.sleep(self._config.drain_s)
        self._parts.draining.set()
        self._parts.server.stop(self._config.grace_s).wait()
        self._parts.senders.stop()
        self._parts.threads.shutdown(wait=True, cancel_futures=True)
        self._parts.batches.stop()


def create_server(
    services: Services, config: ServerConfig, clock: Clock, metrics: ServingMetrics
) -> ServerHandle:
    """Build, but do not start, a server that listens on `config.address`.

    It has its port already, unless that is shared: there a connection would be taken from another
    server that may be able to answer it.

    Raises:
        ConfigError: the port is in use or not ours to take, there are too few threads, a file of
            the TLS or access settings cannot be used, or everybody could reach the server.
    """
    config.check_exposure()
    let_in = services.recommender.capacity + services.publisher.capacity + config.max_streams
    if config.threads <= let_in:
        raise ConfigError(
            f"server.threads must be more than the {let_in} calls that recommender, publisher and "
            f"server.max_streams let in together, got {config.threads}"
        )
    access = Access(config.access, clock)
    gate = Gate(access, Quotas(config.quota, clock), config.max_streams, metrics)
    senders = SlowSenders(config.receive_timeout_s, clock)
    call_parts = CallParts(
        package=_PACKAGE, gate=gate, senders=senders, metrics=metrics, tracing=services.tracing
    )
    threads = ThreadPoolExecutor(config.threads, thread_name_prefix="grpc")
    server = grpc.server(
        threads,
        interceptors=(CallInterceptor(call_parts, clock),),
        options=_options(config),
        maximum_concurrent_rpcs=config.max_calls,
    )
    batches = BatchAnswers()
    _add_services(server, services, batches, clock)
    readiness = _add_health(server, services.slot)
    reflection.enable_server_reflection(
        (*SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    parts = ServerParts(
        server=server,
        readiness=readiness,
        threads=threads,
        draining=services.draining,
        senders=senders,
        batches=batches,
    )
    handle = ServerHandle(parts, config, clock)
    if not config.share_port:
        handle.bind()
    return handle


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    """Return the settings of gRPC itself."""
    pong_ms = min(round(config.keepalive_s * 1_000), _PONG_MS)
    options = [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", config.max_message_bytes),
        # Unasked, a shared port hides a second server on the same one until half the calls fail.
        ("grpc.so_reuseport", int(config.share_port)),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
        ("grpc.keepalive_time_ms", round(config.keepalive_s * 1_000)),
        ("grpc.keepalive_timeout_ms", pong_ms),
        ("grpc.http2.ping_timeout_ms", pong_ms),  # else a minute passes, whatever stands above
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_CLIENT_PING_MS),
    ]
    if config.max_connection_age_s:
        options.append(("grpc.max_connection_age_ms", round(config.max_connection_age_s * 1_000)))
    return options


def _add_services(
    server: grpc.Server, services: Services, batches: BatchAnswers, clock: Clock
) -> None:
    """Add our services; generated code has no types."""
    answers = services.recommender
    events = EventsServicer(services.publisher, clock, services.draining)
    events_pb2_grpc.add_EventsServicer_to_server(events, server)
    recommender_pb2_grpc.add_RecommenderServicer_to_server(
        RecommenderServicer(answers, batches), server
    )
    retrieval_pb2_grpc.add_RetrievalServicer_to_server(RetrievalServicer(answers, batches), server)
    ranking_pb2_grpc.add_RankingServicer_to_server(RankingServicer(answers, batches), server)
    drift = DriftServicer(services.signals, services.draining)
    drift_pb2_grpc.add_DriftServicer_to_server(drift, server)
    admin = AdminServicer(services.snapshots, services.slot)
    admin_pb2_grpc.add_AdminServicer_to_server(admin, server)


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


def _bind(server: grpc.Server, config: ServerConfig, clock: Clock) -> int:
    credentials = server_credentials(config.tls, clock) if config.tls.enabled else None
    try:
        if credentials is None:
            port: int = server.add_insecure_port(config.address)
        else:
            port = server.add_secure_port(config.address, credentials)
    except RuntimeError as error:
        raise ConfigError(
            f"server.address: cannot listen on {config.address}: the port is in use, or the "
            f"address is not this machine's"
        ) from error
    return port
