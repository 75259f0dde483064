"""`headrace train` on a real Kafka of several partitions, killed, and learned again to the bit."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from domain.events import Event
from replay.simulator import SimulatedDataset
from snapshot.local_store import LocalSnapshotStore
from stream.journal_files import JournalFolder
from stream.kafka_settings import KafkaConfig
from tests.kafka_broker import KafkaLog, bootstrap, fresh_config, own_broker
from tests.loop_worlds import tiny_scenario
from tests.process_helpers import (
    START_S,
    Headrace,
    flags,
    free_port,
    headrace,
    run_headrace,
    wait_until,
    write_schema,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SCENARIO = tiny_scenario(60)
TRAINING = (
    "joiner.attribution_window_ms=360_000",
    "batcher.max_examples=40",
    "checkpoint.every_s=0.2",
    "snapshot.keep=3",
)


def _shared(tmp_path: Path, config: KafkaConfig) -> list[str]:
    """Flags that name the data folder, the topics and the schema."""
    topics = (
        f"kafka.topic_prefix={config.topic_prefix}",
        f"kafka.group={config.group}",
        f"kafka.num_partitions={config.num_partitions}",
    )
    return [
        *("--data-dir", str(tmp_path / "data"), "--log", f"kafka://{bootstrap()}"),
        *write_schema(tmp_path / "schema.toml", SimulatedDataset(SCENARIO).schema),
        *flags(*TRAINING, *topics),
    ]


def _reached(data_dir: Path) -> int:
    """How many records the current snapshot of a folder holds."""
    store = LocalSnapshotStore(data_dir / "snapshots")
    if store.current_id() is None:
        return -1
    return sum(store.load_current(components=()).manifest.positions.values())


def _until(trainer: Headrace, condition: Callable[[], bool], what: str) -> None:
    """Wait until something is true; a trainer that ended instead has its last words shown."""
    wait_until(lambda: trainer.process.poll() is not None or condition(), START_S, what)
    assert trainer.process.poll() is None, trainer.said


def _produce(log: KafkaLog, events: Sequence[Event]) -> None:
    """Append events a few at a time, while a trainer reads."""
    for start in range(0, len(events), 5):
        log.append(events[start : start + 5])


def test_killed_trainer_on_several_partitions_is_learned_again_to_the_bit(tmp_path: Path) -> None:
    config = fresh_config(num_partitions=3)
    shared, data_dir = _shared(tmp_path, config), tmp_path / "data"
    events = list(SimulatedDataset(SCENARIO).events())
    third = len(events) // 3
    log = KafkaLog(bootstrap(), config)
    log.append(events[:third])
    with headrace("train", *shared, output=tmp_path / "first.log") as trainer:
        _until(trainer, lambda: _reached(data_dir) >= 0, "a first snapshot")
        _produce(log, events[third : 2 * third])
        _until(trainer, lambda: _reached(data_dir) >= third, "a snapshot of the first third")
        trainer.process.send_signal(signal.SIGKILL)
        assert trainer.wait() == -signal.SIGKILL, trainer.said
    with headrace("train", *shared, output=tmp_path / "second.log") as trainer:
        _produce(log, events[2 * third :])
        _until(trainer, lambda: _reached(data_dir) >= len(events) - 5, "a snapshot of nearly all")
        trainer.process.terminate()
        assert trainer.wait() == 0, trainer.said
    log.close()
    assert _reached(data_dir) == len(events)

    journal = data_dir / "journal"
    status, said = run_headrace(
        "replay", "--journal", str(journal), *shared, output=tmp_path / "replay.log"
    )
    assert status == 0, said
    assert "beginning with nothing learned: equal to the bit" in said
    manifest = LocalSnapshotStore(data_dir / "snapshots").load_current(components=()).manifest
    chain = JournalFolder(journal).chain(manifest.extra["journal"])
    runs = [run for _, segment in chain for run in segment.runs]
    assert len({run.partition for run in runs}) >= 4  # three of events, some of items
    assert len(runs) > 20  # they did meet in another order than one after the other


def _page(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5.0) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_trainer_waits_for_a_broker_that_is_down_at_start(tmp_path: Path) -> None:
    broker = own_broker()
    config = fresh_config(num_partitions=1)
    port = free_port()
    shared = [*_shared(tmp_path, config), "--set", f"metrics.trainer_port={port}"]
    shared += ["--set", "kafka.request_timeout_ms=2000", "--set", "trainer.unready_after_s=1"]
    broker.kill()
    try:
        with headrace("train", *shared, output=tmp_path / "trainer.log") as trainer:
            reason = "the event log has not answered a read"
            _until(trainer, lambda: reason in _page(port, "readyz")[1], "it says why not")
            assert _page(port, "readyz")[0] == 503
            assert _page(port, "healthz")[0] == 200
            broker.start()
            _until(trainer, lambda: _page(port, "readyz")[0] == 200, "it goes on by itself")
            broker.kill()
            _until(trainer, lambda: _page(port, "readyz")[0] == 503, "it misses the broker")
            broker.start()
            _until(trainer, lambda: _page(port, "readyz")[0] == 200, "it is back")
            trainer.process.terminate()
            assert trainer.wait() == 0, trainer.said
            assert 1 <= trainer.said.count("log unavailable, trying until it is back") <= 2
            assert "logger=kafka." not in trainer.said
            assert "Traceback" not in trainer.said
    finally:
        if not broker.is_running():
            broker.start()


def test_trainer_that_waits_for_a_broker_can_be_told_to_stop(tmp_path: Path) -> None:
    shared = ["--data-dir", str(tmp_path), "--log", f"kafka://127.0.0.1:{free_port()}"]
    with headrace(
        "train", *shared, *flags("kafka.request_timeout_ms=1000"), output=tmp_path / "log"
    ) as trainer:
        wait_until(lambda: "log unavailable" in trainer.said, START_S, "it says that it waits")
        trainer.process.terminate()
        assert trainer.wait() == 0, trainer.said
    assert trainer.said.count("log unavailable") == 1


def test_missing_topics_are_an_exit_not_a_wait(tmp_path: Path) -> None:
    shared = ["--data-dir", str(tmp_path), "--log", f"kafka://{bootstrap()}"]
    settings = flags("kafka.topic_prefix=nobody-made-these")
    status, said = run_headrace("train", *shared, *settings, output=tmp_path / "log")
    assert status == 1, said
    assert "nobody-made-these.events" in said
    assert "Traceback" not in said
