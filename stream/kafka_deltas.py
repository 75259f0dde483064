"""Deltas to a Kafka topic, for servers that do not share a folder with the trainer."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from domain.deltas import Delta, DeltaPoint
from domain.errors import LogError, LogUnavailableError, SnapshotError
from stream.delta_parts import MAX_PARTS, DeltaPart, beginning, headers_of, split
from stream.kafka_producer import BoundedProducer, Outgoing
from stream.kafka_settings import MAX_RECORD_BYTES, KafkaConfig
from stream.kafka_topics import deltas_plan, reject_wrong_topics

logger = logging.getLogger(__name__)

PART_BYTES = 900_000
"""Content of one record: below what brokers take by default, with room for its headers."""

_REQUEST_MS = 2_000
_STORE_MS = 5_000
"""Training stands still while a delta is sent. One that is not acknowledged so soon is given up:
its number is then missing, and the next snapshot leads past it."""


class KafkaDeltaPublisher:
    """Implements `domain.deltas.DeltaPublisher` on a topic of one partition. For one thread.

    Args:
        bootstrap: "host:port", or several of them separated by commas.
        encode: from a delta to the bytes that a source's `decode` reads.

    The topic is checked when it is first written to.
    """

    def __init__(
        self, bootstrap: str, config: KafkaConfig, encode: Callable[[Delta], bytes]
    ) -> None:
        self._bootstrap = bootstrap
        self._config = hasty(config)
        self._encode = encode
        self._producer = BoundedProducer(bootstrap, self._config)
        self._topics_checked = False
        self._last = DeltaPoint("", 0)
        self._announced = False

    def begin_chain(self) -> str:
        """Begin a new chain, end the one there was, and return the new one's name.

        While no broker answers this is said with the chain's first delta: nobody can read the old
        one either.

        Raises:
            SnapshotError: the topic is missing, not as it must be, or may not be written.
        """
        self._last = DeltaPoint(secrets.token_hex(8), 0)
        self._announced = False
        try:
            self._store([beginning(self._last.chain)])
        except LogUnavailableError as error:
            logger.warning("chain of deltas not announced yet", extra={"error": str(error)})
        except LogError as error:
            raise SnapshotError(str(error)) from error
        else:
            self._announced = True
        return self._last.chain

    def publish(self, delta: Delta) -> int:
        """Send a delta in parts and return its size in bytes.

        Raises:
            SnapshotError: it is not of this chain, not behind the last one, has no exact form or is
                too large, and nothing was sent; or a part was not acknowledged, and followers may
                have all of it or nothing.
        """
        if delta.point.chain != self._last.chain or delta.point.number <= self._last.number:
            raise SnapshotError(
                f"{self._config.deltas_topic}: expected a delta of chain "
                f"{self._last.chain or 'none'} behind {self._last.number}, "
                f"got {delta.point.chain} {delta.point.number}"
            )
        content = self._encode(delta)
        parts = split(delta.point, content, PART_BYTES)
        if len(parts) > MAX_PARTS:
            raise SnapshotError(
                f"delta {delta.point.number}: expected at most {MAX_PARTS * PART_BYTES} bytes, "
                f"got {len(content)}"
            )
        # Used up even if it fails: parts of it may be there, and must stay without others.
        self._last = delta.point
        try:
            self._store([*([] if self._announced else [beginning(delta.point.chain)]), *parts])
        except LogError as error:
            raise SnapshotError(f"delta {delta.point.number}: {error}") from error
        self._announced = True
        return len(content)

    def close(self) -> None:
        """Close all connections; may be called twice."""
        with suppress(LogError):
            self._producer.close()

    def _store(self, parts: list[DeltaPart]) -> None:
        if not self._topics_checked:
            reject_wrong_topics(self._bootstrap, self._config, [deltas_plan(self._config)])
            self._topics_checked = True
        topic = self._config.deltas_topic
        self._producer.store(
            [
                Outgoing(topic, _key(part.point), part.content, headers_of(part), MAX_RECORD_BYTES)
                for part in parts
            ]
        )


def hasty(config: KafkaConfig) -> KafkaConfig:
    """Return how brokers are waited for where waiting holds up more than it is worth."""
    request_ms = min(config.request_timeout_ms, _REQUEST_MS)
    return replace(
        config,
        request_timeout_ms=request_ms,
        append_timeout_ms=max(min(config.append_timeout_ms, _STORE_MS), 2 * request_ms),
    )


def _key(point: DeltaPoint) -> bytes:
    return f"{point.chain}:{point.number}".encode()
