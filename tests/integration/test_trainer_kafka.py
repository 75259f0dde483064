"""A trainer on a real Kafka: what it commits, what it waits out, and what it never doubles."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event as StopSignal
from typing import Any

import pytest

from domain.errors import LogPositionError
from domain.events import Event
from stream.kafka_settings import CONSUMER_OPTIONS, KafkaConfig
from tests.kafka_broker import KafkaLog, bootstrap, delete_records, fresh_config
from tests.loop_trace import Trace
from tests.loop_worlds import tiny_settings, tiny_world
from tests.trainer_worlds import Workshop

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SETTINGS = ("trainer.max_records=25", "trainer.poll_timeout_s=0.05", "checkpoint.every_s=1")


@pytest.fixture(scope="module")
def world() -> tuple[Any, list[Event]]:
    return tiny_world(30)


class KafkaWorkshop(Workshop):
    """A workshop whose log is in Kafka."""

    def __init__(self, folder: Path, schema: Any, config: KafkaConfig) -> None:
        super().__init__(folder, schema, tiny_settings(*SETTINGS))
        self.kafka = KafkaLog(bootstrap(), config)
        self.events = f"{config.events_topic}/0"

    def close(self) -> None:
        self.kafka.close()
        super().close()


@pytest.fixture
def workshop(tmp_path: Path, world: Any) -> Iterator[KafkaWorkshop]:
    workshop = KafkaWorkshop(tmp_path, world[0], fresh_config(num_partitions=1))
    yield workshop
    workshop.close()


def test_positions_are_committed_only_once_a_snapshot_holds_them(
    workshop: KafkaWorkshop, world: Any
) -> None:
    workshop.kafka.append(world[1])
    told: list[tuple[dict[str, int], dict[str, int]]] = []

    def look() -> None:
        before = workshop.published[-1][1] if workshop.published else {}
        told.append((workshop.kafka.committed(), before))

    workshop.run_to_end(log=workshop.kafka, before_publish=look)
    assert len(told) > 2
    for committed, published in told:
        assert committed == published
    end = workshop.kafka.end_positions()
    assert workshop.kafka.committed() == end
    assert workshop.store().load("current").manifest.positions == end
    assert workshop.loop.counts.events == len(world[1])


def test_learner_that_stands_still_longer_than_the_longest_poll_interval_loses_nothing(
    workshop: KafkaWorkshop, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**CONSUMER_OPTIONS, "max_poll_interval_ms": 600}
    monkeypatch.setattr("stream.kafka_client.CONSUMER_OPTIONS", options)
    workshop.settings = tiny_settings(*SETTINGS, "trainer.queue_events=16")
    workshop.kafka.append(world[1])
    watcher = Trace()
    watcher.when_asked = lambda demand: time.sleep(2.0) if demand.ordinal == 3 else None
    trainer = workshop.trainer(log=workshop.kafka, observers=(watcher,))
    trainer.run(StopSignal(), until_end=True)
    assert trainer.positions == workshop.kafka.committed() == workshop.kafka.end_positions()
    assert workshop.loop.counts.events == len(world[1])
    assert workshop.loop.counts.duplicates == 0
    assert workshop.count("stream_log_failures_total") == 0.0


def test_retention_that_was_faster_is_a_choice(workshop: KafkaWorkshop, world: Any) -> None:
    workshop.kafka.append(world[1][:60])
    workshop.run_to_end(log=workshop.kafka)
    held = workshop.kafka.end_positions()[workshop.events]
    workshop.kafka.append(world[1][60:])
    delete_records(workshop.events, held + 10)
    with pytest.raises(LogPositionError, match=f"{workshop.events} lost 10 records before"):
        workshop.run_to_end(log=workshop.kafka)
    workshop.settings = tiny_settings(*SETTINGS, "trainer.on_gap=skip")
    workshop.run_to_end(log=workshop.kafka)
    assert workshop.count("stream_lost_records_total", partition=workshop.events) == 10.0
    assert workshop.loop.counts.events == len(world[1]) - 10
