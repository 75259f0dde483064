"""Deltas: what the learners changed in the last second or so, told to those who serve.

Taking a delta changes nothing that is learned or saved, so a clock may decide when: two runs over
the same log learn the same, however their deltas were cut.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from domain.clock import Clock
from domain.deltas import Delta, DeltaLearner, DeltaPoint, DeltaPublisher
from domain.errors import ConfigError, SnapshotError
from domain.event_log import Positions
from monitoring.metrics import Metrics
from stream.train_loop import TrainLoop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltasConfig:
    """How often deltas are published.

    Attributes:
        every_ms: processing time between two deltas; 0 publishes none. There is none in a silence.
        via: where they go, and where servers look for them: "folder" beside the snapshots, or
            "kafka", a topic of the cluster that holds the event log.
    """

    every_ms: int = 1_000
    via: Literal["folder", "kafka"] = "folder"

    def __post_init__(self) -> None:
        if self.every_ms < 0:
            raise ConfigError(f"deltas.every_ms must not be negative, got {self.every_ms}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaWatch:
    """What deltas are timed and counted with."""

    clock: Clock
    metrics: Metrics


class DeltaPublishing:
    """Cuts the learners of a loop into deltas of one chain.

    Args:
        loop: whose learners are cut.
        publisher: where deltas go.
        positions: up to where the learners have learned already.
    """

    def __init__(
        self,
        loop: TrainLoop,
        publisher: DeltaPublisher,
        config: DeltasConfig,
        watch: DeltaWatch,
        positions: Positions,
    ) -> None:
        self._loop = loop
        self._publisher = publisher
        self._every_s = config.every_ms / 1_000
        self._clock = watch.clock
        self._metrics = watch.metrics
        self._point = DeltaPoint("", 0)
        self._told = dict(positions)
        self._last_s = self._clock.stopwatch_s()

    @property
    def point(self) -> DeltaPoint:
        """Return the place of the last delta, which a snapshot taken right behind it reaches."""
        return self._point

    def begin(self) -> None:
        """Begin a chain where the learners stand; whoever follows another has to load a snapshot.

        For the start of a trainer, and for when servers were sent back to an earlier snapshot: they
        must not be led on from there by the deltas that came behind it.

        Raises:
            SnapshotError: the place where deltas go cannot be written.
        """
        self._point = DeltaPoint(self._publisher.begin_chain(), 0)

    def due(self) -> bool:
        """Return whether it is time for the next delta."""
        return self._clock.stopwatch_s() - self._last_s >= self._every_s

    def publish(self, positions: Positions, *, hold: bool = False) -> None:
        """Publish what changed since the last delta, if records were learned since.

        A delta that is held back, or cannot be published (the disk is full, say), leaves out its
        number: followers meet a gap and wait for the next snapshot. The learners are cut all the
        same, so the chain goes on behind it.
        """
        started_s = self._last_s = self._clock.stopwatch_s()
        if positions == self._told:
            return
        self._told = dict(positions)
        delta = self._cut(positions)
        if hold:
            return
        metrics = self._metrics.snapshot
        try:
            size_bytes = self._publisher.publish(delta)
        except SnapshotError as error:
            metrics.delta_failures.inc()
            self._metrics.stream.observe_error("snapshot", self._clock.now_ms())
            logger.error(
                "delta not published", extra={"delta": self._point.number, "error": str(error)}
            )
        else:
            seconds = self._clock.stopwatch_s() - started_s
            metrics.observe_delta(seconds=seconds, size_bytes=size_bytes)

    def _cut(self, positions: Positions) -> Delta:
        parts = self._loop.parts
        learners: Mapping[str, DeltaLearner] = {
            "ranking": parts.ranking,
            "memory": parts.memory,
            "retrieval": parts.retrieval,
        }
        self._point = DeltaPoint(self._point.chain, self._point.number + 1)
        return Delta(
            point=self._point,
            positions=dict(positions),
            step=self._loop.counts.steps,
            event_time_ms=parts.watermark.newest_ms,
            schema_hash=parts.schema.hash,
            states={name: learner.take_delta() for name, learner in learners.items()},
        )
