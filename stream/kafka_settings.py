"""What Headrace asks of a Kafka cluster: topics, limits and client options, with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domain.errors import ConfigError
from stream.kafka_security import KafkaSecurity

_DAY_MS = 24 * 60 * 60 * 1000

_POSITIVE = (
    "num_partitions",
    "min_insync_replicas",
    "retention_ms",
    "deltas_retention_ms",
    "deltas_retention_bytes",
    "max_in_flight_bytes",
    "request_timeout_ms",
    "metadata_max_age_ms",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """How an event log lives in a Kafka cluster."""

    topic_prefix: str = "headrace"
    """Topics are called PREFIX.events, PREFIX.items, PREFIX.dead-letters and PREFIX.deltas."""

    group: str = "headrace-trainer"
    """Consumer group under which positions are committed; only lag monitors read them."""

    num_partitions: int = 4
    """Partitions of the events topic and of the items topic: so many are made, and fewer are
    refused at start."""

    replication_factor: int = -1
    """Copies of each partition when topics are created; -1 is the cluster's default."""

    min_insync_replicas: int = 1
    """Copies that must have a record before it is acknowledged; 2 with three replicas. Topics that
    ask for fewer are refused at start."""

    retention_ms: int = 7 * _DAY_MS
    """How long the events topic keeps records; a snapshot older than this cannot be resumed."""

    deltas_retention_ms: int = 30 * 60 * 1000
    """How long the deltas topic keeps records; they must reach back behind the newest snapshot."""

    deltas_retention_bytes: int = 2 * 2**30
    """Size at which the deltas topic drops its oldest records, whatever their age."""

    max_in_flight_bytes: int = 32 * 2**20
    """Bytes that may wait for acknowledgement; further appends are refused while the broker is
    away. The client itself has no such bound."""

    append_timeout_ms: int = 30_000
    """How long an append waits for acknowledgement; at least twice `request_timeout_ms`."""

    request_timeout_ms: int = 10_000
    """How long one request to a broker may take, the first contact included."""

    metadata_max_age_ms: int = 10_000
    """How often to ask which partitions there are and who leads them: a partition that is added is
    read after at most so long."""

    security: KafkaSecurity = field(default_factory=KafkaSecurity)
    """TLS, and who we are."""

    def __post_init__(self) -> None:
        for name in ("topic_prefix", "group"):
            if not getattr(self, name):
                raise ConfigError(f"kafka.{name} must not be empty")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ConfigError(f"kafka.{name} must be positive, got {getattr(self, name)}")
        if self.replication_factor == 0 or self.replication_factor < -1:
            raise ConfigError(
                f"kafka.replication_factor must be positive or -1, got {self.replication_factor}"
            )
        if 0 < self.replication_factor < self.min_insync_replicas:
            raise ConfigError(
                "kafka.min_insync_replicas must be at most kafka.replication_factor "
                f"({self.replication_factor}), got {self.min_insync_replicas}"
            )
        if self.append_timeout_ms < 2 * self.request_timeout_ms:
            raise ConfigError(
                "kafka.append_timeout_ms must be at least twice kafka.request_timeout_ms "
                f"({self.request_timeout_ms}), got {self.append_timeout_ms}"
            )

    @property
    def events_topic(self) -> str:
        """Return the topic of what users do and are, keyed by user."""
        return f"{self.topic_prefix}.events"

    @property
    def items_topic(self) -> str:
        """Return the compacted topic of item updates, keyed by item."""
        return f"{self.topic_prefix}.items"

    @property
    def dead_letters_topic(self) -> str:
        """Return the topic of records set aside."""
        return f"{self.topic_prefix}.dead-letters"

    @property
    def deltas_topic(self) -> str:
        """Return the topic of what was learned between snapshots."""
        return f"{self.topic_prefix}.deltas"


CLIENT_OPTIONS: Final[Mapping[str, Any]] = {
    # From 50 ms upwards to this; the default, 30 s, would leave a client idle long after a broker
    # has come back.
    "reconnect_backoff_ms": 50,
    "reconnect_backoff_max_ms": 300,
    # A request that failed because a leader moved is sent again after this.
    "retry_backoff_ms": 100,
    # Shorter than the 10 minutes after which brokers, and most load balancers, drop a connection.
    "connections_max_idle_ms": 4 * 60 * 1000,
}
"""What all clients are given."""

MAX_RECORD_BYTES: Final = 1_000_000
"""A broker takes batches of 1 MiB by default, and a record is never split."""

MAX_LETTER_BYTES: Final = 2 * 2**20
"""A dead letter is a record of someone else, perhaps as large as a broker takes, and its reason."""

CONSUMER_OPTIONS: Final[Mapping[str, Any]] = {
    "enable_auto_commit": False,
    # A position outside what the log holds is an error, never a silent jump.
    "auto_offset_reset": "none",
    # A new position waits for the fetch in flight to return; the default, 500 ms, would be felt.
    "fetch_max_wait_ms": 50,
    # So much of each partition may be held in memory, a few times over as Python objects.
    "max_partition_fetch_bytes": 4 * 2**20,
    "metrics_enabled": False,
}

PRODUCER_OPTIONS: Final[Mapping[str, Any]] = {
    "acks": "all",
    "enable_idempotence": True,
    # `append` waits for its records, so there is nothing to linger for.
    "linger_ms": 0,
    "batch_size": 256 * 2**10,
    "max_request_size": MAX_LETTER_BYTES,
    "metrics_enabled": False,
}
