"""Clients of a Kafka cluster: how they connect, what their errors mean, which topics they need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import (
    AuthorizationError,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    MessageSizeTooLargeError,
    NoError,
    OffsetOutOfRangeError,
    TopicAlreadyExistsError,
    for_code,
)
from kafka.net.compat import KafkaNetClient
from kafka.structs import TopicPartition

from domain.errors import LogError, LogPositionError, LogUnavailableError
from stream.kafka_settings import CONSUMER_OPTIONS, PRODUCER_OPTIONS, KafkaConfig


def make_producer(bootstrap: str, config: KafkaConfig) -> KafkaProducer:
    """Connect an idempotent producer."""
    return KafkaProducer(
        **_shared_options(bootstrap, config),
        **PRODUCER_OPTIONS,
        kafka_client=_client_that_creates_no_topics,
        delivery_timeout_ms=config.append_timeout_ms,
        max_block_ms=config.request_timeout_ms,
    )


def make_consumer(bootstrap: str, config: KafkaConfig) -> KafkaConsumer:
    """Connect a consumer that is assigned partitions by hand and may commit positions."""
    return KafkaConsumer(
        **_shared_options(bootstrap, config),
        **CONSUMER_OPTIONS,
        kafka_client=_client_that_creates_no_topics,
        group_id=config.group,
    )


def create_topics(bootstrap: str, config: KafkaConfig) -> None:
    """Create the three topics; those that exist already are left as they are.

    `bootstrap` is "host:port", or several of them separated by commas.

    Raises:
        LogError: the cluster refused; says which topic and why.
        LogUnavailableError: no broker answers.
    """
    events = {"retention.ms": str(config.retention_ms)}
    compacted = {"cleanup.policy": "compact"}
    # One partition, so that dead letters have one order; they wait for a person, however long.
    dead_letters = {"retention.ms": "-1"}
    topics = {
        config.events_topic: _topic(config, config.num_partitions, events),
        config.items_topic: _topic(config, config.num_partitions, compacted),
        config.dead_letters_topic: _topic(config, 1, dead_letters),
    }
    with kafka_errors_reported(bootstrap), closing(_make_admin(bootstrap, config)) as admin:
        for topic in admin.create_topics(topics, raise_errors=False)["topics"]:
            error = for_code(topic["error_code"])
            if error not in (NoError, TopicAlreadyExistsError):
                reason = topic.get("error_message") or error.__name__
                raise LogError(f"kafka://{bootstrap}: cannot create {topic['name']}: {reason}")
        admin.wait_for_topics(list(topics))


def reject_missing_topics(bootstrap: str, config: KafkaConfig) -> None:
    """Raise a LogError that names the topics the cluster does not have."""
    expected = (config.events_topic, config.items_topic, config.dead_letters_topic)
    with kafka_errors_reported(bootstrap), closing(_make_admin(bootstrap, config)) as admin:
        found = set(admin.list_topics())
    missing = [topic for topic in expected if topic not in found]
    if missing:
        raise LogError(
            f"kafka://{bootstrap}: expected topics {', '.join(expected)}; "
            f"the cluster has no {', '.join(missing)}"
        )


def read_topic(bootstrap: str, config: KafkaConfig, topic: str) -> Iterator[Any]:
    """Yield all that a topic holds now; raises KafkaError when the cluster does not answer."""
    consumer = make_consumer(bootstrap, config)
    try:
        numbers = consumer.partitions_for_topic(topic)
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        ends = consumer.end_offsets(partitions)
        consumer.assign(partitions)
        for partition, offset in consumer.beginning_offsets(partitions).items():
            consumer.seek(partition, offset)
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            polled = consumer.poll(config.request_timeout_ms)
            if not polled:
                raise KafkaTimeoutError(f"no records of {topic}, which has more")
            for entries in polled.values():
                yield from entries
    finally:
        consumer.close(autocommit=False, timeout_ms=config.request_timeout_ms)


@contextmanager
def kafka_errors_reported(bootstrap: str) -> Iterator[None]:
    """Turn the errors of the Kafka client into ours, in one line each."""
    where = f"kafka://{bootstrap}"
    try:
        yield
    except (OffsetOutOfRangeError, LogTruncationError) as error:
        raise LogPositionError(
            f"{where}: a position lies outside what the log holds: {error}"
        ) from error
    except (
        AuthorizationError,
        IllegalStateError,
        MessageSizeTooLargeError,
    ) as error:
        raise LogError(f"{where}: {error}") from error
    except KafkaError as error:
        raise LogUnavailableError(f"{where}: {error}") from error


def _make_admin(bootstrap: str, config: KafkaConfig) -> KafkaAdminClient:
    return KafkaAdminClient(**_shared_options(bootstrap, config))


def _shared_options(bootstrap: str, config: KafkaConfig) -> dict[str, Any]:
    return {
        "bootstrap_servers": bootstrap.split(","),
        "request_timeout_ms": config.request_timeout_ms,
        "bootstrap_timeout_ms": config.request_timeout_ms,
        # The default, 30 s, would leave a client idle long after a broker has come back.
        "reconnect_backoff_max_ms": 300,
    }


def _client_that_creates_no_topics(**options: Any) -> KafkaNetClient:
    # A mistyped topic must be an error. kafka-python 3.0.12 has allow_auto_create_topics for this
    # but does not hand it on to the place that asks the broker.
    client = KafkaNetClient(**options)
    client.cluster.config["allow_auto_create_topics"] = False
    return client


def _topic(config: KafkaConfig, num_partitions: int, settings: dict[str, str]) -> dict[str, Any]:
    return {
        "num_partitions": num_partitions,
        "replication_factor": config.replication_factor,
        "configs": settings | {"min.insync.replicas": str(config.min_insync_replicas)},
    }
