"""Restart servers, kill the trainer and the broker under load, and count what callers noticed.

    python -m tests.faults.serving_campaign --minutes 10

A real Kafka broker, a trainer and two servers; clients ask both servers for recommendations all the
time, without ever trying again, and publish what is clicked. Exit status 1 when a Recommend failed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import numpy as np

from deploy.kafka.broker import KafkaBroker
from protos.headrace.v1 import events_pb2, events_pb2_grpc
from replay.simulator import SimulatedDataset
from stream.codec import event_to_message
from stream.kafka_log import KafkaLog
from stream.kafka_settings import KafkaConfig
from tests.load_client import LoadClient, balanced_channel
from tests.loop_worlds import tiny_scenario, tiny_world
from tests.process_helpers import (
    Headrace,
    flags,
    free_port,
    headrace,
    run_headrace,
    wait_for_serving,
    write_schema,
)

BROKER_AWAY_S = 5.0
_PAUSE_S = 0.1
_STOP_S = 120.0
"""A server that has just lost its broker may wait for it, while it ends, as long as an append."""
_THREADS = 8


@dataclass(frozen=True)
class Phase:
    """What callers noticed during one disturbance."""

    name: str
    answered: int
    failed: int
    unlogged: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    refused_events: int


class Deployment:
    """A broker, a trainer and two servers, each a process of its own."""

    def __init__(self, folder: Path, broker: KafkaBroker, stack: ExitStack) -> None:
        self._folder = folder
        self.broker = broker
        self._stack = stack
        self._starts = 0
        self._config = write_schema(
            folder / "schema.toml", SimulatedDataset(tiny_scenario(240)).schema
        )
        self._log = ["--log", f"kafka://{broker.bootstrap}"]
        status, said = run_headrace(
            "topics", "create", *self._log, "--replication", "1", output=folder / "topics.log"
        )
        assert status == 0, said
        # Without a snapshot nobody serves, and without events there is none.
        with closing(KafkaLog(broker.bootstrap, KafkaConfig())) as log:
            log.append(tiny_world(240)[1])
        self.ports = (free_port(), free_port())
        self.addresses = [f"127.0.0.1:{port}" for port in self.ports]
        self.trainer = self._start("train", "checkpoint.every_s=2")
        self.servers = [self._start_server(port) for port in self.ports]
        for server, port in zip(self.servers, self.ports, strict=True):
            self._wait(server, port)

    def restart_server(self, number: int) -> None:
        """Tell a server to stop, wait until it has, and start another in its place."""
        self.servers[number].process.send_signal(signal.SIGTERM)
        status = self.servers[number].wait(_STOP_S)
        assert status == 0, self.servers[number].said
        port = self.ports[number]
        self.servers[number] = self._start_server(port)
        self._wait(self.servers[number], port)

    def kill_trainer(self) -> None:
        """Kill the trainer, leave callers without for a moment, and start it again."""
        self.trainer.process.kill()
        self.trainer.wait()
        time.sleep(3.0)
        self.trainer = self._start("train", "checkpoint.every_s=2")

    def kill_broker(self) -> None:
        """Kill the broker, leave everybody without for some seconds, and start it again."""
        self.broker.kill()
        time.sleep(BROKER_AWAY_S)
        self.broker.start()

    def _start(self, command: str, *settings: str) -> Headrace:
        self._starts += 1
        words = [command, "--data-dir", str(self._folder / "data"), *self._log, *self._config]
        output = self._folder / f"{command}-{self._starts}.log"
        quick = ("drift.detectors=[]", "kafka.min_insync_replicas=1", *settings)
        return self._stack.enter_context(headrace(*words, *flags(*quick), output=output))

    def _start_server(self, port: int) -> Headrace:
        return self._start("serve", f'server.address="127.0.0.1:{port}"', "server.drain_s=1")

    def _wait(self, server: Headrace, port: int) -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            wait_for_serving(server, channel)


class Publisher:
    """Publishes the events of a world, one after the other, as a client does."""

    def __init__(self, addresses: list[str]) -> None:
        self.refused = 0
        self._channel = balanced_channel(addresses)
        self._events = tiny_world(2_000, seed=2)[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._channel.close()

    def _run(self) -> None:
        stub = events_pb2_grpc.EventsStub(self._channel)
        for event in itertools.cycle(self._events):
            if self._stop.wait(0.2):
                return
            request = events_pb2.PublishRequest(events=[event_to_message(event)])
            try:
                stub.Publish(request, timeout=2.0)
            except grpc.RpcError:
                self.refused += 1


@contextmanager
def deployment(folder: Path) -> Iterator[Deployment]:
    """Run everything while the block runs."""
    with ExitStack() as stack:
        broker = KafkaBroker(folder / "kafka")
        broker.start()
        stack.callback(broker.kill)
        yield Deployment(folder, broker, stack)


KILLS = ("trainer killed", "broker killed")
RESTARTS = ("first server restarted", "second server restarted")


def disturb(running: Deployment, minutes: float, names: Collection[str]) -> list[Phase]:
    """Lead callers through these disturbances, again and again for so long, at least once."""
    steps: dict[str, Callable[[], None]] = {
        "first server restarted": lambda: running.restart_server(0),
        "trainer killed": running.kill_trainer,
        "second server restarted": lambda: running.restart_server(1),
        "broker killed": running.kill_broker,
    }
    phases: list[Phase] = []
    end_s = time.monotonic() + 60.0 * minutes
    with (
        LoadClient(running.addresses, _THREADS, _PAUSE_S) as client,
        Publisher(running.addresses) as publisher,
    ):
        client.wait_for_answers(50)
        while not phases or time.monotonic() < end_s:
            wanted = [name for name in steps if name in names]
            phases.extend(_phase(name, steps[name], client, publisher) for name in wanted)
    return phases


def _phase(name: str, step: Callable[[], None], client: LoadClient, publisher: Publisher) -> Phase:
    load = client.load
    answered, failed, unlogged = load.answered, load.failures.total(), load.unlogged
    refused = publisher.refused
    step()
    client.wait_for_answers(50)
    milliseconds = 1e3 * np.array(load.seconds[answered:])
    return Phase(
        name=name,
        answered=len(milliseconds),
        failed=load.failures.total() - failed,
        unlogged=load.unlogged - unlogged,
        p50_ms=float(np.percentile(milliseconds, 50)),
        p99_ms=float(np.percentile(milliseconds, 99)),
        worst_ms=float(milliseconds.max()),
        refused_events=publisher.refused - refused,
    )


def table(phases: list[Phase]) -> str:
    """Return one row for each kind of disturbance, as Markdown."""
    rows = [
        "| disturbance | times | answered | failed | without impression | p50 ms | p99 ms |"
        " longest ms | events refused |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(phase.name for phase in phases):
        those = [phase for phase in phases if phase.name == name]
        rows.append(
            f"| {name} | {len(those)} | {sum(one.answered for one in those):,} "
            f"| {sum(one.failed for one in those)} | {sum(one.unlogged for one in those)} "
            f"| {np.median([one.p50_ms for one in those]):.0f} "
            f"| {np.median([one.p99_ms for one in those]):.0f} "
            f"| {max(one.worst_ms for one in those):.0f} "
            f"| {sum(one.refused_events for one in those)} |"
        )
    return "\n".join(rows)


def main() -> int:
    """Run a campaign; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="headrace-serving-") as folder,
        deployment(Path(folder)) as running,
    ):
        phases = disturb(running, given.minutes, (*KILLS, *RESTARTS))
    today = datetime.now(UTC).date().isoformat()
    print(f"{today}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(table(phases))
    failed = sum(phase.failed for phase in phases)
    answered = sum(phase.answered for phase in phases)
    print(f"\n{failed} of {failed + answered:,} calls of Recommend failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
