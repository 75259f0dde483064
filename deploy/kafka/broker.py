"""One Kafka broker on this machine, from jars and without containers.

For tests, and for trying Headrace on a real Kafka:

    python deploy/kafka/broker.py --port 9092 --data kafka-data

runs it until Ctrl-C. Needs Java 17 or newer and Maven, which fetches the jars of `pom.xml` once
into `$HEADRACE_CACHE` (`~/.cache/headrace`). It listens on the loopback address only and has no
replicas: not a deployment.
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
from pathlib import Path
from types import TracebackType

_HERE = Path(__file__).resolve().parent
_POM = _HERE / "pom.xml"

_CLUSTER_ID = "aGVhZHJhY2UtYnJva2VyMQ"  # any 16 bytes in base64: "headrace-broker1"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# With the defaults (9 s) a broker that was killed is refused until its old session has run out.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
"""

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


def _free_port() -> int:
    # Below the range from which Linux takes the near end of connections: a client that keeps trying
    # a port of that range while the broker is down ends up connected to itself.
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class KafkaBroker:
    """A broker that keeps its data in a folder, and can be stopped, killed and started again.

    Args:
        folder: made when it does not exist; a broker started on it again finds its old records.
        port: where clients connect; any free one when None.
    """

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self._folder = folder.resolve()
        self._port = port or _free_port()
        self._controller_port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Return "host:port", as clients want it."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the broker and wait until it answers.

        Raises:
            BrokerError: it did not come up; the message ends with its last lines.
        """
        jars = fetch_jars()
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "server.properties"
        settings.write_text(
            _PROPERTIES.format(
                port=self._port,
                controller_port=self._controller_port,
                data=self._folder / "data",
            )
        )
        if not (self._folder / "data" / "meta.properties").exists():
            self._format(jars, settings)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                _java(jars, "kafka.Kafka", str(settings)), stdout=log, stderr=subprocess.STDOUT
            )
        self._wait_until_it_answers()

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

    def _wait_until_it_answers(self) -> None:
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


def _java(jars: Path, main_class: str, *arguments: str) -> list[str]:
    log_settings = f"-Dlog4j2.configurationFile={_HERE / 'log4j2.properties'}"
    return ["java", *_JAVA_FLAGS, log_settings, "-cp", f"{jars}/*", main_class, *arguments]


def main() -> int:
    """Run a broker until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="Run one Kafka broker on this machine.")
    parser.add_argument("--port", type=int, default=9092, help="default: 9092")
    parser.add_argument("--data", type=Path, default=Path("kafka-data"), help="default: kafka-data")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with KafkaBroker(options.data, port=options.port) as broker:
            print(f"kafka://{broker.bootstrap} answers; Ctrl-C stops it", flush=True)
            return broker.wait()
    except KeyboardInterrupt:
        return 0
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
