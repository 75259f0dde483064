"""Clients of a Kafka cluster: how they connect, and what their errors mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import (
    AuthorizationError,
    IllegalStateError,
    KafkaConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    RecordListTooLargeError,
)
from kafka.net.compat import KafkaNetClient
from kafka.structs import TopicPartition

from domain.errors import LogError, LogPositionError, LogUnavailableError
from stream.kafka_connections import error_text, make_client
from stream.kafka_security import security_options
from stream.kafka_settings import CLIENT_OPTIONS, CONSUMER_OPTIONS, PRODUCER_OPTIONS, KafkaConfig


def make_producer(bootstrap: str, config: KafkaConfig) -> KafkaProducer:
    """Connect an idempotent producer."""
    return _connected(
        KafkaProducer,
        **_shared_options(bootstrap, config),
        **PRODUCER_OPTIONS,
        delivery_timeout_ms=config.append_timeout_ms,
        max_block_ms=config.request_timeout_ms,
    )


def make_consumer(bootstrap: str, config: KafkaConfig) -> KafkaConsumer:
    """Connect a consumer that is assigned partitions by hand and may commit positions."""
    return _connected(
        KafkaConsumer,
        **_shared_options(bootstrap, config),
        **CONSUMER_OPTIONS,
        group_id=config.group,
    )


def make_admin(bootstrap: str, config: KafkaConfig) -> KafkaAdminClient:
    """Connect a client that looks after topics."""
    return _connected(KafkaAdminClient, **_shared_options(bootstrap, config))


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
    except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
        raise LogError(
            f"{where}: a record is larger than max.message.bytes of its topic: {error_text(error)}"
        ) from error
    except (AuthorizationError, IllegalStateError, KafkaConfigurationError) as error:
        raise LogError(f"{where}: {error_text(error)}") from error
    except KafkaError as error:
        raise LogUnavailableError(f"{where}: {error_text(error)}") from error


def _shared_options(bootstrap: str, config: KafkaConfig) -> dict[str, Any]:
    return {
        **CLIENT_OPTIONS,
        **security_options(config.security),
        "bootstrap_servers": bootstrap.split(","),
        "request_timeout_ms": config.request_timeout_ms,
        "bootstrap_timeout_ms": config.request_timeout_ms,
        "metadata_max_age_ms": config.metadata_max_age_ms,
    }


def _connected(kind: Callable[..., Any], **options: Any) -> Any:
    """Make a client; one that does not reach its cluster leaves nothing behind."""
    made: list[KafkaNetClient] = []

    def client(**configs: Any) -> KafkaNetClient:
        made.append(make_client(**configs))
        return made[0]

    try:
        return kind(**options, kafka_client=client)
    except BaseException:
        # kafka-python 3.0.12 does not: its thread would try to connect for ever, one per attempt.
        for one in made:
            one.close()
        raise
