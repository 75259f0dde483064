"""All partitions of a Kafka log read as one: in order per partition, and across them by time.

A client that reads a backlog drains one partition after the other. The newest event of the first
would then move the watermark past everything in the second, and all of it would be late. So records
are merged by the time at which they were appended (Kafka's timestamp), as if the log had one
partition; item updates come before the impressions that were shown after them.
"""

from __future__ import annotations

from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    OffsetOutOfRangeError,
)
from kafka.structs import OffsetAndMetadata, TopicPartition

from domain.errors import LogGapError, LogPositionError
from domain.event_log import Positions, Record, advance
from stream.kafka_client import make_consumer
from stream.kafka_merge import RecordBuffer, take_oldest
from stream.kafka_settings import KafkaConfig

_ALL_FETCHED = 2**31
"""A poll takes all that was fetched, at most 4 MiB of each partition. It must: kafka-python 3.0.12
never again returns records that it holds half-read at the moment their partition is paused."""

_POLL_MS = 50
"""How long to wait for a partition that has more before looking again whether it still has."""

_CLOSE_TIMEOUT_MS = 5_000


class MergedConsumer:
    """Reads the events topic and the items topic; not to be shared by threads.

    Methods raise `KafkaError` when the cluster does not answer.
    """

    def __init__(self, bootstrap: str, config: KafkaConfig) -> None:
        self._where = f"kafka://{bootstrap}"
        self._config = config
        self._consumer = make_consumer(bootstrap, config)
        self._partitions: dict[str, TopicPartition] = {}
        self._buffers: dict[str, RecordBuffer] = {}
        self._next: Positions = {}
        self._beginnings: Positions = {}

    def read(self, positions: Positions, max_records: int, timeout_s: float) -> list[Record]:
        """Return the next records; none only when the brokers say that there are none.

        Raises:
            LogGapError: records from a position on are gone, or were never there.
            LogPositionError: a partition is unknown.
        """
        self._assign()
        self._reject_unknown(positions)
        try:
            self._seek(positions)
            self._fill_starving()
            if not any(self._buffers.values()):
                self._fill(int(timeout_s * 1000))
            if not any(self._buffers.values()) and self._is_behind():
                self._fill(self._config.request_timeout_ms)
        except OffsetOutOfRangeError:
            self._next.clear()
            self._reject_gap(positions)
            # Retention has moved the beginning just now; the next read starts there.
            return []
        except LogTruncationError:
            # The log was made anew under a reader, or acknowledged records were given up.
            self._next.clear()
            self._reject_gap(positions)
            raise
        except KafkaError:
            self._next.clear()
            raise
        return self._merge(max_records)

    def beginning_positions(self) -> Positions:
        """Return the oldest offset still held, per partition."""
        self._assign()
        return _by_name(self._consumer.beginning_offsets(list(self._partitions.values())))

    def end_positions(self) -> Positions:
        """Return the offset the next record will get, per partition."""
        self._assign()
        return _by_name(self._consumer.end_offsets(list(self._partitions.values())))

    def commit(self, positions: Positions) -> None:
        """Store positions under the group; raises LogPositionError for a partition not ours."""
        self._assign()
        self._reject_unknown(positions)
        offsets = {
            self._partitions[name]: OffsetAndMetadata(offset, "", -1)
            for name, offset in positions.items()
        }
        if offsets:
            self._consumer.commit(offsets, timeout_ms=self._config.request_timeout_ms)

    def committed(self) -> Positions:
        """Return what the group has stored."""
        self._assign()
        timeout_ms = self._config.request_timeout_ms
        found = {
            name: self._consumer.committed(partition, timeout_ms=timeout_ms)
            for name, partition in self._partitions.items()
        }
        return {name: offset for name, offset in found.items() if offset is not None}

    def close(self) -> None:
        """Close all connections."""
        self._consumer.close(autocommit=False, timeout_ms=_CLOSE_TIMEOUT_MS)

    def _assign(self) -> None:
        """Take all partitions that the topics have; they may get more while we run."""
        # Answered from what the client knows, and it asks the cluster every `metadata_max_age_ms`.
        found = {
            TopicPartition(topic, number)
            for topic in (self._config.events_topic, self._config.items_topic)
            for number in self._consumer.partitions_for_topic(topic)
        }
        # A topic never loses partitions; while its leaders move, the cluster may not name them all.
        known = set(self._partitions.values())
        if not found <= known:
            names = sorted(found | known)
            self._consumer.assign(names)
            self._partitions = {_name(partition): partition for partition in names}
            self._buffers = {name: RecordBuffer() for name in self._partitions}
            self._next.clear()

    def _seek(self, positions: Positions) -> None:
        """Go to `positions`; going elsewhere throws away what was fetched, so only where needed."""
        unread = [name for name in self._partitions if name not in positions]
        # A partition of which nothing was read yet still stands at its beginning.
        if any(self._next.get(name) != self._beginnings.get(name, -1) for name in unread):
            partitions = [self._partitions[name] for name in unread]
            self._beginnings = _by_name(self._consumer.beginning_offsets(partitions))
        for name, partition in self._partitions.items():
            offset = positions[name] if name in positions else self._beginnings[name]
            if self._next.get(name) != offset:
                self._consumer.seek(partition, offset)
                self._buffers[name].clear()
                self._next[name] = offset

    def _fill_starving(self) -> None:
        """Fetch until every partition that has more has shown its next record."""
        for _ in range(self._config.request_timeout_ms // _POLL_MS + 1):
            starving = [name for name in self._partitions if self._is_starving(name)]
            if not starving:
                return
            self._fill(_POLL_MS)
        raise KafkaTimeoutError(f"no records of {', '.join(starving)}, which has more")

    def _is_starving(self, name: str) -> bool:
        """Return whether nothing is buffered although the last fetch said that there is more."""
        if self._buffers[name]:
            return False
        end = self._consumer.highwater(self._partitions[name])
        return end is None or self._consumer.position(self._partitions[name]) < end

    def _fill(self, timeout_ms: int) -> None:
        """Fetch records of the partitions whose buffer is empty; the others must not grow."""
        full = [self._partitions[name] for name, buffer in self._buffers.items() if buffer]
        self._consumer.pause(*full)
        try:
            polled = self._consumer.poll(timeout_ms, _ALL_FETCHED)
        finally:
            self._consumer.resume(*full)
        for partition, entries in polled.items():
            if entries:
                self._buffers[_name(partition)].fill(_name(partition), entries)

    def _is_behind(self) -> bool:
        """Ask the brokers whether there is more; raises when they do not answer."""
        ends = self._consumer.end_offsets(list(self._partitions.values()))
        return any(self._consumer.position(partition) < end for partition, end in ends.items())

    def _merge(self, max_records: int) -> list[Record]:
        """Take the oldest buffered records, until a partition that has more has run empty."""
        records = take_oldest(self._buffers, max_records, self._is_starving)
        self._next = advance(self._next, records)
        return records

    def _reject_unknown(self, positions: Positions) -> None:
        for name, offset in positions.items():
            if name not in self._partitions:
                raise LogPositionError(
                    f"{self._where}: has partitions {', '.join(self._partitions)}, "
                    f"and was asked for {name}"
                )
            if offset < 0:
                raise LogPositionError(f"{self._where}: position {name}@{offset} is below 0")

    def _reject_gap(self, positions: Positions) -> None:
        """Raise a LogGapError for the first position that lies outside what the log holds."""
        beginnings, ends = self.beginning_positions(), self.end_positions()
        for name, position in sorted(positions.items()):
            if not beginnings[name] <= position <= ends[name]:
                raise LogGapError(self._where, name, position, beginnings[name], ends[name])


def _by_name(offsets: dict[TopicPartition, int]) -> Positions:
    return {_name(partition): offsets[partition] for partition in sorted(offsets)}


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}/{partition.partition}"
