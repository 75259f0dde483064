"""Waiting until a server serves, seen from outside."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Callable, Sequence
from threading import Event as StopSignal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from app.processes import Child, raise_if_ended
from app.settings import Settings
from domain.clock import Clock
from domain.errors import ProcessError

# Loading torch takes seconds, and minutes where many processes share few cores.
_READY_WITHIN_S = 180.0

# By itself gRPC waits up to two minutes before it tries again to reach who did not listen yet.
_LOOK_OFTEN = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500))


def wait_until_serving(
    address: str, running: Sequence[Child], clock: Clock, stop: StopSignal | None = None
) -> None:
    """Return when the server's health says SERVING, or `stop` is set.

    Raises:
        ProcessError: a child ended, or nothing served within three minutes.
    """
    with grpc.insecure_channel(address, options=_LOOK_OFTEN) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        _wait(lambda: _serves(stub), address, running, clock, stop)


def wait_until_ready(
    settings: Settings, running: Sequence[Child], clock: Clock, stop: StopSignal
) -> None:
    """As `wait_until_serving`, for a server that may speak TLS.

    Such a one is asked on its metrics page, as a client certificate may be needed to ask itself;
    where there is no page, a server that listens must do.

    Raises:
        ProcessError: a child ended, or nothing served within three minutes.
    """
    address, metrics = settings.server.address, settings.metrics
    if not settings.server.tls.enabled:
        wait_until_serving(address, running, clock, stop)
    elif metrics.server_port:
        page = f"http://{metrics.host}:{metrics.server_port}/readyz"
        _wait(lambda: _says_ready(page), address, running, clock, stop)
    else:
        _wait(lambda: _listens(address), address, running, clock, stop)


def _wait(
    serves: Callable[[], bool],
    address: str,
    running: Sequence[Child],
    clock: Clock,
    stop: StopSignal | None,
) -> None:
    deadline_s = clock.stopwatch_s() + _READY_WITHIN_S
    while clock.stopwatch_s() < deadline_s:
        raise_if_ended(running)
        if serves() or (stop is not None and stop.is_set()):
            return
        clock.sleep(0.2)
    raise ProcessError(f"nothing served on {address} within {_READY_WITHIN_S:.0f} s")


def _serves(stub: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
    except grpc.RpcError:
        return False  # nobody listens yet
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _says_ready(page: str) -> bool:
    try:
        with urllib.request.urlopen(page, timeout=1.0) as answer:  # noqa: S310 - our own page
            return bool(answer.status == 200)
    except OSError:
        return False  # nobody listens yet, or it is not ready


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
            return True
    except OSError:
        return False
