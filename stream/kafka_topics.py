"""The topics of Headrace in Kafka: made, looked at, refused when they are not as they must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kafka.admin import ConfigResource
from kafka.errors import NoError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from domain.errors import LogError
from stream.kafka_client import kafka_errors_reported, make_admin
from stream.kafka_settings import MAX_LETTER_BYTES, KafkaConfig

_FOR_EVER = "-1"
_LEAST_SEGMENT_MS = 10_000


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """How a topic has to be.

    Attributes:
        num_partitions: at least so many; exactly one where `single`.
        single: whether more than one partition would be wrong.
        retention_ms: for how long records are kept when it is made; None is not by age.
        for_ever: whether records that are deleted by age or size would be wrong.
        max_record_bytes: largest record when it is made; None is the cluster's default.
        more: further settings that it is made with.
    """

    name: str
    num_partitions: int
    cleanup_policy: str
    retention_ms: int | None
    single: bool = False
    for_ever: bool = False
    max_record_bytes: int | None = None
    more: tuple[tuple[str, str], ...] = ()

    def configs(self, config: KafkaConfig) -> dict[str, str]:
        """Return the settings that the topic is made with."""
        configs = {
            "cleanup.policy": self.cleanup_policy,
            "min.insync.replicas": str(config.min_insync_replicas),
            **dict(self.more),
        }
        if self.retention_ms is not None:
            configs["retention.ms"] = str(self.retention_ms)
        if self.max_record_bytes is not None:
            configs["max.message.bytes"] = str(self.max_record_bytes)
        return configs


@dataclass(frozen=True, slots=True)
class TopicState:
    """How a topic is; counts are 0 and texts empty where there is no such topic.

    Attributes:
        num_replicas: copies of the partition that has the fewest.
        problems: what is wrong, each with what to do; empty when all is well.
    """

    name: str
    num_partitions: int = 0
    num_replicas: int = 0
    cleanup_policy: str = ""
    retention_ms: int | None = None
    min_insync_replicas: int = 0
    problems: tuple[str, ...] = ()


def log_plans(config: KafkaConfig) -> tuple[TopicPlan, ...]:
    """Return how the three topics of an event log have to be."""
    count = config.num_partitions
    return (
        TopicPlan(config.events_topic, count, "delete", config.retention_ms),
        # The newest update of an item counts, however old it is.
        TopicPlan(config.items_topic, count, "compact", None),
        # One partition, so that dead letters have one order; they wait for a person, however long.
        TopicPlan(
            config.dead_letters_topic,
            1,
            "delete",
            -1,
            single=True,
            for_ever=True,
            max_record_bytes=MAX_LETTER_BYTES,
        ),
    )


def deltas_plan(config: KafkaConfig) -> TopicPlan:
    """Return how the topic of deltas has to be: one partition, as each builds on the one before."""
    retention_ms = config.deltas_retention_ms
    return TopicPlan(
        config.deltas_topic,
        1,
        "delete",
        retention_ms,
        single=True,
        more=(
            ("retention.bytes", str(config.deltas_retention_bytes)),
            # Brokers delete whole segments, and never the one that is written.
            ("segment.bytes", str(_clamped(config.deltas_retention_bytes // 16))),
            ("segment.ms", str(max(retention_ms // 6, _LEAST_SEGMENT_MS))),
        ),
    )


def create_topics(
    bootstrap: str, config: KafkaConfig, plans: Sequence[TopicPlan] | None = None
) -> None:
    """Create topics; those that exist already are left as they are. None are the log's three.

    `bootstrap` is "host:port", or several of them separated by commas.

    Raises:
        LogError: the cluster refused; says which topic and why.
        LogUnavailableError: no broker answers.
    """
    topics = {
        plan.name: {
            "num_partitions": plan.num_partitions,
            "replication_factor": config.replication_factor,
            "configs": plan.configs(config),
        }
        for plan in plans or log_plans(config)
    }
    with kafka_errors_reported(bootstrap), closing(make_admin(bootstrap, config)) as admin:
        for topic in admin.create_topics(topics, raise_errors=False)["topics"]:
            error = for_code(topic["error_code"])
            if error not in (NoError, TopicAlreadyExistsError):
                reason = topic.get("error_message") or error.__name__
                raise LogError(f"kafka://{bootstrap}: cannot create {topic['name']}: {reason}")
        admin.wait_for_topics(list(topics))


def inspect_topics(
    bootstrap: str, config: KafkaConfig, plans: Sequence[TopicPlan] | None = None
) -> list[TopicState]:
    """Return how topics are, and what is wrong with each. None are the log's three.

    Raises:
        LogError: the cluster does not let us look.
        LogUnavailableError: no broker answers.
    """
    plans = plans or log_plans(config)
    with kafka_errors_reported(bootstrap), closing(make_admin(bootstrap, config)) as admin:
        described = {topic["name"]: topic for topic in admin.describe_topics(_names(plans))}
        for topic in described.values():
            error = for_code(topic["error_code"])
            if error not in (NoError, UnknownTopicOrPartitionError):
                raise error(topic["name"])
        found = [plan for plan in plans if described[plan.name]["partitions"]]
        resources = [ConfigResource("topic", plan.name) for plan in found]
        configs = admin.describe_configs(resources, config_filter="all")["topic"] if found else {}
    return [
        _state(plan, described[plan.name]["partitions"], configs[plan.name], config)
        if plan in found
        else TopicState(plan.name, problems=("missing: `headrace topics create` makes it",))
        for plan in plans
    ]


def reject_wrong_topics(
    bootstrap: str, config: KafkaConfig, plans: Sequence[TopicPlan] | None = None
) -> None:
    """Check that topics are there and as they must be. None are the log's three.

    Raises:
        LogError: naming what is wrong and what to do, in one line.
        LogUnavailableError: no broker answers.
    """
    wrong = [
        f"{topic.name} {problem}"
        for topic in inspect_topics(bootstrap, config, plans)
        for problem in topic.problems
    ]
    if wrong:
        raise LogError(f"kafka://{bootstrap}: {'; '.join(wrong)}")


def _clamped(segment_bytes: int) -> int:
    return min(max(segment_bytes, 2**20), 2**30)


def _names(plans: Sequence[TopicPlan]) -> list[str]:
    return [plan.name for plan in plans]


def _state(
    plan: TopicPlan, partitions: list[Any], configs: dict[str, Any], config: KafkaConfig
) -> TopicState:
    texts = {name: entry["value"] for name, entry in configs.items()}
    policy = ",".join(sorted(texts["cleanup.policy"].split(",")))
    num_replicas = min(len(partition["replica_nodes"]) for partition in partitions)
    min_insync = int(texts["min.insync.replicas"])
    problems = [
        *_partition_problems(plan, len(partitions)),
        *_policy_problems(plan, policy, texts),
        *_replica_problems(plan, num_replicas, min_insync, config),
    ]
    return TopicState(
        plan.name,
        num_partitions=len(partitions),
        num_replicas=num_replicas,
        cleanup_policy=policy,
        retention_ms=int(texts["retention.ms"]) if "delete" in policy else None,
        min_insync_replicas=min_insync,
        problems=tuple(problems),
    )


def _partition_problems(plan: TopicPlan, count: int) -> Iterator[str]:
    if plan.single and count != 1:
        yield f"has {count} partitions, must have 1: delete it and run `headrace topics create`"
    elif count < plan.num_partitions:
        yield (
            f"has {count} partitions, kafka.num_partitions is {plan.num_partitions}: run "
            f"`kafka-topics.sh --alter --topic {plan.name} --partitions {plan.num_partitions}` "
            "or lower the setting"
        )


def _policy_problems(plan: TopicPlan, policy: str, texts: dict[str, str]) -> Iterator[str]:
    if policy != plan.cleanup_policy:
        yield (
            f"has cleanup.policy={policy}, must be {plan.cleanup_policy}: "
            f"{_alter(plan.name, f'cleanup.policy={plan.cleanup_policy}')}"
        )
    if plan.for_ever:
        for name in ("retention.ms", "retention.bytes"):
            if texts[name] != _FOR_EVER:
                yield (
                    f"has {name}={texts[name]}, must be {_FOR_EVER}, for ever: "
                    f"{_alter(plan.name, f'{name}={_FOR_EVER}')}"
                )


def _replica_problems(
    plan: TopicPlan, num_replicas: int, min_insync: int, config: KafkaConfig
) -> Iterator[str]:
    wanted = config.min_insync_replicas
    if min_insync > num_replicas:
        # Brokers before 4.0 would take no record; later ones wait for as many as there are.
        yield (
            f"has min.insync.replicas={min_insync} but {num_replicas} replicas: "
            f"{_alter(plan.name, f'min.insync.replicas={min(wanted, num_replicas)}')}"
        )
    elif min_insync < wanted:
        yield (
            f"has min.insync.replicas={min_insync}, kafka.min_insync_replicas is {wanted}: "
            f"{_alter(plan.name, f'min.insync.replicas={wanted}')} or lower the setting"
        )


def _alter(topic: str, setting: str) -> str:
    return f"run `kafka-configs.sh --alter --topic {topic} --add-config {setting}`"
