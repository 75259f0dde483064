"""The event log in a Kafka cluster.

What users do and are goes to the events topic, keyed by user; item updates go to a compacted topic
of their own, keyed by item. Positions belong to the caller: partitions are assigned by hand and no
group is joined, so nothing rebalances and nobody waits for a dead member's session to run out.

The producer is idempotent and waits for all in-sync replicas, so a broker that dies and comes back
costs time, not records. Events appended together are not one transaction: when `append` fails, any
of them may have been stored. Appending them again is harmless: a repeated event id has no effect.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from domain.errors import LogError
from domain.event_log import DeadLetter, Positions, Record
from domain.events import Event, ItemUpdate, event_key
from stream.codec import encode
from stream.kafka_client import kafka_errors_reported, read_topic
from stream.kafka_consumer import MergedConsumer
from stream.kafka_letters import fold_letters, letter_headers, mark_headers
from stream.kafka_producer import BoundedProducer, Outgoing
from stream.kafka_security import security_options
from stream.kafka_settings import MAX_LETTER_BYTES, KafkaConfig
from stream.kafka_topics import reject_wrong_topics


class KafkaLog:
    """An event log in a Kafka cluster; connects when first used. Safe to share by threads.

    Reading and asking for positions take turns; appending does not wait for them.

    Args:
        bootstrap: "host:port", or several of them separated by commas.

    Raises:
        ConfigError: a certificate or the password is not where the settings say.

    The first use raises a LogError when a topic is missing or not as it must be.
    """

    def __init__(self, bootstrap: str, config: KafkaConfig | None = None) -> None:
        self._bootstrap = bootstrap
        self._config = config or KafkaConfig()
        # A missing certificate or password is a mistake of now, not of the first read.
        security_options(self._config.security)
        self._producer = BoundedProducer(bootstrap, self._config)
        self._topics_checked = False
        self._closed = False
        self._consumer_lock = threading.Lock()
        self._consumer: MergedConsumer | None = None

    def append(self, events: Sequence[Event]) -> None:
        """Store events; on return all in-sync replicas have them. See `EventLog.append`."""
        self._store([self._outgoing(event) for event in events])

    def append_raw(self, records: Sequence[tuple[str, bytes]]) -> None:
        """Store (key, bytes) in the events topic as they are."""
        topic = self._config.events_topic
        self._store([Outgoing(topic, _bytes(key), value, []) for key, value in records])

    def read(self, positions: Positions, *, max_records: int, timeout_s: float) -> list[Record]:
        """Return up to `max_records` records from `positions` on; see `EventLog.read`.

        Partitions are merged by the time at which records were appended. An empty answer is a
        statement of the brokers, never of a broken connection: a broker that does not answer is
        waited for, `KafkaConfig.request_timeout_ms` beyond `timeout_s`, and is then an error.
        """
        assert max_records > 0, max_records
        with self._consuming() as consumer:
            return consumer.read(positions, max_records, timeout_s)

    def beginning_positions(self) -> Positions:
        """Return the oldest offset still held, per partition."""
        with self._consuming() as consumer:
            return consumer.beginning_positions()

    def end_positions(self) -> Positions:
        """Return the offset the next record will get, per partition."""
        with self._consuming() as consumer:
            return consumer.end_positions()

    def commit(self, positions: Positions) -> None:
        """Commit under `KafkaConfig.group`, so that lag monitors see how far a snapshot reaches."""
        with self._consuming() as consumer:
            consumer.commit(positions)

    def committed(self) -> Positions:
        """Return what was last committed under `KafkaConfig.group`."""
        with self._consuming() as consumer:
            return consumer.committed()

    def dead_letter(self, letter: DeadLetter) -> None:
        """Store a record in the dead-letters topic, its origin in the headers.

        The topic may come to hold the same place twice; `dead_letters` returns the first.
        """
        self._store([self._dead_letter_entry(letter, letter.value, letter_headers(letter))])

    def dead_letters(self) -> list[DeadLetter]:
        """Return every dead letter, oldest first; reads the whole topic."""
        self._check()
        topic = self._config.dead_letters_topic
        with kafka_errors_reported(self._bootstrap):
            return fold_letters(read_topic(self._bootstrap, self._config, topic))

    def append_again(self, letters: Sequence[DeadLetter]) -> None:
        """Store the bytes of letters again, each in the topic it came from."""
        topics = (self._config.events_topic, self._config.items_topic)
        again = []
        for letter in letters:
            topic = letter.partition.rpartition("/")[0]
            if topic not in topics:
                raise LogError(
                    f"kafka://{self._bootstrap}: expected a dead letter of {' or '.join(topics)}, "
                    f"got one of {letter.where}"
                )
            # It was in the log already: whether it is too large is for the broker to say.
            key = _bytes(letter.key)
            again.append(Outgoing(topic, key, letter.value, [], MAX_LETTER_BYTES))
        self._store(again)

    def mark_redriven(self, letters: Sequence[DeadLetter], time_ms: int) -> None:
        """Store a mark for each letter in the dead-letters topic, under the letter's key."""
        marks = [
            self._dead_letter_entry(letter, b"", mark_headers(letter, time_ms))
            for letter in letters
        ]
        self._store(marks)

    def _dead_letter_entry(
        self, letter: DeadLetter, value: bytes, headers: dict[str, str]
    ) -> Outgoing:
        packed = [(name, _bytes(text)) for name, text in headers.items()]
        topic, key = self._config.dead_letters_topic, _bytes(letter.where)
        return Outgoing(topic, key, value, packed, MAX_LETTER_BYTES)

    def close(self) -> None:
        """Close all connections; may be called twice."""
        self._closed = True
        self._producer.close()
        with self._consumer_lock, kafka_errors_reported(self._bootstrap):
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                consumer.close()

    def _outgoing(self, event: Event) -> Outgoing:
        about_item = isinstance(event, ItemUpdate)
        topic = self._config.items_topic if about_item else self._config.events_topic
        # Encoded first: it refuses ids that are not UTF-8.
        value = encode(event)
        return Outgoing(topic, _bytes(event_key(event)), value, [])

    def _store(self, records: Sequence[Outgoing]) -> None:
        if records:
            self._check()
            self._producer.store(records)

    def _check(self) -> None:
        if self._closed:
            raise LogError(f"kafka://{self._bootstrap}: the log is closed")
        if not self._topics_checked:
            reject_wrong_topics(self._bootstrap, self._config)
            self._topics_checked = True

    @contextmanager
    def _consuming(self) -> Iterator[MergedConsumer]:
        with self._consumer_lock, kafka_errors_reported(self._bootstrap):
            self._check()
            if self._consumer is None:
                self._consumer = MergedConsumer(self._bootstrap, self._config)
            yield self._consumer


def _bytes(text: str) -> bytes:
    # Keys of foreign records may hold what is not UTF-8; they are marked rather than refused.
    return text.encode(errors="replace")
