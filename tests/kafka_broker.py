"""A real Kafka for tests: one broker per test session, started when the first test asks for it.

Tests that need more start a broker or a cluster of their own through `started`.

Set HEADRACE_TEST_KAFKA=host:port to use a broker that runs already. Without Java or Maven the tests
are skipped and say so, except under CI=true, where they fail.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

from deploy.kafka.broker import BrokerError, KafkaBroker, KafkaCluster

with warnings.catch_warnings():
    # kafka-python 3.0 reads its protocol in a way that Python 3.11 calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaProducer, TopicPartition
    from kafka.admin import ConfigResource, UserScramCredentialUpsertion

    from stream.kafka_client import make_admin
    from stream.kafka_log import KafkaLog
    from stream.kafka_topics import create_topics, inspect_topics

from stream.kafka_settings import KafkaConfig

__all__ = [
    "ConfigResource",
    "KafkaLog",
    "UserScramCredentialUpsertion",
    "admin",
    "bootstrap",
    "create_topics",
    "delete_records",
    "fresh_config",
    "give_up",
    "inspect_topics",
    "own_broker",
    "send",
    "started",
]

_Kafka = TypeVar("_Kafka", KafkaBroker, KafkaCluster)

_NUMBERS = itertools.count()
_SESSION = uuid.uuid4().hex[:8]


def bootstrap() -> str:
    """Return "host:port" of the session's broker, or skip the test."""
    return os.environ.get("HEADRACE_TEST_KAFKA") or _shared_broker().bootstrap


def own_broker() -> KafkaBroker:
    """Return the session's broker to a test that kills and restarts it, or skip the test."""
    if os.environ.get("HEADRACE_TEST_KAFKA"):
        pytest.skip("HEADRACE_TEST_KAFKA is set: that broker is not ours to kill")
    return _shared_broker()


@contextlib.contextmanager
def started(kafka: _Kafka) -> Iterator[_Kafka]:
    """Start a broker or a cluster, or skip the test; it ends with the block."""
    try:
        kafka.start()
        yield kafka
    except BrokerError as error:
        give_up(str(error))
    finally:
        # Nobody needs the data any more: ending it at once saves seconds.
        kafka.kill()


def fresh_config(*, at: str | None = None, **settings: object) -> KafkaConfig:
    """Create topics that no other test uses and return the configuration that names them."""
    prefix = f"test-{_SESSION}-{next(_NUMBERS)}"
    config = KafkaConfig(
        **{"topic_prefix": prefix, "group": prefix, "num_partitions": 2, **settings}  # type: ignore[arg-type]
    )
    create_topics(at or bootstrap(), config)
    return config


@contextlib.contextmanager
def admin(at: str | None = None) -> Iterator[Any]:
    """Connect kafka-python's own admin client."""
    with contextlib.closing(make_admin(at or bootstrap(), KafkaConfig())) as client:
        yield client


def delete_records(partition: str, offset: int) -> None:
    """Make the broker forget the records of "topic/partition" below an offset."""
    topic, _, number = partition.rpartition("/")
    with admin() as client:
        client.delete_records({TopicPartition(topic, int(number)): offset})


def send(topic: str, key: bytes, value: bytes | None) -> None:
    """Store a record as a producer of someone else would."""
    with contextlib.closing(KafkaProducer(bootstrap_servers=bootstrap())) as producer:
        producer.send(topic, value, key).get(10)


@functools.cache
def _shared_broker() -> KafkaBroker:
    folder = tempfile.mkdtemp(prefix="headrace-kafka-")
    broker = KafkaBroker(Path(folder))
    # Nobody needs the data any more: ending it at once saves half a second.
    atexit.register(lambda: (broker.kill(), shutil.rmtree(folder, ignore_errors=True)))
    try:
        broker.start()
    except BrokerError as error:
        give_up(str(error))
    return broker


def give_up(reason: str) -> NoReturn:
    """Skip the test; under CI=true, where nothing may be missing, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
