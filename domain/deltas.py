"""Deltas: what changed in the models since the last one, small enough to follow every second.

A trainer's deltas form a chain: numbers 1, 2, 3, ... in one named chain, each of which turns the
models that the one before left into the next. Every full snapshot says how far into its trainer's
chain it reaches, so that whoever loads it knows which delta comes next, and whoever has followed
the chain that far need not load it at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.event_log import Positions
from domain.state import State


@dataclass(frozen=True, slots=True)
class DeltaPoint:
    """A place in a chain: after delta `number`; 0 is before the first."""

    chain: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delta:
    """What changed between two cuts of the trainer.

    Attributes:
        point: this delta's own place; it applies to models that stand at `point.number - 1`.
        positions: the position after the last record that the models have seen with this delta.
        step: gradient steps taken up to this delta.
        event_time_ms: event time of the newest event seen up to this delta.
        states: by component ("ranking", "memory", "retrieval"), what its `take_delta` returned.
    """

    point: DeltaPoint
    positions: Positions
    step: int
    event_time_ms: int
    schema_hash: str
    states: Mapping[str, State]


class DeltaLearner(Protocol):
    """A learner that can tell what changed, and whose twin can take it over.

    A twin is a learner that loaded a snapshot and then was told to `follow`. It cannot learn: what
    only learning needs (optimiser state, say) does not travel.
    """

    def take_delta(self) -> State:
        """Return what changed since the last call, or since this learner was made or loaded."""

    def follow(self) -> None:
        """Become a twin: from now on only deltas teach. Called once, right after `load`.

        What a twin observes by itself meanwhile (items of the log's end) is there at once and is
        taken back by the next `apply_delta`, which stands at an earlier position; whoever lets it
        observe does so again with what lies behind `Delta.positions`.
        """

    def check_delta(self, state: State) -> None:
        """Raise what `apply_delta` would raise; change nothing.

        So that a delta of several learners is applied to all of them or to none.

        Raises:
            SnapshotError: `state` does not fit, or this is no twin.
        """

    def apply_delta(self, state: State) -> None:
        """Become what the learner was that `state` was taken from; all of it or nothing.

        Nobody may read meanwhile.

        Raises:
            SnapshotError: `state` does not fit, or this is no twin; nothing was changed.
        """


class DeltaPublisher(Protocol):
    """Hands deltas to those who serve."""

    def begin_chain(self) -> str:
        """Begin a new chain, end the one there was, and return the new one's name.

        Raises:
            SnapshotError: nothing was changed.
        """

    def publish(self, delta: Delta) -> int:
        """Make a delta visible, whole, and return its size in bytes.

        Raises:
            SnapshotError: nothing was published.
        """


class DeltaSource(Protocol):
    """Where those who serve find deltas."""

    def after(self, point: DeltaPoint, limit: int) -> Sequence[Delta]:
        """Return at most `limit` deltas that follow `point`, in order; none while none is there.

        Raises:
            DeltaGapError: the next one is gone, or the chain has ended: load a full snapshot.
            SnapshotDamagedError: the next one is there, and its checksum is wrong.
        """
