"""Topics of a real broker: made, checked at start, and altered while they are in use."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.errors import LogError, LogGapError, LogUnavailableError
from domain.event_log import Positions, advance
from domain.events import UserUpdate
from stream.codec import decode
from stream.kafka_settings import KafkaConfig
from tests.command_line import Headrace, quiet_surroundings
from tests.kafka_broker import (
    ConfigResource,
    KafkaLog,
    admin,
    bootstrap,
    create_topics,
    fresh_config,
    inspect_topics,
)

EVENTS, ITEMS, LETTERS = range(3)
SOON_S = 20.0


@pytest.fixture
def headrace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Headrace]:
    with quiet_surroundings(monkeypatch):
        yield Headrace(capsys)


def event(number: int, text: str = "") -> UserUpdate:
    features = {"text": text} if text else {}
    return UserUpdate(event_id=f"e{number}", time_ms=1, user_id="u", features=features)


def alter(topic: str, **settings: str) -> None:
    """Change settings of a topic; underscores stand for dots."""
    configs = {name.replace("_", "."): value for name, value in settings.items()}
    with admin() as client:
        client.alter_configs([ConfigResource("topic", topic, configs=configs)])
        deadline = time.monotonic() + SOON_S
        # The controller has it; brokers follow a moment later.
        while configs.items() - texts(client, topic).items():
            assert time.monotonic() < deadline


def texts(client: Any, topic: str) -> dict[str, str]:
    resource = ConfigResource("topic", topic)
    found = client.describe_configs([resource], config_filter="all")["topic"][topic]
    return {name: entry["value"] for name, entry in found.items()}


def problems(config: KafkaConfig) -> list[tuple[str, ...]]:
    return [topic.problems for topic in inspect_topics(bootstrap(), config)]


def test_topics_are_as_they_must_be_when_headrace_made_them() -> None:
    config = fresh_config(num_partitions=3)
    events, items, letters = inspect_topics(bootstrap(), config)
    assert (events.num_partitions, items.num_partitions, letters.num_partitions) == (3, 3, 1)
    assert (events.cleanup_policy, items.cleanup_policy) == ("delete", "compact")
    assert (events.retention_ms, items.retention_ms) == (config.retention_ms, None)
    assert letters.retention_ms == -1
    assert problems(config) == [(), (), ()]


def test_more_partitions_than_the_setting_are_fine_and_fewer_are_named() -> None:
    config = fresh_config(num_partitions=3)
    assert problems(replace(config, num_partitions=2)) == [(), (), ()]
    log = KafkaLog(bootstrap(), replace(config, num_partitions=5))
    with closing(log), pytest.raises(LogError) as caught:
        log.append([event(1)])
    topic = config.events_topic
    assert (
        f"{topic} has 3 partitions, kafka.num_partitions is 5: run `kafka-topics.sh --alter "
        f"--topic {topic} --partitions 5` or lower the setting; {config.items_topic} has 3 "
    ) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("topic", "settings", "problem"),
    [
        (EVENTS, {"cleanup_policy": "compact"}, "has cleanup.policy=compact, must be delete: run "),
        (ITEMS, {"cleanup_policy": "delete"}, "has cleanup.policy=delete, must be compact: run "),
        (ITEMS, {"cleanup_policy": "compact,delete"}, "has cleanup.policy=compact,delete, must be"),
        (LETTERS, {"retention_ms": "1000"}, "has retention.ms=1000, must be -1, for ever: run "),
        (LETTERS, {"retention_bytes": "9999"}, "has retention.bytes=9999, must be -1, for ever"),
        (EVENTS, {"min_insync_replicas": "2"}, "has min.insync.replicas=2 but 1 replicas: run "),
    ],
)
def test_topic_that_somebody_altered_is_named_at_start(
    topic: int, settings: dict[str, str], problem: str
) -> None:
    config = fresh_config()
    name = (config.events_topic, config.items_topic, config.dead_letters_topic)[topic]
    alter(name, **settings)
    log = KafkaLog(bootstrap(), config)
    with closing(log), pytest.raises(LogError, match=re.escape(f"{name} {problem}")):
        log.end_positions()
    assert [bool(found) for found in problems(config)] == [one == topic for one in range(3)]
    (found,) = problems(config)[topic]
    assert re.search(rf"run `kafka-configs\.sh --alter --topic {name} --add-config [a-z.]+=", found)


def test_fewer_copies_in_sync_than_the_setting_are_named() -> None:
    config = fresh_config()
    wanted = replace(config, min_insync_replicas=2)
    assert "has min.insync.replicas=1, kafka.min_insync_replicas is 2" in problems(wanted)[0][0]


def test_dead_letters_with_several_partitions_are_named() -> None:
    config = fresh_config()
    with admin() as client:
        client.create_partitions({config.dead_letters_topic: 2})
    # The broker says yes before it tells others of the new partition.
    deadline = time.monotonic() + SOON_S
    while not problems(config)[LETTERS]:
        assert time.monotonic() < deadline
    (problem,) = problems(config)[LETTERS]
    assert problem.startswith("has 2 partitions, must have 1: ")


def test_commands_create_and_check_topics(headrace: Headrace) -> None:
    prefix = f"{fresh_config().topic_prefix}-commands"
    place = ["--log", f"kafka://{bootstrap()}", "--set", f"kafka.topic_prefix={prefix}"]
    three = [f"{prefix}.{name}" for name in ("events", "items", "dead-letters")]
    missing = headrace("topics", "check", *place)
    assert missing.code == 1
    assert missing.out.splitlines()[-3:] == [
        f"{name} missing: `headrace topics create` makes it" for name in three
    ]
    made = headrace("topics", "create", *place, "--partitions", "6", "--replication", "1")
    assert (made.code, made.err) == (0, "")
    assert made.out == f"These topics are there: {', '.join(three)}\n"
    checked = headrace("topics", "check", *place)
    assert (checked.code, checked.err) == (0, "")
    rows = [line.split("│")[1:-1] for line in checked.out.splitlines() if prefix in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [three[EVENTS], "6", "1", "1", "delete", "7 d", "ok"],
        [three[ITEMS], "6", "1", "1", "compact", "newest per key", "ok"],
        [three[LETTERS], "1", "1", "1", "delete", "for ever", "ok"],
    ]
    again = headrace("topics", "create", *place, "--partitions", "8")
    assert again.code == 1
    assert again.out.startswith(f"{three[EVENTS]} has 6 partitions, kafka.num_partitions is 8: ")


@pytest.mark.parametrize("command", ["train", "serve", "validate", "publish --dataset abrupt"])
def test_command_that_finds_no_topics_says_what_to_run(
    command: str, headrace: Headrace, tmp_path: Path
) -> None:
    place = ["--log", f"kafka://{bootstrap()}", "--data-dir", tmp_path]
    ports = ["--set", "metrics.trainer_port=0", "--set", "metrics.server_port=0"]
    prefix = ["--set", "kafka.topic_prefix=nobody-made-me"]
    ended = headrace(*command.split(), *place, *ports, *prefix)
    assert (ended.code, ended.out) == (1, "")
    last = ended.err.splitlines()[-1]
    assert last.startswith(
        f"headrace: kafka://{bootstrap()}: "
        "nobody-made-me.events missing: `headrace topics create` makes it; "
    )


def test_more_copies_than_brokers_are_refused_by_the_cluster(headrace: Headrace) -> None:
    place = ["--log", f"kafka://{bootstrap()}", "--set", "kafka.topic_prefix=too-many"]
    ended = headrace("topics", "create", *place, "--replication", "99")
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(r"headrace: kafka://\S+: cannot create too-many\.\S+: .*\n", ended.err)


def test_record_larger_than_the_broker_takes_is_named_and_nothing_else_is_lost() -> None:
    config = fresh_config()
    with closing(KafkaLog(bootstrap(), config)) as log:
        log.append([event(1)])
        alter(config.events_topic, max_message_bytes="2000")
        with pytest.raises(LogError, match=r"larger than max\.message\.bytes") as caught:
            log.append([event(2, "x" * 5_000)])
        assert not isinstance(caught.value, LogUnavailableError), "it would be tried for ever"
        # A batch that is too large only together is split by the client.
        log.append([event(number, "x" * 500) for number in range(3, 13)])
        log.append([event(13)])
        records = log.read({}, max_records=100, timeout_s=10.0)
        while more := log.read(advance({}, records), max_records=100, timeout_s=0.0):
            records += more
    numbers = [int(decode(record.value).event_id[1:]) for record in records]
    assert numbers == [1, *range(3, 14)]


def test_topic_made_anew_is_a_gap_for_those_who_read_it_before() -> None:
    config = fresh_config(num_partitions=1, metadata_max_age_ms=200)
    partition = f"{config.events_topic}/0"
    with closing(KafkaLog(bootstrap(), config)) as running:
        running.append([event(number) for number in range(5)])
        positions = advance({}, running.read({}, max_records=10, timeout_s=10.0))
        assert positions == {partition: 5}
        with admin() as client:
            client.delete_topics([config.events_topic])
        deadline = time.monotonic() + SOON_S
        create_again(config, deadline)
        with closing(KafkaLog(bootstrap(), config)) as started, pytest.raises(LogGapError) as gap:
            started.read(positions, max_records=10, timeout_s=0.0)
        assert (gap.value.position, gap.value.beginning, gap.value.end) == (5, 0, 0)
        with pytest.raises(LogGapError):
            read_until_refused(running, positions, deadline)


def create_again(config: KafkaConfig, deadline: float) -> None:
    """Create topics that were just deleted; the broker needs a moment to forget them."""
    while problems(config)[EVENTS]:
        assert time.monotonic() < deadline
        create_topics(bootstrap(), config)


def read_until_refused(log: KafkaLog, positions: Positions, deadline: float) -> None:
    """Read on as a trainer does, which waits while the log is unavailable."""
    while time.monotonic() < deadline:
        with contextlib.suppress(LogUnavailableError):
            assert log.read(positions, max_records=10, timeout_s=0.1) == []


def test_bootstrap_needs_only_one_broker_that_answers() -> None:
    config = fresh_config()
    with closing(KafkaLog(f"127.0.0.1:1,{bootstrap()}", config)) as log:
        log.append([event(1)])
        assert sum(log.end_positions().values()) == 1
