"""The event-log contract: an ordered, durable sequence of records per partition.

Nothing above `stream/` knows which implementation it talks to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from domain.events import Event

Positions: TypeAlias = dict[str, int]
"""Next offset to read for each partition; the key is "topic/partition"."""


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of a log: bytes that should be an event, and where they stand."""

    partition: str
    offset: int
    key: str
    value: bytes

    @property
    def where(self) -> str:
        """Return "partition@offset", as error messages name it."""
        return f"{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record set aside: its original bytes, its position and why.

    Attributes:
        value: the bytes as they came; of a record that carries many events, the one event alone.
        index: place of the event in a record that carries many, 0 otherwise.
        time_ms: when it was set aside.
        redriven_ms: when it was last appended to the log again; None when it never was.
    """

    partition: str
    offset: int
    key: str
    value: bytes
    reason: str
    time_ms: int
    index: int = 0
    redriven_ms: int | None = None

    @property
    def where(self) -> str:
        """Return "partition@offset", and "#index" for later events of a record that carries many.

        It names the letter: no two of a log have the same.
        """
        place = f"{self.partition}@{self.offset}"
        return f"{place}#{self.index}" if self.index else place


class EventLog(Protocol):
    """A log that several processes may read and append to."""

    def append(self, events: Sequence[Event]) -> None:
        """Store events durably, in order per key; on return they survive a crash.

        Raises:
            LogUnavailableError: nothing may be assumed about the events.
        """

    def append_raw(self, records: Sequence[tuple[str, bytes]]) -> None:
        """Store (key, bytes) as they are, as a broken or foreign producer would."""

    def read(self, positions: Positions, *, max_records: int, timeout_s: float) -> list[Record]:
        """Return up to `max_records` records from `positions` on, in order per partition.

        Waits at most `timeout_s` for the first one. A partition missing from `positions` is read
        from its beginning. `positions` is not changed: see `advance`.

        Raises:
            LogGapError: a position is older than what the log holds, or past its end.
            LogPositionError: a position names a partition that the log does not have.
            LogUnavailableError: the log cannot be read now.
        """

    def beginning_positions(self) -> Positions:
        """Return the oldest offset still held, per partition."""

    def end_positions(self) -> Positions:
        """Return the offset the next record will get, per partition."""

    def commit(self, positions: Positions) -> None:
        """Tell the log how far a snapshot reaches; only used to report lag."""

    def committed(self) -> Positions:
        """Return what was last committed; empty when nothing was."""

    def dead_letter(self, letter: DeadLetter) -> None:
        """Set a record aside, durably; the same place (`where`) a second time changes nothing."""

    def dead_letters(self) -> list[DeadLetter]:
        """Return every dead letter, oldest first."""

    def append_again(self, letters: Sequence[DeadLetter]) -> None:
        """Store the bytes of letters again, under their keys, where such records go.

        An event that had its effect already has none now: its id is known.

        Raises:
            LogError: the log is read only, or has no place for one of them; none was stored.
            LogUnavailableError: nothing may be assumed about them.
        """

    def mark_redriven(self, letters: Sequence[DeadLetter], time_ms: int) -> None:
        """Remember, durably, that these letters were appended to the log again at `time_ms`."""

    def close(self) -> None:
        """Release files and sockets; may be called twice."""


def advance(positions: Mapping[str, int], records: Sequence[Record]) -> Positions:
    """Return positions just after `records`.

    >>> advance({"events/0": 3}, [Record("events/0", 3, "u", b""), Record("events/1", 0, "v", b"")])
    {'events/0': 4, 'events/1': 1}
    """
    after = dict(positions)
    for record in records:
        after[record.partition] = record.offset + 1
    return after
