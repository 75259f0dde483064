"""What the trainer needs of a snapshot store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from domain.event_log import Positions
from domain.state import State


class SnapshotPublisher(Protocol):
    """Makes one consistent cut of several components durable, all of it or nothing."""

    def publish(
        self,
        states: Mapping[str, State],
        *,
        positions: Positions,
        step: int,
        event_time_ms: int,
        schema_hash: str,
        extra: Mapping[str, Any] | None = None,
        promote: bool = True,
    ) -> str:
        """Publish by one rename and return the snapshot's id.

        It is served from now on, unless it is not to be promoted.

        Raises:
            SnapshotError: nothing was published; the current snapshot is as it was.
        """

    def roll_back_before(self, event_time_ms: int) -> str | None:
        """Serve the newest sound snapshot that had seen nothing from this time on.

        Returns:
            Its id; None when there is none, and what is served stays as it is.
        """

    def size_bytes(self, snapshot_id: str) -> int:
        """Return how large a published snapshot is."""
