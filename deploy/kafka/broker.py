"""A Kafka on this machine, one broker or a cluster, from jars and without containers.

For tests, and for trying Headrace on a real Kafka:

    python deploy/kafka/broker.py                 one broker on 127.0.0.1:9092
    python deploy/kafka/broker.py --nodes 3       a cluster on free ports

runs until Ctrl-C. Needs Java 17 or newer and Maven, which fetches the jars of `pom.xml` once into
`$HEADRACE_CACHE` (`~/.cache/headrace`). It listens on the loopback address only: not a deployment.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

_HERE = Path(__file__).resolve().parent
_POM = _HERE / "pom.xml"

_CLUSTER_ID = "aGVhZHJhY2UtYnJva2VyMQ"  # any 16 bytes in base64: "headrace-broker1"

_PROPERTIES = """\
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# With the defaults (9 s) a broker that was killed is refused until its old session has run out.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
# Leaders that a killed broker had are handed out at once, and it gets them back soon after.
leader.imbalance.check.interval.seconds=5
"""

_INTERNAL_TOPICS = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")

_JAVA_FLAGS = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
"""A small heap and a quick start; peak speed does not matter here."""

_START_TIMEOUT_S = 120.0
"""It answers after about 4 s on two cores that have nothing else to do."""

_STOP_TIMEOUT_S = 20.0


class BrokerError(RuntimeError):
    """The broker cannot be fetched or started; the message says what is missing."""


def missing_programs() -> list[str]:
    """Return which of the needed programs are not installed; Maven only until it was used."""
    needed = ["java"] if _jars_folder().is_dir() else ["java", "mvn"]
    return [name for name in needed if shutil.which(name) is None]


def fetch_jars() -> Path:
    """Return the folder with the jars of `pom.xml`, downloading them the first time.

    Raises:
        BrokerError: a program is missing, or Maven failed.
    """
    if missing_programs():
        raise BrokerError(f"a Kafka broker needs {' and '.join(missing_programs())} installed")
    folder = _jars_folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        command = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies"]
        done = subprocess.run(
            [*command, f"-DoutputDirectory={aside}"], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BrokerError(f"Maven could not fetch the jars: {done.stdout[-500:].strip()}")
        # Renamed when complete; if another process was faster, its folder is as good.
        if not folder.is_dir():
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _jars_folder() -> Path:
    cache = os.environ.get("HEADRACE_CACHE")
    if not cache:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cache = str(caches / "headrace")
    return Path(cache) / f"kafka-{hashlib.sha256(_POM.read_bytes()).hexdigest()[:12]}"


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    # Below the range from which Linux takes the near end of connections: a client that keeps trying
    # a port of that range while the broker is down ends up connected to itself.
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@dataclass(frozen=True)
class Node:
    """Place of a broker in its cluster.

    Attributes:
        id: from 1.
        controllers: port of every node's controller, by node id; one entry is a cluster of one.
    """

    id: int = 1
    controllers: Mapping[int, int] = field(default_factory=lambda: {1: free_port()})


class KafkaBroker:
    """A broker that keeps its data in a folder, and can be stopped, killed and started again.

    Args:
        folder: made when it does not exist; a broker started on it again finds its old records.
        port: where clients connect; any free one when None.
        node: place in a cluster; None is a cluster of its own.
        listeners: further listeners, name to security protocol, each on a free port.
        properties: further settings of the broker; they win over ours.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        node: Node | None = None,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._node = node or Node()
        self._protocols = {"PLAINTEXT": "PLAINTEXT", **(listeners or {})}
        self._ports = {name: free_port() for name in self._protocols}
        self._ports["PLAINTEXT"] = port or self._ports["PLAINTEXT"]
        self._own_properties = dict(properties or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Return "host:port", as clients want it."""
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        """Return "host:port" of a listener."""
        return f"127.0.0.1:{self._ports[listener]}"

    def start(self) -> None:
        """Start the broker and wait until it answers.

        Raises:
            BrokerError: it did not come up; the message ends with its last lines.
        """
        self.launch()
        self.wait_until_it_answers()

    def launch(self) -> None:
        """Start the broker; nodes of a cluster answer only when most of them were launched.

        Raises:
            BrokerError: a program is missing, or the folder could not be formatted.
        """
        jars = fetch_jars()
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "server.properties"
        settings.write_text(self._properties())
        if not (self._folder / "data" / "meta.properties").exists():
            self._format(jars, settings)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                _java(jars, "kafka.Kafka", str(settings)), stdout=log, stderr=subprocess.STDOUT
            )

    def is_running(self) -> bool:
        """Return whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Shut the broker down in order; may be called when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker at once, as a crash would."""
        self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Wait until the broker ends by itself; returns its exit code."""
        assert self._process is not None, "start it first"
        return self._process.wait()

    def ask_to_stop(self) -> None:
        """Tell the broker to shut down, and do not wait for it."""
        if self.is_running():
            assert self._process is not None
            self._process.send_signal(signal.SIGTERM)

    def __enter__(self) -> KafkaBroker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self._folder / "broker.log"

    def _properties(self) -> str:
        node = self._node
        num_nodes = len(node.controllers)
        controller = f"CONTROLLER://127.0.0.1:{node.controllers[node.id]}"
        open_to_clients = [f"{name}://{self.address(name)}" for name in self._protocols]
        protocols = {**self._protocols, "CONTROLLER": "PLAINTEXT"}
        voters = [f"{one}@127.0.0.1:{port}" for one, port in node.controllers.items()]
        copies, in_sync = min(3, num_nodes), min(2, num_nodes)
        lines = {
            "node.id": str(node.id),
            "listeners": ",".join([*open_to_clients, controller]),
            "advertised.listeners": ",".join(open_to_clients),
            "listener.security.protocol.map": ",".join(
                f"{name}:{protocol}" for name, protocol in protocols.items()
            ),
            "controller.quorum.voters": ",".join(voters),
            "log.dirs": str(self._folder / "data"),
            "default.replication.factor": str(copies),
            **{f"{topic}.replication.factor": str(copies) for topic in _INTERNAL_TOPICS},
            **{f"{topic}.min.isr": str(in_sync) for topic in _INTERNAL_TOPICS[1:]},
            **self._own_properties,
        }
        return _PROPERTIES + "".join(f"{key}={value}\n" for key, value in lines.items())

    def _format(self, jars: Path, settings: Path) -> None:
        arguments = ("format", "-t", _CLUSTER_ID, "-c", str(settings))
        done = subprocess.run(
            _java(jars, "kafka.tools.StorageTool", *arguments),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerError(f"formatting {self._folder} failed: {done.stdout}{done.stderr}")

    def wait_until_it_answers(self) -> None:
        """Wait for the line that says so.

        Raises:
            BrokerError: it ended, or took too long; the message ends with its last lines.
        """
        assert self._process is not None
        deadline = time.monotonic() + _START_TIMEOUT_S
        while b"Kafka Server started" not in self._log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                last_lines = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
                raise BrokerError(f"the broker did not start:\n{last_lines}")
            time.sleep(0.05)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class KafkaCluster:
    """Several brokers, each of which can be killed and started again.

    Args:
        folder: has one folder for each node.
        num_nodes: they are numbered from 1.
        port: of node 1, the others count up from it; any free ones when None.
    """

    def __init__(self, folder: Path, *, num_nodes: int = 3, port: int | None = None) -> None:
        ids = range(1, num_nodes + 1)
        controllers = {one: free_port() for one in ids}
        self._nodes = {
            one: KafkaBroker(
                folder / f"node-{one}",
                port=port + one - 1 if port else None,
                node=Node(one, controllers),
            )
            for one in ids
        }

    @property
    def bootstrap(self) -> str:
        """Return "host:port" of every node, separated by commas."""
        return ",".join(node.bootstrap for node in self._nodes.values())

    def start(self, node: int | None = None) -> None:
        """Start one node, or all that do not run, and wait until they answer.

        Raises:
            BrokerError: one did not come up; the message ends with its last lines.
        """
        chosen = self._nodes.values() if node is None else [self._nodes[node]]
        starting = [one for one in chosen if not one.is_running()]
        for one in starting:
            one.launch()
        for one in starting:
            one.wait_until_it_answers()

    def kill(self, node: int | None = None) -> None:
        """End one node, or all, at once, as a crash would."""
        for one in self._nodes.values() if node is None else [self._nodes[node]]:
            one.kill()

    def stop(self) -> None:
        """Shut all nodes down in order; may be called when none runs."""
        for one in self._nodes.values():
            one.ask_to_stop()
        for one in self._nodes.values():
            one.stop()

    def wait(self) -> int:
        """Wait until any node ends by itself; returns its number."""
        while True:
            for number, one in self._nodes.items():
                if not one.is_running():
                    return number
            time.sleep(0.2)

    def __enter__(self) -> KafkaCluster:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _java(jars: Path, main_class: str, *arguments: str) -> list[str]:
    log_settings = f"-Dlog4j2.configurationFile={_HERE / 'log4j2.properties'}"
    return ["java", *_JAVA_FLAGS, log_settings, "-cp", f"{jars}/*", main_class, *arguments]


def main() -> int:
    """Run a broker or a cluster until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Run a Kafka on this machine until Ctrl-C.")
    parser.add_argument("--nodes", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--port", type=int, help="of the first node; default: 9092 for one node, else free ports"
    )
    parser.add_argument(
        "--data", type=Path, help="folder; default: kafka-data, with more nodes kafka-data-NODES"
    )
    options = parser.parse_args()
    if not 1 <= options.nodes <= 9:
        parser.error(f"--nodes must be 1 to 9, got {options.nodes}")
    one = options.nodes == 1
    data = options.data or Path("kafka-data" if one else f"kafka-data-{options.nodes}")
    port = options.port or (9092 if one else None)
    # Of both: what a shell starts in the background ignores Ctrl-C unless it says otherwise.
    for one_signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one_signal, signal.default_int_handler)
    try:
        cluster = KafkaCluster(data, num_nodes=options.nodes, port=port)
        with cluster:
            print(f"kafka://{cluster.bootstrap} answers; Ctrl-C stops it", flush=True)
            number = cluster.wait()
            print(f"node {number} has ended; see {data}/node-{number}/broker.log", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
