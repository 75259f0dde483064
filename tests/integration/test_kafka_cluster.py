"""A real cluster of three nodes, of which one dies while it leads; and `make kafka`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy.kafka.broker import KafkaCluster, free_port, missing_programs
from domain.errors import LogError, LogUnavailableError
from domain.event_log import Positions, advance
from domain.events import Feedback
from stream.codec import decode
from stream.kafka_settings import KafkaConfig
from tests.kafka_broker import KafkaLog, admin, fresh_config, give_up, started

ROOT = Path(__file__).parents[2]
NUM_USERS = 5
SOON_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with started(KafkaCluster(tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster


@pytest.fixture
def config(cluster: KafkaCluster) -> KafkaConfig:
    return fresh_config(
        at=cluster.bootstrap, num_partitions=3, replication_factor=3, min_insync_replicas=2
    )


class Writer(threading.Thread):
    """Appends clicks, ten at a time, until told to stop; repeats what was not acknowledged.

    Attributes:
        num_acknowledged: all events below this number are in the log.
        repeats: batches that were appended again because nothing was known about them.
    """

    def __init__(self, log: KafkaLog) -> None:
        super().__init__()
        self.log = log
        self.num_acknowledged = 0
        self.repeats = 0
        self.error: Exception | None = None
        self.stopping = threading.Event()

    def run(self) -> None:
        try:
            while not self.stopping.is_set():
                numbers = range(self.num_acknowledged, self.num_acknowledged + 10)
                self._append([click(number) for number in numbers])
                self.num_acknowledged += 10
        except LogError as error:
            self.error = error

    def _append(self, events: list[Feedback]) -> None:
        try:
            self.log.append(events)
        except LogUnavailableError:
            self.repeats += 1
            self._append(events)


class Reader:
    """Reads on from where it stands, as a trainer does."""

    def __init__(self, log: KafkaLog) -> None:
        self.log = log
        self.positions: Positions = {}
        self.numbers: list[int] = []

    def read_to(self, num_events: int) -> None:
        deadline = time.monotonic() + SOON_S
        while len(self.numbers) < num_events:
            assert time.monotonic() < deadline, f"{len(self.numbers)} of {num_events} came"
            try:
                records = self.log.read(self.positions, max_records=500, timeout_s=0.1)
            except LogUnavailableError:
                continue
            self.positions = advance(self.positions, records)
            self.numbers += [int(decode(record.value).event_id) for record in records]


def click(number: int) -> Feedback:
    user_id = f"u{number % NUM_USERS}"
    return Feedback(
        event_id=str(number), time_ms=1 + number, user_id=user_id, item_id="i", kind="click"
    )


def leaders(cluster: KafkaCluster, topic: str) -> dict[int, int]:
    """Return the node that leads each partition."""
    with admin(cluster.bootstrap) as client:
        (found,) = client.describe_topics([topic])
    return {one["partition_index"]: one["leader_id"] for one in found["partitions"]}


def log_that_wants_all_copies(cluster: KafkaCluster) -> KafkaLog:
    config = fresh_config(
        at=cluster.bootstrap,
        num_partitions=1,
        replication_factor=3,
        min_insync_replicas=3,
        request_timeout_ms=1_000,
        append_timeout_ms=2_000,
    )
    log = KafkaLog(cluster.bootstrap, config)
    append_when_possible(log)
    return log


def append_for_a_while(log: KafkaLog) -> None:
    """Append until refused: a node that was killed counts as a copy for a moment longer."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        log.append([click(0)])


def append_when_possible(log: KafkaLog) -> None:
    deadline = time.monotonic() + SOON_S
    while True:
        try:
            log.append([click(0)])
        except LogUnavailableError:
            assert time.monotonic() < deadline
        else:
            return


def test_nothing_is_lost_doubled_or_reordered_when_a_leader_dies(
    cluster: KafkaCluster, config: KafkaConfig
) -> None:
    strict = log_that_wants_all_copies(cluster)
    with closing(strict), closing(KafkaLog(cluster.bootstrap, config)) as log:
        writer, reader = Writer(log), Reader(KafkaLog(cluster.bootstrap, config))
        writer.start()
        try:
            reader.read_to(100)
            leader = leaders(cluster, config.events_topic)[0]
            cluster.kill(leader)
            # Writing and reading go on with two of three nodes.
            reader.read_to(writer.num_acknowledged + 100)
            assert leaders(cluster, config.events_topic)[0] != leader
            with pytest.raises(LogUnavailableError):
                append_for_a_while(strict)
            cluster.start(leader)
            append_when_possible(strict)
            reader.read_to(writer.num_acknowledged + 100)
        finally:
            writer.stopping.set()
            writer.join()
        reader.read_to(writer.num_acknowledged)
        reader.log.close()
    assert writer.error is None
    assert writer.repeats == 0, "an idempotent producer outlives a leader"
    assert sorted(reader.numbers) == list(range(writer.num_acknowledged))
    for user in range(NUM_USERS):
        mine = [number for number in reader.numbers if number % NUM_USERS == user]
        assert mine == sorted(mine)


def test_command_runs_a_broker_until_it_is_interrupted(tmp_path: Path) -> None:
    if missing_programs():
        give_up(f"a Kafka broker needs {' and '.join(missing_programs())} installed")
    script = ROOT / "deploy" / "kafka" / "broker.py"
    command = [sys.executable, str(script), "--port", str(free_port()), "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            line = running.stdout.readline()
            found = re.fullmatch(r"kafka://(127\.0\.0\.1:\d+) answers; Ctrl-C stops it\n", line)
            assert found, line
            with closing(KafkaLog(found[1], fresh_config(at=found[1]))) as log:
                log.append([click(1)])
            running.send_signal(signal.SIGINT)
            assert running.wait(SOON_S) == 0
        finally:
            running.terminate()
    assert (tmp_path / "node-1" / "data" / ".kafka_cleanshutdown").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "deploy/kafka/broker.py --nodes 1"),
        (["NODES=3"], "deploy/kafka/broker.py --nodes 3"),
        (["NODES=3", "PORT=9092"], "deploy/kafka/broker.py --nodes 3 --port 9092"),
    ],
)
def test_make_kafka_hands_its_numbers_on(given: list[str], expected: str) -> None:
    # `make test` may have started this: its flags are not for this make.
    surroundings = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    ended = subprocess.run(
        ["make", "-n", "--no-print-directory", "kafka", *given],
        cwd=ROOT,
        env=surroundings,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines()[-1].rstrip().endswith(expected)
