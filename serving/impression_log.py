"""Impressions and published events to the event log, many requests sharing one durable write.

A durable append costs about the same for one event as for a thousand. So requests leave their
events in a bounded queue, and one thread writes whatever has gathered while the last write ran
(group commit): latency at rest is one write, throughput under load is that of large batches.

Nobody is told that events are stored before the log has them. Who waited in vain takes back what
was not begun; what was begun may still be stored, and may be sent again: a repeated event id has no
effect. So while the log is away nothing piles up: one batch is being written, and in the queue are
the events of those who still wait, and of those who do not wait at all, up to `max_queued_events`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from domain.errors import ConfigError, LogUnavailableError, OverloadedError
from domain.event_log import EventLog
from domain.events import Event

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpressionLogConfig:
    """Bounds of the group commit.

    Attributes:
        max_queued_events: events that may wait for the writer; more are refused at once.
        max_batch_events: events per durable write; one submission is never split.
    """

    max_queued_events: int = 20_000
    max_batch_events: int = 2_000

    def __post_init__(self) -> None:
        for name in ("max_queued_events", "max_batch_events"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"impression_log.{name} must be at least 1, got {getattr(self, name)}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class _Submission:
    events: tuple[Event, ...]
    stored: Future[None]


class ImpressionLog:
    """A queue in front of an event log, and the thread that empties it.

    `log` is used by the writer thread alone.
    """

    def __init__(
        self,
        log: EventLog,
        config: ImpressionLogConfig,
        on_stored: Callable[[Sequence[Event]], None] | None = None,
    ) -> None:
        """Write to `log`; what it has stored goes to `on_stored` before anybody is told."""
        self._log = log
        self._config = config
        self._on_stored = on_stored
        self._queue: deque[_Submission] = deque()
        self._queued_events = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="impression-log", daemon=True)

    def start(self) -> None:
        """Start writing; events submitted before wait in the queue."""
        self._thread.start()

    def submit(self, events: Sequence[Event]) -> Future[None]:
        """Queue events to be stored together, all or none; the future ends when they are durable.

        Raises:
            OverloadedError: the queue is full.
            LogUnavailableError: the writer has been stopped.
        """
        stored: Future[None] = Future()
        with self._changed:
            if self._closed:
                raise LogUnavailableError("events are no longer taken: the server is stopping")
            if self._queued_events and (
                self._queued_events + len(events) > self._config.max_queued_events
            ):
                raise OverloadedError(f"{self._queued_events} events are waiting for the log")
            self._queue.append(_Submission(tuple(events), stored))
            self._queued_events += len(events)
            self._changed.notify()
        return stored

    def write(self, events: Sequence[Event], timeout_s: float) -> None:
        """Submit events and wait until they are durable.

        Raises:
            OverloadedError: the queue is full.
            LogUnavailableError: they are not stored, or not known to be.
        """
        self.wait(self.submit(events), len(events), timeout_s)

    def wait(self, stored: Future[None], count: int, timeout_s: float) -> None:
        """Wait until `count` submitted events are durable; later they are of no use.

        Raises:
            LogUnavailableError: they are not stored, or not known to be.
        """
        try:
            stored.result(timeout_s)
        except TimeoutError:
            withdrawn = self._withdraw(stored)
            outcome = "they were withdrawn" if withdrawn else "they may still be stored"
            raise LogUnavailableError(
                f"the log did not take {count} events within {timeout_s:.3f} s; {outcome}"
            ) from None

    def _withdraw(self, stored: Future[None]) -> bool:
        """Take back what has not been begun, so that it holds no memory while the log is away."""
        if not stored.cancel():
            return False
        with self._changed:
            for submission in self._queue:
                if submission.stored is stored:
                    self._queue.remove(submission)
                    self._queued_events -= len(submission.events)
                    break
        return True

    def stop(self, timeout_s: float) -> None:
        """Take no more events, write those already taken, and give up after `timeout_s`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        with self._changed:
            left, self._queue = list(self._queue), deque()
            self._queued_events = 0
        if left:
            _logger.error("stopped with %d submissions not written to the log", len(left))
        for submission in left:
            if submission.stored.set_running_or_notify_cancel():
                submission.stored.set_exception(
                    LogUnavailableError("the server stopped before the log took the events")
                )

    def _run(self) -> None:
        while batch := self._next_batch():
            wanted = [one for one in batch if one.stored.set_running_or_notify_cancel()]
            if wanted:
                self._append(wanted)

    def _next_batch(self) -> list[_Submission]:
        """Wait for submissions and take as many as one write may hold; none: time to end."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            batch: list[_Submission] = []
            events = 0
            while self._queue:
                size = len(self._queue[0].events)
                if batch and events + size > self._config.max_batch_events:
                    break
                batch.append(self._queue.popleft())
                events += size
            self._queued_events -= events
            return batch

    def _append(self, batch: Sequence[_Submission]) -> None:
        events = [event for submission in batch for event in submission.events]
        try:
            self._log.append(events)
        except LogUnavailableError as error:
            _logger.warning("the log did not take %d events: %s", len(events), error)
            self._fail(batch, error)
        except Exception as error:
            # The thread must outlive whatever one batch does to the log's client.
            _logger.exception("writing %d events to the log failed", len(events))
            if len(batch) == 1:
                self._fail(batch, error)
                return
            # One submission the log cannot store must not cost the others theirs.
            for submission in batch:
                self._append([submission])
        else:
            self._land(events)
            for submission in batch:
                submission.stored.set_result(None)

    def _land(self, events: Sequence[Event]) -> None:
        if self._on_stored is None:
            return
        try:
            self._on_stored(events)
        except Exception:
            # They are stored, whatever came of them afterwards: whoever waits must hear of it.
            _logger.exception("stored events failed")

    @staticmethod
    def _fail(batch: Sequence[_Submission], error: Exception) -> None:
        for submission in batch:
            # An exception of its own for each waiter: raising one object in two threads garbles it.
            submission.stored.set_exception(LogUnavailableError(f"the log failed: {error}"))
