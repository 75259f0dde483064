"""Real `headrace` processes: started, waited for, and ended together with their children."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from app.schema_file import schema_to_toml
from domain.features import FeatureSchema
from tests.loop_worlds import SMALL_MODELS

ROOT = Path(__file__).resolve().parents[1]
START_S = 90.0
"""Longest wait for a process to do its first work: loading torch alone takes seconds."""
STOP_S = 45.0
"""Longest wait for an orderly end: the grace of 30 s that children have, and some more."""


@dataclass(eq=False)
class Headrace:
    """A running `headrace` command.

    Attributes:
        output: file that everything it says goes to.
        family: every child it was ever seen with.
    """

    process: subprocess.Popen[bytes]
    output: Path
    family: dict[int, psutil.Process] = field(default_factory=dict)

    @property
    def said(self) -> str:
        """Everything it has said so far."""
        return self.output.read_text(errors="replace")

    def look(self) -> list[psutil.Process]:
        """Return the children it has now, and remember them."""
        try:
            now = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            now = []
        self.family |= {child.pid: child for child in now}
        return now

    def living_children(self) -> list[psutil.Process]:
        """Return those of its children, ever seen, that are still there."""
        return [child for child in self.family.values() if _lives(child)]

    def wait(self, seconds: float = STOP_S) -> int:
        """Return the exit status once it has ended."""
        return self.process.wait(seconds)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def headrace(*arguments: str, output: Path) -> Iterator[Headrace]:
    """Run `headrace ARGUMENTS` while the block runs; whatever is left then is killed."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**environment, "OMP_NUM_THREADS": "1"},
        )
    running = Headrace(process, output)
    try:
        yield running
    finally:
        running.look()
        process.kill()
        process.wait()
        for child in running.living_children():
            child.kill()


def run_headrace(*arguments: str, output: Path, seconds: float = START_S) -> tuple[int, str]:
    """Run `headrace ARGUMENTS` to its end; return exit status and everything it said."""
    with headrace(*arguments, output=output) as running:
        status = running.wait(seconds)
        return status, running.said


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def flags(*settings: str) -> list[str]:
    """Flags for small models, for no metrics pages, and for the settings given."""
    pages = ("metrics.trainer_port=0", "metrics.server_port=0")
    return [word for one in (*SMALL_MODELS, *pages, *settings) for word in ("--set", one)]


def write_schema(path: Path, schema: FeatureSchema) -> list[str]:
    """Write a schema as a TOML file and return the flags that read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(schema_to_toml(schema))
    return ["--config", str(path)]


def health_of(channel: grpc.Channel) -> str:
    """Return what a server says of its health, "UNREACHABLE" when it says nothing."""
    stub = health_pb2_grpc.HealthStub(channel)
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=2.0)
    except grpc.RpcError:
        return "UNREACHABLE"
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name


def wait_for_serving(running: Headrace, channel: grpc.Channel) -> None:
    """Wait until a server answers; a process that ended instead has its last words shown."""

    def serves_or_ended() -> bool:
        running.look()
        return running.process.poll() is not None or health_of(channel) == "SERVING"

    wait_until(serves_or_ended, START_S, f"{running.output} serves")
    assert running.process.poll() is None, running.said
