"""Several server processes on one port: started together, started again when one ends."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event as StopSignal

from rich.console import Console

from app.errors import stop_on_signals
from app.forked_workers import WorkerMould, can_fork
from app.processes import (
    Begin,
    Child,
    command,
    parent_is_gone,
    raise_if_ended,
    start_again,
    together,
)
from app.readiness import wait_until_ready
from app.settings import Settings
from app.up_process import child_arguments
from domain.clock import Clock, SystemClock
from domain.errors import ConfigError

_logger = logging.getLogger(__name__)

_MOST_RESTARTS = 5
_WITHIN_S = 60.0
"""More restarts than this in so many seconds mean that something is wrong which they do not mend;
then all end and say what."""


def run_workers(
    settings: Settings, config: Path | None, overrides: Sequence[str], num_workers: int
) -> None:
    """Run so many servers on one port until told to stop; the kernel spreads connections over them.

    A worker that ends by itself is started again, while the others go on answering.

    Raises:
        ConfigError: the port is in use, or everybody could reach the server.
        ProcessError: a worker ended before one served, or they end again and again.
    """
    settings.server.check_exposure()
    clock = SystemClock()
    say = Console(soft_wrap=True, highlight=False).print
    with stop_on_signals() as stop, _reserved(settings.server.address) as address:
        say(f"Starting {num_workers} workers; their logs are in {settings.data.process_logs}")
        mould = _mould(settings)
        own = [_own(settings, address, number) for number in range(num_workers)]
        begins: list[Begin]
        if mould is None:
            shared = child_arguments(settings, config, overrides)
            begins = [command(["serve", *shared, *_flags(one)]) for one in own]
        else:
            begins = [partial(mould.begin, _with(settings, one)) for one in own]
        starts = [(f"server-{number}", begin) for number, begin in enumerate(begins)]
        with together(starts, settings.data.process_logs) as running:
            if mould is None:
                wait_until_ready(settings, running, clock, stop)
            else:
                mould.wait_until_serving(running, stop)
            if not stop.is_set():
                say(f"Serving gRPC on {address}; {_pages(settings, num_workers)}")
            _watch(running, stop, clock)
    say("Stopped.")


def _mould(settings: Settings) -> WorkerMould | None:
    """Load what workers share; None when each has to load everything for itself."""
    if not settings.server.share_memory or not can_fork():
        return None
    mould = WorkerMould(settings)
    if why := mould.why_not():
        _logger.warning("workers share no memory", extra={"reason": why})
        return None
    return mould


def metrics_ports(settings: Settings, num_workers: int) -> list[int]:
    """Return the port of each worker's metrics page, one after the other; none when it is off."""
    first = settings.metrics.server_port
    return list(range(first, first + num_workers)) if first else []


@dataclass(frozen=True, slots=True)
class _Own:
    """What one worker has and the others have not, or what is theirs together."""

    address: str
    metrics_port: int


def _own(settings: Settings, address: str, number: int) -> _Own:
    first = settings.metrics.server_port
    return _Own(address, first + number if first else 0)


def _flags(own: _Own) -> list[str]:
    values = {
        "server.address": f'"{own.address}"',
        "server.share_port": "true",
        "metrics.server_port": str(own.metrics_port),
    }
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def _with(settings: Settings, own: _Own) -> Settings:
    server = replace(settings.server, address=own.address, share_port=True)
    metrics = replace(settings.metrics, server_port=own.metrics_port)
    return settings.model_copy(update={"server": server, "metrics": metrics})


def _pages(settings: Settings, num_workers: int) -> str:
    ports = metrics_ports(settings, num_workers)
    if not ports:
        return "no metrics pages"
    return f"metrics of each worker on ports {ports[0]} to {ports[-1]}"


def _watch(running: list[Child], stop: StopSignal, clock: Clock) -> None:
    """Start workers again that end, until `stop` is set."""
    restarts_s: deque[float] = deque(maxlen=_MOST_RESTARTS)
    while not (stop.is_set() or parent_is_gone()):
        for child in [one for one in running if one.process.poll() is not None]:
            now_s = clock.stopwatch_s()
            if len(restarts_s) == _MOST_RESTARTS and now_s - restarts_s[0] < _WITHIN_S:
                raise_if_ended([child])
            _logger.error(
                "worker ended, starting it again",
                extra={"worker": child.name, "status": child.process.poll()},
            )
            restarts_s.append(now_s)
            start_again(running, child)
        clock.sleep(0.2)


@contextmanager
def _reserved(address: str) -> Iterator[str]:
    """Keep a port for our workers while the block runs; port 0 becomes a free one.

    A shared port hides a second server on the same one until half the calls fail, so first the
    port is taken without sharing, as a single server does. The socket that holds it never listens.
    """
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        with socket.socket(family) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((bare, int(port)))
            taken = alone.getsockname()[1]
        holder = socket.socket(family)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((bare, taken))
    except OSError as error:
        raise ConfigError(
            f"server.address: cannot listen on {address}: {error.strerror or error}"
        ) from error
    with holder:
        yield f"{host}:{taken}"
