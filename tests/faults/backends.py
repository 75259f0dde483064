"""The two logs of the campaign: how each is filled, read back and named on a command line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Protocol

from deploy.kafka.broker import KafkaBroker
from domain.event_log import DeadLetter, EventLog, Record
from domain.events import ItemUpdate
from replay.stream_noise import Arrival
from stream.codec import encode
from stream.kafka_settings import KafkaConfig
from stream.sqlite_log import SqliteLog
from tests.kafka_broker import KafkaLog, create_topics

_SLICE = 25
"""Arrivals appended at once: records of Kafka are merged by their time of appending, so a log that
is filled in many small steps mixes its partitions as a live one does."""


class TestLog(Protocol):
    """One log that a run is made on."""

    __test__ = False

    @property
    def backend(self) -> str:
        """Return "sqlite" or "kafka"."""

    @property
    def url(self) -> str:
        """Return what `--log` takes."""

    @property
    def settings(self) -> list[str]:
        """Return the settings that go with the URL."""

    def open(self) -> EventLog:
        """Open the log, in this process."""


@dataclass(frozen=True, slots=True)
class SqliteTestLog:
    """An embedded log in a folder."""

    path: Path
    backend: str = "sqlite"

    @property
    def url(self) -> str:
        """Return what `--log` takes."""
        return f"sqlite://{self.path}"

    @property
    def settings(self) -> list[str]:
        """Return the settings that go with the URL: none."""
        return []

    def open(self) -> EventLog:
        """Open the log, in this process."""
        return SqliteLog(self.path)


@dataclass(frozen=True, slots=True)
class KafkaTestLog:
    """Topics of their own in a broker: three partitions of events, three of items."""

    bootstrap: str
    prefix: str
    backend: str = "kafka"

    @property
    def url(self) -> str:
        """Return what `--log` takes."""
        return f"kafka://{self.bootstrap}"

    @property
    def settings(self) -> list[str]:
        """Return the settings that go with the URL."""
        config = self.config
        names = ("topic_prefix", "group", "num_partitions", "request_timeout_ms")
        return [f"kafka.{name}={getattr(config, name)}" for name in names]

    @property
    def config(self) -> KafkaConfig:
        """Return the settings as a component reads them."""
        return KafkaConfig(
            topic_prefix=self.prefix,
            group=self.prefix,
            num_partitions=3,
            # A broker that was killed answers again after four seconds.
            request_timeout_ms=5_000,
            append_timeout_ms=20_000,
        )

    def create(self) -> KafkaTestLog:
        """Create the topics."""
        create_topics(self.bootstrap, self.config)
        return self

    def open(self) -> EventLog:
        """Open the log, in this process."""
        return KafkaLog(self.bootstrap, self.config)


_NUMBERS = itertools.count()


def kafka_test_log(broker: KafkaBroker, name: str) -> KafkaTestLog:
    """Return a log in topics that nobody else uses."""
    return KafkaTestLog(broker.bootstrap, f"faults-{name}-{next(_NUMBERS)}").create()


@contextmanager
def opened(test_log: TestLog) -> Iterator[EventLog]:
    """Open a log while the block runs."""
    log = test_log.open()
    try:
        yield log
    finally:
        log.close()


def append_arrivals(log: EventLog, arrivals: Sequence[Arrival]) -> None:
    """Append events and broken records in their order of arrival."""
    for is_raw, group in groupby(arrivals, lambda arrival: not _is_about_item(arrival)):
        if is_raw:
            log.append_raw([(one.key, _bytes_of(one)) for one in group])
        else:
            log.append([one.event for one in group if one.event is not None])


def fill(test_log: TestLog, arrivals: Sequence[Arrival]) -> None:
    """Append everything before anybody reads."""
    with opened(test_log) as log:
        for first in range(0, len(arrivals), _SLICE):
            append_arrivals(log, arrivals[first : first + _SLICE])


def read_all(test_log: TestLog) -> tuple[list[Record], list[DeadLetter]]:
    """Return all that a log holds, in the order in which it is read, and all that was set aside."""
    with opened(test_log) as log:
        positions, ends = log.beginning_positions(), log.end_positions()
        records: list[Record] = []
        while any(positions.get(name, 0) < end for name, end in ends.items()):
            for record in log.read(positions, max_records=5_000, timeout_s=1.0):
                records.append(record)
                positions[record.partition] = record.offset + 1
        return records, log.dead_letters()


def _is_about_item(arrival: Arrival) -> bool:
    return isinstance(arrival.event, ItemUpdate)


def _bytes_of(arrival: Arrival) -> bytes:
    return arrival.raw if arrival.event is None else encode(arrival.event)
