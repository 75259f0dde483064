"""Reader: a thread that reads and decodes ahead of the learner, in the order of the log.

Learning and reading take turns on one interpreter, but a log answers when it likes: while it does,
the learner learns what was read before. The queue between them is bounded in events and in bytes.
When it is full the reader waits; partitions are assigned by hand, so nobody misses it meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from domain.clock import Clock
from domain.event_log import EventLog, Positions, Record, advance
from domain.events import Event
from monitoring.metrics import Metrics
from stream.bulk_decode import decode_records
from stream.codec import BadEvent
from stream.log_health import LogHealth
from stream.trainer_config import TrainerConfig

_CHUNK_RECORDS = 256
_CHUNK_BYTES = 256 * 2**10
"""What is decoded together: enough to forget the cost of a turn, and little for the queue."""

_ENDS_EVERY_S = 1.0
"""How often the log is asked for its end, which only the lag panel shows."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A record and all that it holds, in order."""

    record: Record
    entries: list[Event | BadEvent]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderParts:
    """What a reader reads from, and whom it tells."""

    log: EventLog
    health: LogHealth
    clock: Clock
    metrics: Metrics


class Reader:
    """Reads a log from given positions on, ahead of who takes.

    Attributes:
        ends: newest known ends of the log's partitions; empty before they were asked for.
    """

    def __init__(self, parts: ReaderParts, config: TrainerConfig) -> None:
        self._parts = parts
        self._config = config
        self._queue = _Queue(config, parts.metrics)
        self._thread: threading.Thread | None = None
        self._asked_s = -_ENDS_EVERY_S
        self.ends: Positions = {}

    def start(self, positions: Positions) -> None:
        """Begin to read at `positions`; what was read ahead and not taken is forgotten."""
        self.close()
        self._queue = _Queue(self._config, self._parts.metrics)
        self._thread = threading.Thread(
            target=self._run, args=(self._queue, dict(positions)), name="reader", daemon=True
        )
        self._thread.start()

    def take(self) -> list[Decoded] | None:
        """Return the next records, decoded.

        An empty list says that the log's end was reached behind what was taken before; None that
        the log has not answered yet, `TrainerConfig.poll_timeout_s` after the call.

        Raises:
            LogError: what reading raised, once everything read before it was taken; `start` again.
        """
        return self._queue.take(self._config.poll_timeout_s)

    def close(self) -> None:
        """Stop reading, once the log has answered; may be called twice."""
        self._queue.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, queue: _Queue, positions: Positions) -> None:
        try:
            while not queue.closed:
                records = self._read(positions)
                for chunk in self._decoded(records):
                    while not queue.put(chunk, _ENDS_EVERY_S):
                        self._look_at_ends()
                if not records:
                    queue.put_nothing()
                self._look_at_ends()
                positions = advance(positions, records)
        except BaseException as error:  # noqa: BLE001 - it is raised where records are taken
            queue.put_error(error)

    def _read(self, positions: Positions) -> list[Record]:
        parts, config = self._parts, self._config
        parts.health.asks("read")
        records = parts.log.read(
            positions, max_records=config.max_records, timeout_s=config.poll_timeout_s
        )
        parts.health.answered("read")
        size_bytes = sum(len(record.value) for record in records)
        parts.metrics.stream.observe_read(len(records), size_bytes)
        return records

    def _decoded(self, records: Sequence[Record]) -> Iterator[list[Decoded]]:
        """Yield records with what they hold, in chunks that fit the queue."""
        max_records = min(_CHUNK_RECORDS, self._config.queue_events)
        max_bytes = min(_CHUNK_BYTES, self._config.queue_bytes)
        for chunk in _chunks(records, max_records, max_bytes):
            entries = decode_records([record.value for record in chunk])
            yield [Decoded(*pair) for pair in zip(chunk, entries, strict=True)]

    def _look_at_ends(self) -> None:
        # Each look is a round trip to the brokers.
        now_s = self._parts.clock.stopwatch_s()
        if now_s - self._asked_s >= _ENDS_EVERY_S:
            self._parts.health.asks("read")
            self.ends = self._parts.log.end_positions()
            self._parts.health.answered("read")
            self._asked_s = now_s


class _Queue:
    """Chunks of decoded records on their way to the learner; one thread puts, one takes."""

    def __init__(self, config: TrainerConfig, metrics: Metrics) -> None:
        self._max_events = config.queue_events
        self._max_bytes = config.queue_bytes
        self._metrics = metrics.stream
        self._changed = threading.Condition()
        self._chunks: deque[list[Decoded]] = deque()
        self._events = self._bytes = 0
        self._error: BaseException | None = None
        self.closed = False

    def put(self, chunk: list[Decoded], timeout_s: float) -> bool:
        """Append a chunk when there is room for it; False when there is none after `timeout_s`.

        A closed queue takes everything and keeps nothing.
        """
        events, size_bytes = _size(chunk)

        def has_room() -> bool:
            fits = self._events + events <= self._max_events
            fits = fits and self._bytes + size_bytes <= self._max_bytes
            return fits or not self._chunks or self.closed

        with self._changed:
            if not self._changed.wait_for(has_room, timeout_s):
                return False
            if not self.closed:
                self._chunks.append(chunk)
                self._count(events, size_bytes)
        return True

    def put_nothing(self) -> None:
        """Say that the end of the log was reached, once everything before it was taken."""
        with self._changed:
            self._changed.wait_for(lambda: not self._chunks or self.closed)
            self._chunks.append([])
            self._changed.notify_all()

    def put_error(self, error: BaseException) -> None:
        """Let `take` raise an error behind the last chunk."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Decoded] | None:
        """Return the next chunk, None when there is none after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._error, timeout_s)
            if self._chunks:
                chunk = self._chunks.popleft()
                events, size_bytes = _size(chunk)
                self._count(-events, -size_bytes)
                return chunk
            if self._error is not None:
                raise self._error
            return None

    def close(self) -> None:
        """Wake whoever waits; nothing is kept from now on."""
        with self._changed:
            self.closed = True
            self._chunks.clear()
            self._count(-self._events, -self._bytes)

    def _count(self, events: int, size_bytes: int) -> None:
        self._events += events
        self._bytes += size_bytes
        self._metrics.queue_events.set(self._events)
        self._metrics.queue_bytes.set(self._bytes)
        self._changed.notify_all()


def _size(chunk: Sequence[Decoded]) -> tuple[int, int]:
    return sum(len(one.entries) for one in chunk), sum(len(one.record.value) for one in chunk)


def _chunks(
    records: Sequence[Record], max_records: int, max_bytes: int
) -> Iterator[Sequence[Record]]:
    """Yield pieces of a sequence; a record larger than `max_bytes` is a piece of its own.

    >>> [len(chunk) for chunk in _chunks([Record("p", n, "", b"xx") for n in range(5)], 2, 100)]
    [2, 2, 1]
    """
    start = size_bytes = 0
    for end, record in enumerate(records):
        size_bytes += len(record.value)
        if end > start and (end - start == max_records or size_bytes > max_bytes):
            yield records[start:end]
            start, size_bytes = end, len(record.value)
    if start < len(records):
        yield records[start:]
