"""Waiting until a server serves, seen from outside."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event as StopSignal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from app.processes import Child, raise_if_ended
from domain.clock import Clock
from domain.errors import ProcessError

# Loading torch takes seconds, and minutes where many processes share few cores.
_READY_WITHIN_S = 180.0


def wait_until_serving(
    address: str, running: Sequence[Child], clock: Clock, stop: StopSignal | None = None
) -> None:
    """Return when the server's health says SERVING, or `stop` is set.

    Raises:
        ProcessError: a child ended, or nothing served within three minutes.
    """
    deadline_s = clock.stopwatch_s() + _READY_WITHIN_S
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while clock.stopwatch_s() < deadline_s:
            raise_if_ended(running)
            if _serves(stub) or (stop is not None and stop.is_set()):
                return
            clock.sleep(0.2)
    raise ProcessError(f"nothing served on {address} within {_READY_WITHIN_S:.0f} s")


def _serves(stub: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
    except grpc.RpcError:
        return False  # nobody listens yet
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
