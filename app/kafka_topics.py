"""What `headrace topics` does."""

from __future__ import annotations

import dataclasses

from rich.console import Console
from rich.table import Table

from app.settings import Settings
from domain.errors import ConfigError
from stream.kafka_settings import KafkaConfig
from stream.kafka_topics import TopicPlan, TopicState, deltas_plan, inspect_topics, log_plans
from stream.kafka_topics import create_topics as create_in_cluster

_WIDE = 200
"""A table that is not read on a terminal may be so wide."""

_MINUTE_MS = 60_000
_UNITS = (("d", 24 * 60 * _MINUTE_MS), ("h", 60 * _MINUTE_MS), ("min", _MINUTE_MS), ("ms", 1))


def create_topics(settings: Settings, *, partitions: int | None, replication: int | None) -> bool:
    """Create the topics of the settings' Kafka log; counts that are given win over settings.

    Topics that were there already are left alone; returns whether all are as they must be.

    Raises:
        ConfigError: the log is not a Kafka log.
        LogError: the cluster refused.
        LogUnavailableError: no broker answers.
    """
    brokers, kafka = _brokers(settings), settings.kafka
    if partitions is not None:
        kafka = dataclasses.replace(kafka, num_partitions=partitions)
    if replication is not None:
        kafka = dataclasses.replace(kafka, replication_factor=replication)
    plans = _plans(settings, kafka)
    create_in_cluster(brokers, kafka, plans)
    topics = inspect_topics(brokers, kafka, plans)
    if _say_problems(topics):
        return False
    _say(f"These topics are there: {', '.join(topic.name for topic in topics)}")
    return True


def check_topics(settings: Settings) -> bool:
    """Print how the topics are; returns whether all is well.

    Raises:
        ConfigError: the log is not a Kafka log.
        LogError: the cluster does not let us look.
        LogUnavailableError: no broker answers.
    """
    kafka: KafkaConfig = settings.kafka
    topics = inspect_topics(_brokers(settings), kafka, _plans(settings, kafka))
    table = Table("topic", "partitions", "replicas", "in sync", "cleanup", "retention", "")
    for column in table.columns[1:4]:
        column.justify = "right"
    for topic in topics:
        counts = (topic.num_partitions, topic.num_replicas, topic.min_insync_replicas)
        verdict = "wrong" if topic.problems else "ok"
        kept = _duration(topic.retention_ms) if topic.cleanup_policy else ""
        table.add_row(topic.name, *map(str, counts), topic.cleanup_policy, kept, verdict)
    # Names of topics must be read whole, wherever the output goes.
    table.columns[0].overflow = "fold"
    console = Console()
    (console if console.is_terminal else Console(width=_WIDE)).print(table)
    return not _say_problems(topics)


def _brokers(settings: Settings) -> str:
    scheme, _, brokers = settings.data.log_url.partition("://")
    if scheme != "kafka":
        raise ConfigError(f"data.log: expected kafka://host:port, got {settings.data.log_url}")
    return brokers


def _plans(settings: Settings, kafka: KafkaConfig) -> tuple[TopicPlan, ...]:
    """Return how the topics must be that these settings make use of."""
    with_deltas = settings.deltas.via == "kafka"
    return (*log_plans(kafka), *([deltas_plan(kafka)] if with_deltas else []))


def _say_problems(topics: list[TopicState]) -> bool:
    """Print a line for each problem; returns whether there was one."""
    lines = [f"{topic.name} {problem}" for topic in topics for problem in topic.problems]
    for line in lines:
        _say(line)
    return bool(lines)


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(line, markup=False)


def _duration(milliseconds: int | None) -> str:
    """Return for how long records are kept, in the largest unit that divides it.

    >>> _duration(604_800_000), _duration(5_400_000), _duration(-1), _duration(None)
    ('7 d', '90 min', 'for ever', 'newest per key')
    """
    if milliseconds is None:
        return "newest per key"
    if milliseconds < 0:
        return "for ever"
    unit, size = next((name, size) for name, size in _UNITS if milliseconds % size == 0)
    return f"{milliseconds // size} {unit}"
