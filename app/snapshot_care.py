"""What `headrace snapshots` does."""

from __future__ import annotations

from datetime import UTC, datetime

from rich import box
from rich.console import Console
from rich.table import Table

from app.settings import Settings
from domain.errors import SnapshotDamagedError, SnapshotNotFoundError
from snapshot.local_store import LocalSnapshotStore


def print_list(settings: Settings) -> None:
    """Print every snapshot, oldest first."""
    store = _store(settings)
    current = store.current_id()
    sound = {manifest.snapshot_id: manifest for manifest in store.list()}
    # Everything fits into 80 columns: an id that is cut is of no use.
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in ("", "snapshot", "step", "newest event\n(UTC)", "events", "size"):
        is_number = name in ("step", "events", "size")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    for snapshot_id in store.ids():
        mark = "*" if snapshot_id == current else ""
        manifest = sound.get(snapshot_id)
        if manifest is None:
            table.add_row(mark, snapshot_id, "", "damaged")
            continue
        newest = datetime.fromtimestamp(manifest.event_time_ms / 1_000, UTC)
        table.add_row(
            mark,
            snapshot_id,
            f"{manifest.step:,}",
            f"{newest:%Y-%m-%d %H:%M}" if manifest.event_time_ms > 0 else "none yet",
            f"{manifest.extra.get('events', 0):,}",
            f"{sum(file.size_bytes for file in manifest.files) / 2**20:.1f} MiB",
        )
    console = Console(highlight=False)
    console.print(table)
    console.print("* is the served snapshot.")


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
    _say(f"Verified: {', '.join(wanted)}. Every file is what its manifest says.")


def promote(settings: Settings, snapshot_id: str) -> None:
    """Make a snapshot the served one."""
    store = _store(settings)
    store.promote(snapshot_id)
    _say(f"{store.current_id()} is the served snapshot now.")


def rollback(settings: Settings) -> None:
    """Make the snapshot before the served one the served one."""
    _say(f"Rolled back: {_store(settings).rollback()} is the served snapshot now.")


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(line)


def _store(settings: Settings) -> LocalSnapshotStore:
    store = LocalSnapshotStore(settings.data.snapshots, settings.snapshot)
    if not store.ids():
        raise SnapshotNotFoundError(f"{settings.data.snapshots}: there are no snapshots yet")
    return store
