"""What callers are told, and what the log has, while a real broker dies and comes back.

Everything goes through gRPC: a server that publishes to Kafka, and callers with deadlines.
"""

from __future__ import annotations

import gc
import itertools
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from domain.event_log import EventLog, advance
from domain.events import Event, Feedback, ItemUpdate
from serving.publish import PublisherConfig
from serving.recommend import RecommenderConfig
from stream.codec import decode
from stream.deduplicator import Deduplicator
from stream.kafka_settings import KafkaConfig
from tests import kafka_broker
from tests.unit.serving.running_server import RunningServer, items_of, until

DEADLINE_S = 20.0
"""Far longer than the server waits for the log: a caller must be answered, not cut off."""

LOG_TIMEOUT_MS = 1_000
SOON_S = 40.0


@pytest.fixture(autouse=True)
def sockets_may_leak() -> Iterator[None]:
    """Collect the sockets that kafka-python forgets to close when a broker refuses to connect."""
    client_logger = logging.getLogger("kafka")
    client_logger.setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
    client_logger.setLevel(logging.NOTSET)


def hasty(config: KafkaConfig) -> KafkaConfig:
    return replace(config, request_timeout_ms=500, append_timeout_ms=2_000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    config = hasty(kafka_broker.fresh_config())
    running = RunningServer(
        tmp_path,
        log=kafka_broker.KafkaLog(kafka_broker.bootstrap(), config),
        publisher=PublisherConfig(log_timeout_ms=LOG_TIMEOUT_MS),
        recommender=RecommenderConfig(log_timeout_ms=LOG_TIMEOUT_MS),
    )
    running.start()
    yield running
    running.close()


@dataclass
class Caller:
    """Publishes a click and an item's news at a time, again and again under the same ids until
    they are acknowledged.
    """

    number: int
    server: RunningServer
    stop: threading.Event
    acknowledged: list[str] = field(default_factory=list)
    refusals: list[tuple[grpc.StatusCode, float]] = field(default_factory=list)

    def run(self) -> None:
        for n in itertools.count():
            if self.stop.is_set():
                return
            events = self._events(n)
            while not self._publish(events):
                if self.stop.is_set():
                    return

    def _events(self, n: int) -> list[Event]:
        name = f"{self.number}-{n}"
        click = Feedback(
            event_id=f"c{name}", time_ms=1 + n, user_id=f"u{n % 7}", item_id="i1", kind="click"
        )
        news = ItemUpdate(event_id=f"n{name}", time_ms=1 + n, item_id=f"i{n % 5}")
        return [click, news]

    def _publish(self, events: list[Event]) -> bool:
        started = time.monotonic()
        try:
            self.acknowledged += self.server.publish(*events, timeout_s=DEADLINE_S)
        except grpc.RpcError as error:
            self.refusals.append((error.code(), time.monotonic() - started))
            time.sleep(0.05)
            return False
        return True


def everything_in(log: EventLog, at_least: int) -> list[str]:
    """The ids in a log, in order, repeated ones too."""
    ids: list[str] = []
    positions: dict[str, int] = {}
    deadline = time.monotonic() + SOON_S
    while records := log.read(positions, max_records=1_000, timeout_s=0.5):
        ids += [decode(record.value).event_id for record in records]
        positions = advance(positions, records)
        assert time.monotonic() < deadline
    assert len(ids) >= at_least
    return ids


def test_what_was_acknowledged_is_in_the_log_when_the_broker_was_killed_meanwhile(
    server: RunningServer,
) -> None:
    broker, stop = kafka_broker.own_broker(), threading.Event()
    server.serve("s1")
    callers = [Caller(number, server, stop) for number in range(3)]
    threads = [threading.Thread(target=caller.run) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        until(lambda: all(len(caller.acknowledged) >= 20 for caller in callers), SOON_S)
        broker.kill()
        until(lambda: all(caller.refusals for caller in callers), SOON_S)
        check_answers_go_out_without_an_impression_id(server)
    finally:
        broker.start()
        before = [len(caller.acknowledged) for caller in callers]
        try:
            # Nobody restarted the server: it goes on by itself.
            until(
                lambda: all(
                    len(caller.acknowledged) >= count + 20
                    for caller, count in zip(callers, before, strict=True)
                ),
                SOON_S,
            )
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    acknowledged = [one for caller in callers for one in caller.acknowledged]
    impression = server.recommend("ann").impression_id
    found = everything_in(server.log, len(acknowledged))
    assert set(found) >= {*acknowledged, impression}, "an acknowledged event is not in the log"
    assert len(set(acknowledged)) == len(acknowledged)
    deduplicator = Deduplicator()
    effects = [one for one in found if not deduplicator.seen(one, 1)]
    assert sorted(effects) == sorted(set(found)), "each has its effect once, however often stored"
    refusals = [refusal for caller in callers for refusal in caller.refusals]
    assert {code for code, _ in refusals} == {grpc.StatusCode.UNAVAILABLE}
    assert max(seconds for _, seconds in refusals) < DEADLINE_S / 2


def check_answers_go_out_without_an_impression_id(server: RunningServer) -> None:
    """Nobody is told that an impression counts while the log does not have it."""
    answer = server.recommend("ann", timeout_s=DEADLINE_S)
    assert items_of(answer) == ["i9", "i8", "i7"]
    assert answer.impression_id == ""
    assert server.metrics.impression_log_failures._value.get() >= 1


def test_no_more_callers_wait_for_a_log_that_is_away_than_may(tmp_path: Path) -> None:
    nowhere: Any = kafka_broker.KafkaLog("127.0.0.1:1", hasty(KafkaConfig()))
    running = RunningServer(
        tmp_path,
        log=nowhere,
        publisher=PublisherConfig(log_timeout_ms=3_000, max_concurrency=2),
    )
    for part in (running.impression_log, running.handle):
        part.start()
    codes: list[grpc.StatusCode] = []

    def publish(number: int) -> None:
        event = Feedback(event_id=f"{number}", time_ms=1, user_id="u", item_id="i", kind="click")
        try:
            running.publish(event, timeout_s=DEADLINE_S)
        except grpc.RpcError as error:
            codes.append(error.code())

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(code.name for code in codes) == ["RESOURCE_EXHAUSTED"] * 4 + ["UNAVAILABLE"] * 2
    running.close()
