"""The trainer: reads a log, leads its events through the loop, checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from threading import Event as StopSignal

from domain.clock import Clock
from domain.errors import (
    DecodeError,
    JournalError,
    LogGapError,
    LogPositionError,
    LogUnavailableError,
    SchemaError,
    SnapshotError,
)
from domain.event_log import DeadLetter, EventLog, Positions
from domain.events import Event
from monitoring.metrics import Metrics
from stream.checkpoint import Checkpointer
from stream.codec import BadEvent, encode
from stream.gaps import Gap, choice, find_gaps, gap_from
from stream.journal import StepJournal
from stream.log_health import LogHealth
from stream.reader import Decoded, Reader, ReaderParts
from stream.train_loop import TrainLoop
from stream.trainer_config import TrainerConfig

logger = logging.getLogger(__name__)

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
    """The one writer of model state.

    Args:
        positions: where the snapshot left off that the loop was restored from; None when nothing
            was learned yet.
    """

    def __init__(
        self, parts: TrainerParts, config: TrainerConfig, positions: Positions | None
    ) -> None:
        self._parts = parts
        self._config = config
        self._is_new = positions is None
        self._positions = dict(positions or {})
        self._published = dict(self._positions)
        self._in_record = False
        self._health = LogHealth(config, parts.clock, parts.metrics)
        self._reader = Reader(
            ReaderParts(
                log=parts.log, health=self._health, clock=parts.clock, metrics=parts.metrics
            ),
            config,
        )

    @property
    def positions(self) -> Positions:
        """Return the position after the last record that went through the loop."""
        return dict(self._positions)

    def readiness(self) -> str:
        """Return "" while the log answers, else why not; may be called from any thread."""
        return self._health.readiness()

    def run(self, stop: StopSignal, *, until_end: bool = False) -> None:
        """Read, learn and checkpoint until `stop` is set, or until the log's end is reached.

        1. Wait until the log answers. Begin where the snapshot left off, if the log still has it.
        2. Take records that were read; wait and try again while the log is unavailable.
        3. Lead each event through the loop; what is no event, or contradicts itself, becomes a
           dead letter and the loop goes on.
        4. Publish a delta between records when it is time. Checkpoint when it is time and there is
           something new.
        5. When told to stop: learn what the log holds already, as far as ten seconds go, so that
           what was taken in is in the last snapshot; checkpoint once more.

        A crash anywhere loses nothing: a restart begins at the last snapshot's positions with the
        last snapshot's state, and events between there and the crash are led through again.

        Raises:
            LogPositionError: records are gone and `TrainerConfig.on_gap` says to stop; says how
                many, and how to go on.
        """
        if not self._begin(stop):
            return
        with closing(self._reader):
            self._reader.start(self._positions)
            while not stop.is_set():
                try:
                    records = self._take()
                except LogUnavailableError as error:
                    self._health.failed("read", error, stop)
                    self._reader.start(self._positions)
                    continue
                if records is None:
                    self._publish_last_delta()
                    continue
                self._learn(records, stop, give_up=stop.is_set)
                self._parts.checkpointer.roll_back_if_asked()
                self._report()
                if not records:
                    self._publish_last_delta()
                if self._parts.checkpointer.due():
                    self._checkpoint()
                if until_end and not records:
                    break
            self._drain(stop)
        self._checkpoint()

    def _begin(self, stop: StopSignal) -> bool:
        """Phase 1 of `run`; False when told to stop before the log had answered.

        Where nothing was learned yet that is published, so that servers can answer.
        """
        log = self._parts.log
        while not stop.is_set():
            self._health.asks("read")
            try:
                beginnings, ends = log.beginning_positions(), log.end_positions()
            except LogUnavailableError as error:
                self._health.failed("read", error, stop)
                continue
            self._health.answered("read")
            if self._is_new:
                self._positions = dict(beginnings)
                self._parts.journal.begin(beginnings, steps=0, parent=None, previous=None)
                self._parts.checkpointer.checkpoint(beginnings)
                self._published = dict(beginnings)
                self._is_new = False
            self._pass(find_gaps(self._positions, beginnings, ends))
            return True
        return False

    def _take(self) -> Sequence[Decoded] | None:
        """Phase 2 of `run`; None when there is nothing to learn for the moment."""
        try:
            return self._reader.take()
        except LogGapError as error:
            self._pass([gap_from(error)])
            self._reader.start(self._positions)
            return None

    def _drain(self, stop: StopSignal) -> None:
        """Phase 5 of `run`. A record of which a part was learned already is not begun again."""
        clock = self._parts.clock
        deadline_s = clock.stopwatch_s() + _DRAIN_S

        def time_is_up() -> bool:
            return clock.stopwatch_s() >= deadline_s

        try:
            ends = self._parts.log.end_positions()
            if _is_before(self._positions, ends):
                self._reader.start(self._positions)
            while _is_before(self._positions, ends) and not self._in_record and not time_is_up():
                self._learn(self._take() or (), stop, give_up=time_is_up)
        except LogUnavailableError as error:
            logger.warning("log unavailable while stopping", extra={"error": str(error)})
        self._report()

    def _learn(
        self, records: Sequence[Decoded], stop: StopSignal, give_up: Callable[[], bool]
    ) -> None:
        """Lead records through the loop, each as a whole; a position moves behind all of one."""
        for decoded in records:
            if give_up():
                return
            record = decoded.record
            for index, entry in enumerate(decoded.entries):
                letter = self._lead(decoded, index, entry)
                if letter is not None and not self._set_aside(letter, stop):
                    return
                self._parts.journal.on_event(self._parts.loop.counts.steps)
            self._in_record = False
            self._positions[record.partition] = record.offset + 1
            self._parts.journal.on_record(record)
            self._parts.checkpointer.publish_delta_if_due(self._positions)

    def _lead(self, decoded: Decoded, index: int, entry: Event | BadEvent) -> DeadLetter | None:
        """Lead one event through the loop; return what is to be set aside instead."""
        if isinstance(entry, BadEvent):
            return self._letter(decoded, index, entry.value, entry.reason, "undecodable")
        self._in_record = True
        try:
            self._parts.loop.process(entry)
            return None
        except DecodeError as error:
            reason, reason_class = error.reason, "contradictory"
        except SchemaError as error:
            reason, reason_class = str(error), "schema"
        is_alone = len(decoded.entries) == 1
        value = decoded.record.value if is_alone else encode(entry)
        return self._letter(decoded, index, value, reason, reason_class)

    def _letter(
        self, decoded: Decoded, index: int, value: bytes, reason: str, reason_class: str
    ) -> DeadLetter:
        record, time_ms = decoded.record, self._parts.clock.now_ms()
        letter = DeadLetter(
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            value=value,
            reason=reason,
            time_ms=time_ms,
            index=index,
        )
        logger.warning("dead letter", extra={"where": letter.where, "reason": reason})
        self._parts.metrics.stream.dead_letters.labels(reason_class=reason_class).inc()
        self._parts.metrics.stream.observe_error("dead_letter", time_ms)
        return letter

    def _set_aside(self, letter: DeadLetter, stop: StopSignal) -> bool:
        """Store a dead letter, however long the log takes: the loop stands at exactly this event.

        False when it could not be stored and the trainer was told to stop.
        """
        while True:
            self._health.asks("write")
            try:
                self._parts.log.dead_letter(letter)
            except LogUnavailableError as error:
                self._health.failed("write", error, stop)
                if stop.is_set():
                    return False
            else:
                self._health.answered("write")
                self._parts.loop.set_aside()
                return True

    def _pass(self, gaps: Sequence[Gap]) -> None:
        """Go on behind lost records, if that is what was asked for."""
        if not gaps:
            return
        parts = self._parts
        parts.metrics.stream.observe_error("log_gap", parts.clock.now_ms())
        if self._config.on_gap == "fail":
            raise LogPositionError(choice(gaps))
        for gap in gaps:
            logger.error("records lost, going on behind them", extra={"gap": str(gap)})
            parts.metrics.stream.lost_records.labels(partition=gap.partition).inc(gap.lost)
            parts.journal.on_gap(gap)
            self._positions[gap.partition] = gap.resume

    def _report(self) -> None:
        """Say how far behind the log we are, and how far back a crash now would throw us."""
        metrics = self._parts.metrics
        for partition, end in self._reader.ends.items():
            lag = max(end - self._positions.get(partition, 0), 0)
            metrics.stream.consumer_lag_records.labels(partition=partition).set(lag)
        is_new = self._positions != self._published
        metrics.snapshot.age_seconds.set(self._parts.checkpointer.age_s if is_new else 0.0)

    def _publish_last_delta(self) -> None:
        """Let servers have what came just before a silence, too; never half of a record."""
        if not self._in_record:
            self._parts.checkpointer.publish_delta_if_due(self._positions)

    def _checkpoint(self) -> None:
        """Publish a snapshot; a full disk costs this snapshot, not what was learned.

        In a silence there is nothing to publish, and a snapshot that somebody rolled back to stays.
        Half of a record is never published: its other half would be learned without the first, or
        the first once more.
        """
        if self._positions == self._published or self._in_record:
            return
        parts = self._parts
        try:
            snapshot_id = parts.checkpointer.checkpoint(self._positions)
        except (SnapshotError, JournalError) as error:
            parts.metrics.snapshot.publish_failures.inc()
            parts.metrics.stream.observe_error("snapshot", parts.clock.now_ms())
            logger.error("snapshot not published", extra={"error": str(error)})
        else:
            self._published = dict(self._positions)
            logger.info("snapshot published", extra={"snapshot": snapshot_id})


def _is_before(positions: Positions, ends: Positions) -> bool:
    return any(positions.get(partition, 0) < end for partition, end in ends.items())
