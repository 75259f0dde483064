"""Step journal: which records were learned in which order, durable with each snapshot.

The loop is a function of the events and their order. With one partition the log has that order;
with several, the order in which their records met is the reader's, and nobody could tell it
afterwards. So the trainer writes it down: as runs of records, with the event at which each learning
step was taken. What came after the last snapshot is forgotten by a crash, so it is enough to make a
segment durable just before the snapshot that names it.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.errors import ConfigError
from domain.event_log import Positions, Record
from monitoring.metrics import Metrics
from stream.gaps import Gap
from stream.journal_files import JournalFolder, Run, Segment

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalConfig:
    """Whether a journal is written, and how much of it stays.

    Attributes:
        enabled: False writes none; a live run over several partitions cannot be re-run then.
        max_bytes: size of all segments kept on disk; the oldest are deleted first.
        max_runs: runs that one segment may hold in memory, 20 bytes each. One that grew beyond it,
            because no snapshot could be published for long, is given up.
    """

    enabled: bool = True
    max_bytes: int = 256 * 2**20
    max_runs: int = 1_000_000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_runs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"journal.{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class JournalFacts:
    """What must be known, beside the records, to learn the same again.

    Attributes:
        settings: every setting that decides what is learned, by section, as JSON values.
    """

    settings: Mapping[str, Any]
    schema_hash: str


@dataclass(slots=True)
class _Columns:
    """Runs in 20 bytes each; the last one grows while records follow each other."""

    partition: array[int] = field(default_factory=lambda: array("i"))
    first: array[int] = field(default_factory=lambda: array("q"))
    length: array[int] = field(default_factory=lambda: array("q"))
    closed: bool = True

    def __len__(self) -> int:
        return len(self.partition)

    def add(self, partition: int, first: int, length: int) -> None:
        """Lengthen the last run, or begin another."""
        if (
            not self.closed
            and self.partition[-1] == partition
            and self.first[-1] + self.length[-1] == first
        ):
            self.length[-1] += length
            return
        self.partition.append(partition)
        self.first.append(first)
        self.length.append(length)
        self.closed = False

    def close(self) -> None:
        """Let the next record begin a run."""
        self.closed = True

    def named(self, partitions: list[str]) -> tuple[Run, ...]:
        """Return the runs with the names of their partitions."""
        columns = zip(self.partition, self.first, self.length, strict=True)
        return tuple(Run(partitions[code], first, length) for code, first, length in columns)


class StepJournal:
    """Collects what the trainer does since the last snapshot, and writes it before the next.

    Told by the trainer: `begin`, then `on_event` after each event and `on_record` after each
    record; by the checkpointer: `write`, and `published` when the snapshot is out.
    """

    def __init__(
        self, folder: JournalFolder, config: JournalConfig, facts: JournalFacts, metrics: Metrics
    ) -> None:
        self._folder = folder
        self._config = config
        self._facts = facts
        self._metrics = metrics
        self._codes: dict[str, int] = {}
        self._written: str | None = None
        self._sizes: dict[str, int] | None = None
        self.begin({}, steps=0, parent=None, previous=None)

    def begin(
        self, positions: Positions, *, steps: int, parent: str | None, previous: str | None
    ) -> None:
        """Begin a segment behind a snapshot.

        Args:
            positions: where the snapshot left off.
            steps: learning steps taken by then.
            parent: the snapshot; None when nothing was learned yet.
            previous: the segment that the snapshot names, None when it names none.
        """
        self._begin = dict(positions)
        self._next = dict(positions)
        self._parent = parent
        self._previous = previous
        self._first_step = steps
        self._runs, self._holes = _Columns(), _Columns()
        self._gaps: list[tuple[int, Gap]] = []
        self._steps = array("q")
        self._num_events = 0
        self._given_up = not self._config.enabled

    @property
    def full(self) -> bool:
        """Return whether a snapshot should be published now, so that a new segment can begin."""
        # Half of it is kept for the case that the snapshot cannot be published at once.
        return not self._given_up and 2 * len(self._runs) >= self._config.max_runs

    def on_event(self, steps: int) -> None:
        """Count one more event; `steps` is how many learning steps were taken when it was led."""
        if self._given_up:
            return
        self._num_events += 1
        for _ in range(steps - self._first_step - len(self._steps)):
            self._steps.append(self._num_events)

    def on_record(self, record: Record) -> None:
        """Write down that all events of a record were led through the loop."""
        if self._given_up:
            return
        code = self._codes.setdefault(record.partition, len(self._codes))
        expected = self._next.get(record.partition, record.offset)
        if expected < record.offset:
            self._holes.add(code, expected, record.offset - expected)
        self._runs.add(code, record.offset, 1)
        self._next[record.partition] = record.offset + 1
        if len(self._runs) > self._config.max_runs:
            self._give_up()

    def on_gap(self, gap: Gap) -> None:
        """Write down that records were lost and somebody chose to go on behind them."""
        self._gaps.append((len(self._runs), gap))
        self._next[gap.partition] = gap.resume
        # The same offset behind a gap may be another record: no run reaches across.
        self._runs.close()

    def write(self, positions: Positions) -> str | None:
        """Make the segment durable and return the name that the snapshot is to carry.

        None when there is no journal, or this segment was given up.

        Raises:
            JournalError: the disk refused; nothing was written.
        """
        self._written = None
        if self._given_up:
            return None
        partitions = list(self._codes)
        segment = Segment(
            previous=self._previous,
            parent=self._parent,
            schema_hash=self._facts.schema_hash,
            settings=self._facts.settings,
            begin=self._begin,
            end=dict(positions),
            runs=self._runs.named(partitions),
            gaps=tuple(self._gaps),
            holes=self._holes.named(partitions),
            first_step=self._first_step,
            steps=tuple(self._steps),
            num_events=self._num_events,
        )
        self._written = self._folder.write(segment)
        try:
            self._prune(self._written)
        except OSError as error:
            # The segment is written; there are only more of them than there should be.
            logger.warning("journal not pruned", extra={"error": str(error)})
        return self._written

    def published(self, snapshot_id: str, positions: Positions, *, steps: int) -> None:
        """Begin the next segment: the snapshot that names the last one is out."""
        self.begin(positions, steps=steps, parent=snapshot_id, previous=self._written)

    def _give_up(self) -> None:
        logger.error(
            "journal segment given up: no snapshot could be published for too long",
            extra={"max_runs": self._config.max_runs, "since_snapshot": self._parent or "none"},
        )
        self._given_up = True
        self._runs, self._holes, self._steps = _Columns(), _Columns(), array("q")

    def _prune(self, newest: str) -> None:
        """Delete the oldest segments until the rest fits; the newest stays in any case."""
        if self._sizes is None:
            self._sizes = self._folder.sizes()
        self._sizes.pop(newest, None)
        self._sizes[newest] = self._folder.size_bytes(newest)
        while len(self._sizes) > 1 and sum(self._sizes.values()) > self._config.max_bytes:
            oldest = next(iter(self._sizes))
            self._folder.remove(oldest)
            del self._sizes[oldest]
        self._metrics.journal.observe(sum(self._sizes.values()), len(self._sizes))
