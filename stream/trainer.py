"""The trainer: reads a log, leads its events through the loop, checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event as StopSignal

from domain.clock import Clock
from domain.errors import (
    ConfigError,
    DecodeError,
    JournalError,
    LogUnavailableError,
    SchemaError,
    SnapshotError,
)
from domain.event_log import DeadLetter, EventLog, Positions, Record
from monitoring.metrics import Metrics
from stream.checkpoint import Checkpointer
from stream.codec import decode
from stream.journal import StepJournal
from stream.train_loop import TrainLoop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """How the trainer reads its log.

    Attributes:
        max_records: most records taken from the log at once.
        poll_timeout_s: longest wait for the first record of a read.
        retry_s: wait before reading again while the log is unavailable; doubles up to 10 s.
    """

    max_records: int = 2_000
    poll_timeout_s: float = 0.2
    retry_s: float = 0.2

    def __post_init__(self) -> None:
        for name in ("max_records", "poll_timeout_s", "retry_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"trainer.{name} must be positive, got {getattr(self, name)}")


_LONGEST_RETRY_S = 10.0
# Who ends a trainer waits 30 s before killing it: a third of that for what the log holds already,
# the rest for the last snapshot.
_DRAIN_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerParts:
    """What a trainer drives: where events come from, what learns, what makes it durable."""

    log: EventLog
    loop: TrainLoop
    checkpointer: Checkpointer
    journal: StepJournal
    clock: Clock
    metrics: Metrics


class Trainer:
    """The one writer of model state."""

    def __init__(self, parts: TrainerParts, config: TrainerConfig, positions: Positions) -> None:
        self._parts = parts
        self._config = config
        self._positions = dict(positions)
        self._published = dict(positions)

    @property
    def positions(self) -> Positions:
        """Return the position after the last event that went through the loop."""
        return dict(self._positions)

    def run(self, stop: StopSignal, *, until_end: bool = False) -> None:
        """Read, learn and checkpoint until `stop` is set, or until the log's end is reached.

        1. Read records from the positions on; wait and try again while the log is unavailable.
        2. Lead each through the loop; what is no event, or contradicts itself, becomes a dead
           letter and the loop goes on.
        3. Checkpoint when it is time and there is something new.
        4. When told to stop: learn what the log holds already, as far as ten seconds go, so that
           what was taken in is in the last snapshot; checkpoint once more.

        A crash anywhere loses nothing: a restart begins at the last snapshot's positions with the
        last snapshot's state, and events between there and the crash are led through again.
        """
        parts = self._parts
        retry_s = self._config.retry_s
        while not stop.is_set():
            try:
                records = self._read()
                self._learn(records, give_up=stop.is_set)
                self._report_lag()
            except LogUnavailableError as error:
                parts.metrics.stream.log_failures.inc()
                logger.warning("log unavailable", extra={"retry_s": retry_s, "error": str(error)})
                stop.wait(retry_s)
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
                continue
            retry_s = self._config.retry_s
            self._report_age()
            if parts.checkpointer.due():
                self._checkpoint()
            if until_end and not records:
                break
        self._drain()
        self._checkpoint()

    def _drain(self) -> None:
        clock, log = self._parts.clock, self._parts.log
        deadline_s = clock.stopwatch_s() + _DRAIN_S

        def time_is_up() -> bool:
            return clock.stopwatch_s() >= deadline_s

        try:
            ends = log.end_positions()
            records = self._read()
            while records and not time_is_up():
                self._learn(records, give_up=time_is_up)
                records = self._read() if _is_before(self._positions, ends) else []
        except LogUnavailableError as error:
            logger.warning("log unavailable while stopping", extra={"error": str(error)})

    def _read(self) -> list[Record]:
        return self._parts.log.read(
            self._positions,
            max_records=self._config.max_records,
            timeout_s=self._config.poll_timeout_s,
        )

    def _learn(self, records: list[Record], give_up: Callable[[], bool]) -> None:
        for record in records:
            if give_up():
                return
            self._lead(record)
            # One by one: if setting a record aside fails, reading goes on at exactly that record.
            self._positions[record.partition] = record.offset + 1
            self._parts.journal.on_event(self._parts.loop.counts.steps)
            self._parts.journal.on_record(record)

    def _lead(self, record: Record) -> None:
        try:
            event = decode(record.value)
        except DecodeError as error:
            self._set_aside(record, error.reason, "undecodable")
            return
        try:
            self._parts.loop.process(event)
        except DecodeError as error:
            self._set_aside(record, error.reason, "contradictory")
        except SchemaError as error:
            self._set_aside(record, str(error), "schema")

    def _set_aside(self, record: Record, reason: str, reason_class: str) -> None:
        logger.warning("dead letter", extra={"where": record.where, "reason": reason})
        self._parts.metrics.stream.dead_letters.labels(reason_class=reason_class).inc()
        self._parts.log.dead_letter(
            DeadLetter(
                partition=record.partition,
                offset=record.offset,
                key=record.key,
                value=record.value,
                reason=reason,
                time_ms=self._parts.clock.now_ms(),
            )
        )

    def _report_lag(self) -> None:
        ends = self._parts.log.end_positions()
        for partition, end in ends.items():
            lag = end - self._positions.get(partition, 0)
            self._parts.metrics.stream.consumer_lag_records.labels(partition=partition).set(
                max(lag, 0)
            )

    def _report_age(self) -> None:
        """Say how far back a crash now would throw us; not at all when nothing came since."""
        is_new = self._positions != self._published
        age_s = self._parts.checkpointer.age_s if is_new else 0.0
        self._parts.metrics.snapshot.age_seconds.set(age_s)

    def _checkpoint(self) -> None:
        """Publish a snapshot; a full disk costs this snapshot, not what was learned.

        In a silence there is nothing to publish, and a snapshot that somebody rolled back to stays.
        """
        if self._positions == self._published:
            return
        try:
            snapshot_id = self._parts.checkpointer.checkpoint(self._positions)
        except (SnapshotError, JournalError) as error:
            self._parts.metrics.snapshot.publish_failures.inc()
            logger.error("snapshot not published", extra={"error": str(error)})
        else:
            self._published = dict(self._positions)
            logger.info("snapshot published", extra={"snapshot": snapshot_id})


def _is_before(positions: Positions, ends: Positions) -> bool:
    return any(positions.get(partition, 0) < end for partition, end in ends.items())
