"""Records to a Kafka cluster, waited for until acknowledged, with a bound on what may wait."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError

from domain.errors import LogError, LogUnavailableError
from stream.kafka_client import kafka_errors_reported, make_producer
from stream.kafka_settings import MAX_RECORD_BYTES, KafkaConfig

_OVERHEAD_BYTES = 100
"""What the client keeps for a record beside its key and value, roughly."""

_GRACE_S = 5.0
"""The client gives up by itself after the append timeout; this long we wait for it to say so."""


class Outgoing(NamedTuple):
    """One record to be stored."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    max_bytes: int = MAX_RECORD_BYTES

    @property
    def num_bytes(self) -> int:
        """Return about how much memory the record takes while it waits."""
        return len(self.key) + len(self.value) + _OVERHEAD_BYTES


class BoundedProducer:
    """A producer that connects when first used; safe to share by threads."""

    def __init__(self, bootstrap: str, config: KafkaConfig) -> None:
        self._bootstrap = bootstrap
        self._config = config
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._in_flight_bytes = 0
        self._closed = False

    def store(self, records: Sequence[Outgoing]) -> None:
        """Send records and wait until all in-sync replicas have them.

        Raises:
            LogError: a record is larger than a broker takes; none was sent.
            LogUnavailableError: too much waits already, or no acknowledgement came in time.
        """
        self._reject_too_large(records)
        self._reserve(sum(record.num_bytes for record in records))
        sent: list[Any] = []
        try:
            with kafka_errors_reported(self._bootstrap):
                producer = self._connected()
                try:
                    for topic, key, value, headers, _ in records:
                        sent.append(producer.send(topic, value, key, headers))
                    for future in sent:
                        future.get(self._config.append_timeout_ms / 1000 + _GRACE_S)
                except KafkaError:
                    self._give_up(producer)
                    raise
        finally:
            self._release_when_done(records, sent)

    def close(self) -> None:
        """Stop sending; may be called twice."""
        with self._lock:
            self._closed = True
            producer, self._producer = self._producer, None
        if producer is not None:
            _end(producer)

    def _give_up(self, producer: KafkaProducer) -> None:
        """Let the next append begin with a new producer.

        kafka-python 3.0.12 does not recover when a record that was sent expires before brokers are
        back: it asks for a new producer id, and never sends again.
        """
        with self._lock:
            if self._producer is not producer:
                return
            self._producer = None
        _end(producer)

    def _connected(self) -> KafkaProducer:
        with self._lock:
            if self._closed:
                raise LogError(f"kafka://{self._bootstrap}: the log is closed")
            if self._producer is None:
                self._producer = make_producer(self._bootstrap, self._config)
            return self._producer

    def _reject_too_large(self, records: Sequence[Outgoing]) -> None:
        for record in records:
            if record.num_bytes > record.max_bytes:
                raise LogError(
                    f"kafka://{self._bootstrap}: expected records of at most {record.max_bytes} "
                    f"bytes, got one of {record.num_bytes} for key {record.key!r}"
                )

    def _reserve(self, num_bytes: int) -> None:
        limit = self._config.max_in_flight_bytes
        with self._lock:
            # One batch alone is always let through, or a large one never would be.
            if self._in_flight_bytes and self._in_flight_bytes + num_bytes > limit:
                raise LogUnavailableError(
                    f"kafka://{self._bootstrap}: {self._in_flight_bytes} bytes wait to be "
                    f"acknowledged, {num_bytes} more would exceed kafka.max_in_flight_bytes {limit}"
                )
            self._in_flight_bytes += num_bytes

    def _release_when_done(self, records: Sequence[Outgoing], sent: Sequence[Any]) -> None:
        """Free what is settled now, and the rest as the client gives it up."""
        waiting = [(r, f) for r, f in zip(records, sent, strict=False) if not f.is_done]
        self._release(sum(r.num_bytes for r in records) - sum(r.num_bytes for r, _ in waiting))
        for record, future in waiting:
            future.add_both(lambda _, num_bytes=record.num_bytes: self._release(num_bytes))

    def _release(self, num_bytes: int) -> None:
        with self._lock:
            self._in_flight_bytes -= num_bytes


def _end(producer: KafkaProducer) -> None:
    # What still waits belongs to an append that has failed already or is about to. `close` alone
    # would wait for it, raise, and leave the sending thread behind.
    producer._sender.force_close()
    with contextlib.suppress(KafkaError):
        producer.close(timeout=_GRACE_S)
