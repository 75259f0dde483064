"""What the server can see and do of the snapshot store, whoever keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSnapshot:
    """One snapshot of the store.

    Attributes:
        step: learning steps taken before it was made.
        event_time_ms: event time of the newest event it has learned from.
        events: events it has taken in.
        parent_id: the snapshot that its trainer went on from, "" for the first.
        is_current: the store names it as the one to serve.
        is_damaged: its manifest cannot be read; then only its id is known.
    """

    snapshot_id: str
    step: int = 0
    event_time_ms: int = 0
    events: int = 0
    size_bytes: int = 0
    parent_id: str = ""
    is_current: bool = False
    is_damaged: bool = False


@dataclass(frozen=True, slots=True)
class Switched:
    """Which snapshot is current now, and which was before ("" when none was)."""

    snapshot_id: str
    previous_id: str


class SnapshotDesk(Protocol):
    """Lists snapshots and says which of them is served."""

    def list(self) -> Sequence[StoredSnapshot]:
        """Return all snapshots, oldest first."""

    def promote(self, snapshot_id: str) -> Switched:
        """Make a snapshot current, if it is sound.

        Raises:
            SnapshotNotFoundError: there is no such snapshot.
            SnapshotDamagedError: it is damaged; what was current stays so.
        """

    def rollback(self) -> Switched:
        """Make the snapshot before the current one current.

        Raises:
            SnapshotNotFoundError: nothing is current, or nothing is older.
            SnapshotDamagedError: the one before is damaged; what was current stays so.
        """
