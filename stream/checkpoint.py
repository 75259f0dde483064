"""Checkpoint: one consistent cut of everything the trainer knows, made durable."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from domain.clock import Clock
from domain.errors import ConfigError, LogUnavailableError, SnapshotError
from domain.event_log import EventLog, Positions
from domain.features import schema_to_mapping
from domain.snapshots import SnapshotPublisher
from domain.state import State
from monitoring.metrics import Metrics
from stream.delta_publishing import DeltaPublishing
from stream.journal import StepJournal
from stream.train_loop import TrainLoop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """When to checkpoint.

    Attributes:
        every_s: processing time between two checkpoints. When one is made changes nothing in
            what is learned, so a clock may decide it.
    """

    every_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.every_s > 0:
            raise ConfigError(f"checkpoint.every_s must be positive, got {self.every_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTargets:
    """Where a checkpoint goes: the snapshot store, and the log that is told how far it reaches.

    Attributes:
        journal: told before and after each snapshot; None writes none.
        deltas: cut right before each snapshot, which then says how far into their chain it
            reaches; None when there are none.
        extra: plain data that every snapshot carries, for whoever loads it.
    """

    store: SnapshotPublisher
    log: EventLog
    journal: StepJournal | None = None
    deltas: DeltaPublishing | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Checkpointer:
    """Publishes snapshots of a loop, now and then."""

    def __init__(
        self,
        loop: TrainLoop,
        targets: CheckpointTargets,
        config: CheckpointConfig,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._loop = loop
        self._targets = targets
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._tried_s = self._published_s = clock.stopwatch_s()
        self._failed = False

    @property
    def age_s(self) -> float:
        """Return the processing time since the last snapshot was published."""
        return self._clock.stopwatch_s() - self._published_s

    @property
    def holding(self) -> bool:
        """Return whether new snapshots are not to be served for now."""
        reactions = self._loop.parts.reactions
        return reactions is not None and reactions.holding

    def roll_back_if_asked(self) -> None:
        """Serve an earlier snapshot when a reaction to drift has asked for it.

        Where there is none that early, or the disk refuses, that is said and all stays as it is:
        learning goes on either way.
        """
        reactions = self._loop.parts.reactions
        before_ms = None if reactions is None else reactions.take_roll_back_ms()
        if before_ms is None:
            return
        try:
            snapshot_id = self._targets.store.roll_back_before(before_ms)
        except SnapshotError as error:
            logger.error("not rolled back", extra={"error": str(error)})
            return
        if snapshot_id is None:
            logger.error("not rolled back: no snapshot is that old", extra={"time_ms": before_ms})
        else:
            logger.warning("rolled back", extra={"snapshot": snapshot_id})
            self._end_chain()

    def publish_delta_if_due(self, positions: Positions) -> None:
        """Publish a delta when it is time; while snapshots are held back, so are deltas."""
        deltas = self._targets.deltas
        if deltas is not None and deltas.due():
            deltas.publish(positions, hold=self.holding)

    def hasten(self) -> None:
        """Have the next checkpoint as soon as something was learned.

        For the begin of a chain of deltas: servers can join it at a snapshot only.
        """
        self._tried_s -= self._config.every_s

    def _end_chain(self) -> None:
        """Keep servers at the snapshot that they were sent back to."""
        if self._targets.deltas is None:
            return
        try:
            self._targets.deltas.begin()
        except SnapshotError as error:
            logger.error("deltas not ended", extra={"error": str(error)})

    def due(self) -> bool:
        """Return whether it is time for the next checkpoint.

        One that failed counts too: a full disk is not tried again before the next time has come.
        """
        if self._targets.journal is not None and self._targets.journal.full and not self._failed:
            return True
        return self._clock.stopwatch_s() - self._tried_s >= self._config.every_s

    def checkpoint(self, positions: Positions) -> str:
        """Make progress durable and return the snapshot's id.

        0. Publish a delta, so that whoever follows deltas stands where the snapshot does.
        1. Write the journal's segment: the order of what this snapshot holds beyond the last.
        2. Write the loop's state, the learners and `positions` to a new snapshot.
        3. Publish it: one rename, so readers see all of it or none.
        4. Commit `positions` to the log.

        A crash before 3 leaves the old snapshot with its old positions, and perhaps a segment that
        no snapshot names, which nobody looks at. A crash between 3 and 4 is harmless: a restart
        seeks to the positions in the newest snapshot; the log's own commit only feeds the lag
        panel. Committing first could lose events.

        Raises:
            SnapshotError: nothing was published.
            JournalError: nothing was published, because the segment could not be written.
        """
        started_s = self._tried_s = self._clock.stopwatch_s()
        self._failed = True
        parts, counts = self._loop.parts, self._loop.counts
        if self._targets.deltas is not None:
            self._targets.deltas.publish(positions, hold=self.holding)
        journal = self._targets.journal
        segment = journal.write(positions) if journal is not None else None
        snapshot_id = self._targets.store.publish(
            states_of(self._loop),
            positions=positions,
            step=counts.steps,
            event_time_ms=parts.watermark.newest_ms,
            schema_hash=parts.schema.hash,
            extra={
                **self._targets.extra,
                **_facts(self._loop),
                **_named(segment),
                **_reached(self._targets.deltas),
            },
            promote=not self.holding,
        )
        self._failed = False
        if journal is not None:
            journal.published(snapshot_id, positions, steps=counts.steps)
        try:
            self._targets.log.commit(positions)
        except LogUnavailableError as error:
            # The snapshot is published and holds the positions; only the lag panel is behind.
            logger.warning("positions not committed", extra={"error": str(error)})
        self._tried_s = self._published_s = self._clock.stopwatch_s()
        self._metrics.snapshot.observe_publish(
            seconds=self._published_s - started_s,
            size_bytes=self._targets.store.size_bytes(snapshot_id),
            step=counts.steps,
        )
        return snapshot_id


def states_of(loop: TrainLoop) -> dict[str, State]:
    """Return the state of every component of a snapshot, by component name."""
    parts = loop.parts
    return {
        "stream": loop.save(),
        "ranking": parts.ranking.save(),
        "memory": parts.memory.save(),
        "retrieval": parts.retrieval.save(),
    }


def restore(loop: TrainLoop, states: dict[str, State]) -> None:
    """Become what `states_of` described, down to the random states."""
    parts = loop.parts
    parts.ranking.load(states["ranking"])
    parts.memory.load(states["memory"])
    parts.retrieval.load(states["retrieval"])
    loop.load(states["stream"])


JOURNAL = "journal"
"""Key of a manifest's extra under which a snapshot names its segment."""


DELTA = "delta"
"""Key of a manifest's extra under which a snapshot says how far into a chain of deltas it reaches:
{"chain": name, "number": of the last delta whose changes it holds}."""


def _reached(deltas: DeltaPublishing | None) -> dict[str, Any]:
    return {} if deltas is None else {DELTA: asdict(deltas.point)}


def _named(segment: str | None) -> dict[str, Any]:
    return {} if segment is None else {JOURNAL: segment}


def _facts(loop: TrainLoop) -> dict[str, Any]:
    return {
        "schema": schema_to_mapping(loop.parts.schema),
        "events": loop.counts.events,
        "examples": loop.counts.examples,
    }
