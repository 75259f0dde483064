"""What `headrace snapshots` does."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table

from app.settings import Settings
from domain.errors import SnapshotDamagedError, SnapshotNotFoundError
from snapshot.local_store import LocalSnapshotStore


def print_list(settings: Settings) -> None:
    """Print every snapshot, oldest first."""
    store = _store(settings)
    current = store.current_id()
    table = Table()
    for name in ("snapshot", "step", "newest event", "events", "size", "served"):
        table.add_column(name, justify="right" if name in ("step", "events", "size") else "left")
    for manifest in store.list():
        newest = datetime.fromtimestamp(manifest.event_time_ms / 1_000, UTC)
        table.add_row(
            manifest.snapshot_id,
            f"{manifest.step:,}",
            f"{newest:%Y-%m-%d %H:%M:%S} UTC" if manifest.event_time_ms > 0 else "none yet",
            f"{manifest.extra.get('events', 0):,}",
            f"{sum(file.size_bytes for file in manifest.files) / 2**20:.1f} MiB",
            "yes" if manifest.snapshot_id == current else "",
        )
    Console().print(table)


def verify(settings: Settings, snapshot_id: str | None) -> None:
    """Check one snapshot, or all of them.

    Raises:
        SnapshotDamagedError: naming the first damaged file and how many more there are.
    """
    store = _store(settings)
    wanted = store.ids()
    if snapshot_id is not None:
        wanted = [snapshot_id]
    problems = [problem for one in wanted for problem in store.verify(one)]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SnapshotDamagedError(f"{problems[0]}{more}")
    Console().print(f"{len(wanted)} snapshots verified; every file is what its manifest says.")


def promote(settings: Settings, snapshot_id: str) -> None:
    """Make a snapshot the served one."""
    _store(settings).promote(snapshot_id)
    Console().print(f"{snapshot_id} is the served snapshot now.")


def rollback(settings: Settings) -> None:
    """Make the snapshot before the served one the served one."""
    snapshot_id = _store(settings).rollback()
    Console().print(f"Rolled back: {snapshot_id} is the served snapshot now.")


def _store(settings: Settings) -> LocalSnapshotStore:
    if not settings.data.snapshots.is_dir():
        raise SnapshotNotFoundError(f"{settings.data.snapshots}: there are no snapshots yet")
    return LocalSnapshotStore(settings.data.snapshots, settings.snapshot)
