"""A bulk producer: many events into a log as columnar records, the order of each user kept.

Whose events may share a record is decided by the partition that their key falls into, so the
appender asks the log how many partitions there are and groups by Kafka's own rule (murmur2 of the
key). A record is keyed by its first event, which sends it to the partition of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from domain.errors import ConfigError, LogError
from domain.event_log import EventLog
from domain.events import Event, ItemUpdate, event_key
from stream.columnar_build import encode_columnar
from stream.columnar_form import MAX_EVENTS

_MAX_BYTES = 900_000
"""Every log takes records of a million bytes with their key; a record that is larger is halved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkAppendConfig:
    """How much a record carries.

    Attributes:
        max_events: most events that wait together to be packed.
        max_span_ms: longest event time that a record spans, where there are several partitions:
            while one record is led through the loop, the others wait, and what they carry must not
            become late. At most the watermark's allowed lateness.
    """

    max_events: int
    max_span_ms: int

    def __post_init__(self) -> None:
        if not 1 <= self.max_events <= MAX_EVENTS:
            raise ConfigError(
                f"--columnar must be between 1 and {MAX_EVENTS}, got {self.max_events}"
            )


@dataclass(frozen=True, slots=True)
class BulkAppended:
    """What was stored."""

    num_events: int
    num_records: int


def append_columnar(
    log: EventLog, events: Iterable[Event], config: BulkAppendConfig
) -> BulkAppended:
    """Store events as columnar records; on return all of them survive a crash.

    Item updates share records with other events in a log of one partition. Where items have a topic
    of their own they are stored one by one: that topic is compacted, it keeps the last record of
    each key, and a record of many items has the key of only one of them.

    Raises:
        LogError: an event contradicts itself, or does not fit a record.
        LogUnavailableError: of the events not yet stored nothing may be assumed.
    """
    topics = [name.rpartition("/")[0] for name in log.end_positions()]
    has_items_topic = any(topic.endswith("items") for topic in topics)
    num_partitions = len([topic for topic in topics if topic.endswith("events")])
    num_events = num_records = 0
    for batch in _batches(events, config, num_partitions, has_items_topic):
        num_events += len(batch)
        if has_items_topic and isinstance(batch[0], ItemUpdate):
            log.append(batch)
            num_records += len(batch)
            continue
        records = [
            record for group in _by_partition(batch, num_partitions) for record in _records(group)
        ]
        log.append_raw(records)
        num_records += len(records)
    return BulkAppended(num_events, num_records)


def _batches(
    events: Iterable[Event], config: BulkAppendConfig, num_partitions: int, items_apart: bool
) -> Iterator[list[Event]]:
    """Yield events that may be packed together; where items are apart, each kind by itself.

    Item updates end a batch, so that none reaches the log before what came before it.
    """
    batch: list[Event] = []
    for event in events:
        if batch and (
            len(batch) == config.max_events
            or (num_partitions > 1 and event.time_ms - batch[0].time_ms > config.max_span_ms)
            or (items_apart and isinstance(event, ItemUpdate) != isinstance(batch[0], ItemUpdate))
        ):
            yield batch
            batch = []
        batch.append(event)
    if batch:
        yield batch


def _by_partition(events: list[Event], num_partitions: int) -> list[list[Event]]:
    """Return the events of each partition, in their order."""
    if num_partitions == 1:
        return [events]
    # Only a Kafka log has several; the client takes most of a second to import.
    from kafka.partitioner.default import murmur2

    partition_of: dict[str, int] = {}
    groups: dict[int, list[Event]] = {}
    for event in events:
        key = event_key(event)
        if key not in partition_of:
            number = murmur2(key.encode(errors="replace"))
            partition_of[key] = (number & 0x7FFFFFFF) % num_partitions
        groups.setdefault(partition_of[key], []).append(event)
    return list(groups.values())


def _records(events: list[Event]) -> list[tuple[str, bytes]]:
    """Return the events as (key, value), in as few records as their size allows."""
    value = encode_columnar(events)
    if len(value) <= _MAX_BYTES:
        return [(event_key(events[0]), value)]
    if len(events) == 1:
        raise LogError(
            f"cannot store event {events[0].event_id!r}: it takes {len(value)} bytes, "
            f"a record at most {_MAX_BYTES}"
        )
    middle = len(events) // 2
    return _records(events[:middle]) + _records(events[middle:])
