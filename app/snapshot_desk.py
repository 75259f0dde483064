"""The snapshot store as the server's Admin service sees it."""

from __future__ import annotations

from serving.snapshot_desk import StoredSnapshot, Switched
from snapshot.local_store import LocalSnapshotStore


class LocalSnapshotDesk:
    """Lists, promotes and rolls back the snapshots of a folder; see `serving.SnapshotDesk`."""

    def __init__(self, store: LocalSnapshotStore) -> None:
        self._store = store

    def list(self) -> list[StoredSnapshot]:
        """Return all snapshots, oldest first; one that cannot be read is there as damaged."""
        current = self._store.current_id()
        sound = {manifest.snapshot_id: manifest for manifest in self._store.list()}
        found = []
        for snapshot_id in self._store.ids():
            is_current = snapshot_id == current
            manifest = sound.get(snapshot_id)
            if manifest is None:
                found.append(
                    StoredSnapshot(snapshot_id=snapshot_id, is_current=is_current, is_damaged=True)
                )
                continue
            found.append(
                StoredSnapshot(
                    snapshot_id=snapshot_id,
                    step=manifest.step,
                    event_time_ms=manifest.event_time_ms,
                    events=int(manifest.extra.get("events", 0)),
                    size_bytes=sum(file.size_bytes for file in manifest.files),
                    parent_id=manifest.parent_id or "",
                    is_current=is_current,
                )
            )
        return found

    def promote(self, snapshot_id: str) -> Switched:
        """Make a snapshot current, once it is verified."""
        previous = self._store.current_id() or ""
        self._store.promote(snapshot_id)
        return Switched(self._store.current_id() or snapshot_id, previous)

    def rollback(self) -> Switched:
        """Make the snapshot before the current one current."""
        previous = self._store.current_id() or ""
        return Switched(self._store.rollback(), previous)
