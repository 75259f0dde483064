"""What only the Kafka log can break: topics, partitions that run at different speed, a broker that
dies and comes back.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.errors import ConfigError, LogError, LogUnavailableError
from domain.event_log import DeadLetter, Positions, Record, advance
from domain.events import Event, Feedback, ItemUpdate, UserUpdate
from stream.codec import decode
from stream.kafka_settings import KafkaConfig
from tests import kafka_broker
from tests.kafka_broker import (
    ConfigResource,
    KafkaLog,
    admin,
    bootstrap,
    fresh_config,
    own_broker,
    send,
)


def click(number: int, user: int = 0) -> Feedback:
    return Feedback(
        event_id=f"e{number:05d}", time_ms=1 + number, user_id=f"u{user}", item_id="i", kind="click"
    )


def read_on(log: KafkaLog, positions: Positions | None = None) -> list[Record]:
    """Read until the brokers say that there is no more."""
    positions = positions or {}
    records: list[Record] = []
    while batch := log.read(positions, max_records=100, timeout_s=0.0):
        records += batch
        positions = advance(positions, batch)
    return records


def append_for_ever(log: KafkaLog) -> None:
    for number in itertools.count():
        log.append([click(number)])


@pytest.fixture
def config() -> KafkaConfig:
    return fresh_config()


@pytest.fixture
def log(config: KafkaConfig) -> Iterator[KafkaLog]:
    with closing(KafkaLog(bootstrap(), config)) as log:
        yield log


def test_item_updates_go_to_a_topic_of_their_own(log: KafkaLog, config: KafkaConfig) -> None:
    user = UserUpdate(event_id="a", time_ms=1, user_id="u")
    item = ItemUpdate(event_id="b", time_ms=2, item_id="i")
    log.append([user, item])
    found = {record.partition.rpartition("/")[0]: record for record in read_on(log)}
    assert decode(found[config.events_topic].value) == user
    assert decode(found[config.items_topic].value) == item
    assert (found[config.events_topic].key, found[config.items_topic].key) == ("u", "i")


def test_items_topic_is_compacted_and_dead_letters_stay(config: KafkaConfig) -> None:
    names = (config.events_topic, config.items_topic, config.dead_letters_topic)
    with admin() as client:
        found = client.describe_configs([ConfigResource("topic", name) for name in names])["topic"]
    assert found[config.events_topic]["retention.ms"]["value"] == str(config.retention_ms)
    assert found[config.items_topic]["cleanup.policy"]["value"] == "compact"
    assert found[config.dead_letters_topic]["retention.ms"]["value"] == "-1"


def test_backlog_is_read_by_time_and_not_partition_by_partition(log: KafkaLog) -> None:
    long = {"text": "x" * 20_000}  # so that one fetch, 1 MiB, holds a quarter of the backlog
    for batch in range(20):
        # One user gets ten times as much as the others, and as the items topic.
        users = [0] * 10 + list(range(1, 9))
        events: list[Event] = [
            replace(click(100 * batch + n, user), context=long) for n, user in enumerate(users)
        ]
        events += [
            ItemUpdate(event_id=f"e{100 * batch + 50 + n:05d}", time_ms=1, item_id=f"i{n}")
            for n in range(5)
        ]
        log.append(events)
        time.sleep(0.002)  # Kafka's timestamps are whole milliseconds
    records = read_on(log)
    batches = [int(decode(record.value).event_id[1:]) // 100 for record in records]
    assert batches == sorted(batches)
    assert len({record.partition for record in records}) == 4
    assert len(records) == 20 * 23


def test_partition_added_while_running_is_read_by_itself(config: KafkaConfig) -> None:
    curious = replace(config, metadata_max_age_ms=100)
    with closing(KafkaLog(bootstrap(), curious)) as log:
        log.append([click(n, user=n) for n in range(20)])
        records = read_on(log)
        with admin() as client:
            client.create_partitions({config.events_topic: 5})
        with closing(KafkaLog(bootstrap(), curious)) as other:
            # The broker says yes before it tells others of the new partitions.
            deadline = time.monotonic() + 20.0
            while f"{config.events_topic}/4" not in other.end_positions():
                assert time.monotonic() < deadline
            other.append([click(n, user=n) for n in range(20, 60)])
            assert {record.partition for record in read_on(other)} > {r.partition for r in records}
        records = read_at_least(log, records, 60)
        assert sorted(decode(record.value).event_id for record in records) == [
            f"e{n:05d}" for n in range(60)
        ]
        # The writer of before finds the new partition too.
        log.append([click(n, user=n) for n in range(60, 80)])
        added = read_at_least(log, records, 80)[60:]
        assert not {record.partition for record in added} <= {r.partition for r in records[:20]}


def test_missing_topics_are_named_and_not_created(log: KafkaLog) -> None:
    mistyped = KafkaConfig(topic_prefix="headrcae")
    with closing(KafkaLog(bootstrap(), mistyped)) as other:
        for use in (lambda: other.append([click(0)]), other.end_positions, other.dead_letters):
            with pytest.raises(LogError, match=r"headrcae\.events missing: `headrace topics"):
                use()
    log.append([click(0)])
    with admin() as client:
        assert not any(topic.startswith("headrcae") for topic in client.list_topics())


def test_topic_deleted_while_in_use_is_not_created_again(config: KafkaConfig) -> None:
    hasty = replace(config, request_timeout_ms=500, append_timeout_ms=1_000)
    with closing(KafkaLog(bootstrap(), hasty)) as log, admin() as client:
        log.append([click(0)])
        client.delete_topics([config.events_topic])
        with pytest.raises(LogUnavailableError):
            append_for_ever(log)  # the broker may take a few more before it is gone
        assert config.events_topic not in client.list_topics()


def test_cluster_that_is_away_is_unavailable() -> None:
    hasty = KafkaConfig(request_timeout_ms=300, append_timeout_ms=600)
    with closing(KafkaLog("127.0.0.1:1", hasty)) as log:
        for use in (lambda: log.append([click(0)]), log.end_positions, log.dead_letters):
            with pytest.raises(LogUnavailableError, match=r"kafka://127\.0\.0\.1:1: "):
                use()


def test_record_larger_than_a_broker_takes_is_refused_with_its_batch(log: KafkaLog) -> None:
    with pytest.raises(LogError, match=r"at most 1000000 bytes, got one of \d+ for key b'u'"):
        log.append_raw([("u", b"small"), ("u", b"x" * 1_000_000)])
    assert read_on(log) == []


def test_record_as_large_as_a_broker_takes_can_be_set_aside_and_sent_again(
    log: KafkaLog, config: KafkaConfig
) -> None:
    """Or one record of someone else would end every trainer that comes to it."""
    garbage = b"\xff" * 1_045_000
    send(config.events_topic, key=b"u", value=garbage)
    (record,) = log.read({}, max_records=10, timeout_s=10.0)
    letter = DeadLetter(record.partition, record.offset, record.key, record.value, "x" * 500, 5)
    log.dead_letter(letter)
    assert log.dead_letters() == [letter]
    log.append_again([letter])
    assert [one.value for one in read_on(log)] == [garbage] * 2


def test_deleting_record_of_a_compacted_topic_is_an_empty_value(
    log: KafkaLog, config: KafkaConfig
) -> None:
    send(config.items_topic, key=b"i\xff", value=None)
    (record,) = read_on(log)
    assert (record.key, record.value) == ("i\ufffd", b"")
    letter = DeadLetter(record.partition, record.offset, record.key, record.value, "empty", 5)
    log.dead_letter(letter)
    assert log.dead_letters() == [letter]


def test_foreign_record_among_dead_letters_is_named(log: KafkaLog, config: KafkaConfig) -> None:
    send(config.dead_letters_topic, key=b"k", value=b"v")
    with pytest.raises(LogError, match=r"dead-letters@0: is not a dead letter of ours"):
        log.dead_letters()


def test_broker_that_dies_and_comes_back_loses_and_repeats_nothing(config: KafkaConfig) -> None:
    broker = own_broker()
    limits = {"request_timeout_ms": 500, "append_timeout_ms": 2_000, "max_in_flight_bytes": 500}
    hasty = KafkaLog(bootstrap(), replace(fresh_config(), **limits))
    hasty.append([click(0)])
    at_end = advance({}, read_on(hasty))
    patient, stop = KafkaLog(bootstrap(), config), threading.Event()
    acknowledged: list[int] = []

    def append_until_stopped() -> None:
        while not stop.is_set():
            numbers = range(len(acknowledged), len(acknowledged) + 10)
            patient.append([click(number, user=number % 3) for number in numbers])
            acknowledged.extend(numbers)

    appending = threading.Thread(target=append_until_stopped)
    appending.start()
    try:
        records = read_at_least(patient, [], 200)
        broker.kill()
        check_nothing_waits_for_ever(hasty, at_end)
    finally:
        broker.start()
        records = read_at_least(patient, records, len(acknowledged) + 100)
        stop.set()
        appending.join()
    records = read_at_least(patient, records, len(acknowledged))
    found = [int(decode(record.value).event_id[1:]) for record in records]
    assert sorted(found) == acknowledged
    for user in range(3):
        mine = [number for number in found if number % 3 == user]
        assert mine == sorted(mine)
    hasty.append([click(1)])
    hasty.close()
    patient.close()


def check_nothing_waits_for_ever(log: KafkaLog, at_end: Positions) -> None:
    """Fail appends and reads in time, and at once when too much waits already."""
    errors: list[LogUnavailableError] = []

    def append_in_vain() -> None:
        try:
            log.append([click(7)])
        except LogUnavailableError as error:
            errors.append(error)

    waiting = threading.Thread(target=append_in_vain)
    waiting.start()
    deadline = time.monotonic() + 10.0
    while not log._producer._in_flight_bytes:
        assert time.monotonic() < deadline
    with pytest.raises(LogUnavailableError, match=r"would exceed kafka\.max_in_flight_bytes 500"):
        log.append([click(number) for number in range(5)])
    assert waiting.is_alive()
    with pytest.raises(LogUnavailableError):
        log.read(at_end, max_records=1, timeout_s=0.0)
    waiting.join(10.0)
    assert len(errors) == 1
    assert log._producer._in_flight_bytes == 0


def read_at_least(log: KafkaLog, records: list[Record], num_records: int) -> list[Record]:
    records, deadline = list(records), time.monotonic() + 30.0
    while len(records) < num_records:
        assert time.monotonic() < deadline, f"{len(records)} of {num_records} records came"
        try:
            records += log.read(advance({}, records), max_records=500, timeout_s=0.1)
        except LogUnavailableError:
            time.sleep(0.1)
    return records


@pytest.mark.parametrize(("ci", "outcome"), [("", "Skipped"), ("true", "Failed")])
def test_missing_java_skips_these_tests_and_fails_them_under_ci(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ci: str, outcome: str
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path))
    with pytest.raises(BaseException, match="needs java and mvn installed") as caught:
        kafka_broker._shared_broker.__wrapped__()
    assert type(caught.value).__name__ == outcome


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"topic_prefix": ""}, "kafka.topic_prefix must not be empty"),
        ({"group": ""}, "kafka.group must not be empty"),
        ({"num_partitions": 0}, "kafka.num_partitions must be positive, got 0"),
        ({"max_in_flight_bytes": -1}, "kafka.max_in_flight_bytes must be positive, got -1"),
        ({"replication_factor": 0}, "kafka.replication_factor must be positive or -1, got 0"),
        (
            {"replication_factor": 1, "min_insync_replicas": 2},
            "kafka.min_insync_replicas must be at most kafka.replication_factor (1), got 2",
        ),
        ({"metadata_max_age_ms": 0}, "kafka.metadata_max_age_ms must be positive, got 0"),
        ({"append_timeout_ms": 19_999}, "kafka.append_timeout_ms must be at least twice"),
    ],
)
def test_config_names_the_setting_that_is_wrong(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KafkaConfig(**settings)
    assert str(caught.value).startswith(message)
