"""Snapshots in a folder of the local disk: written aside, made durable, published by one rename."""

from __future__ import annotations

import builtins
import contextlib
import logging
import os
import weakref
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from domain.errors import (
    ConfigError,
    SnapshotDamagedError,
    SnapshotError,
    SnapshotNotFoundError,
)
from domain.state import State
from snapshot import disk
from snapshot.folder import MANIFEST, SnapshotFolder
from snapshot.manifest import FileEntry, Manifest, is_step, manifest_from_json
from snapshot.state_files import ARRAYS, OTHERS, read_state, write_state

logger = logging.getLogger(__name__)

_CURRENT_ATTEMPTS = 10
"""Tries of `load_current`. One fails only when publishing and pruning overtook the reading, which
is rare; ten in a row mean that too few snapshots are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotConfig:
    """How many snapshots stay."""

    keep: int = 5
    """Snapshots kept after each publish, the current one included."""

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise ConfigError(f"snapshot.keep must be at least 1, got {self.keep}")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A verified snapshot.

    Attributes:
        states: state of each component by its name.
    """

    manifest: Manifest
    states: Mapping[str, State]


class LocalSnapshotStore:
    """A folder of snapshots with one writer and any number of readers, in any processes.

    Whoever publishes first becomes the writer and stays it until the process ends or the store is
    closed. Reading, promoting and rolling back need no turn. Nothing is created on disk before the
    first publish.
    """

    def __init__(self, root: Path | str, config: SnapshotConfig | None = None) -> None:
        self._folder = SnapshotFolder(Path(root))
        self._config = config or SnapshotConfig()
        self._parent_id: str | None = None
        self._release_writer: weakref.finalize[..., Any] | None = None

    def become_writer(self) -> None:
        """Take the writer's place and clear away what a crashed writer left; `publish` does it.

        Raises:
            SnapshotError: another store is the writer, or the folder cannot be written.
        """
        if self._release_writer is not None and self._release_writer.alive:
            return
        with disk.naming(self._folder.root):
            self._folder.create()
            descriptor = self._folder.try_lock_for_writing()
            if descriptor is None:
                raise SnapshotError(f"{self._folder.root}: another writer publishes snapshots here")
            self._release_writer = weakref.finalize(self, os.close, descriptor)
            self._folder.clear_leftovers()

    def close(self) -> None:
        """Give the writer's place back; may be called twice."""
        if self._release_writer is not None:
            self._release_writer()

    def publish(
        self,
        states: Mapping[str, State],
        *,
        positions: Mapping[str, int],
        step: int,
        event_time_ms: int,
        schema_hash: str,
        extra: Mapping[str, Any] | None = None,
        promote: bool = True,
    ) -> str:
        """Make a snapshot of the states, make it current and return its id.

        1. Write every file into a folder of its own, aside.
        2. Wait until files and folder are on the disk.
        3. Rename the folder to the snapshot's id.
        4. Point CURRENT at it: written aside, renamed. Left out when it is not to be promoted.
        5. Prune: take the oldest out of sight, then delete them.

        A crash in 1 or 2 leaves a folder that nobody looks at and the next writer deletes. After 3
        the snapshot exists but the earlier one is still current; a trainer that resumes from that
        one comes by the same step with the same content, so the same id, and goes on at 4. After 4
        the new one is current. A crash in 5 leaves too many, which the next publish prunes.

        Raises:
            SnapshotError: a state has no exact form on disk, or the disk refused (it is full, say);
                the current snapshot is as it was. When only 5 was refused, a warning is logged.
        """
        self.become_writer()
        manifest = Manifest(
            snapshot_id="",
            step=step,
            event_time_ms=event_time_ms,
            positions=dict(positions),
            schema_hash=schema_hash,
            files=(),
            parent_id=self._parent_id or self._folder.readable_current_id(),
            extra=dict(extra or {}),
        )
        try:
            with disk.naming(self._folder.aside):
                manifest = self._write_aside(states, manifest)
                self._make_durable(manifest)
                self._reveal(manifest)
                if promote:
                    self._point_at(manifest)
                self._parent_id = manifest.snapshot_id
        except SnapshotError:
            with contextlib.suppress(OSError):  # a full disk is to be freed, not filled further
                disk.remove_folder(self._folder.aside)
            raise
        try:
            with disk.naming(self._folder.root):
                self._prune(manifest)
        except SnapshotError as error:
            # The snapshot is published; there are only more of them than there should be.
            logger.warning("snapshots not pruned", extra={"error": str(error)})
        return manifest.snapshot_id

    def load(
        self, snapshot_id: str = "current", *, components: Collection[str] | None = None
    ) -> Snapshot:
        """Read a snapshot, verifying the checksum of every file that is read.

        Args:
            snapshot_id: an id, "current" or "latest".
            components: names of the states wanted, all of them when None.

        Raises:
            SnapshotNotFoundError: there is none, it was pruned while it was being read, or it has
                no state of a wanted name.
            SnapshotDamagedError: naming the file that is missing or differs, and how.
        """
        snapshot_id = self._folder.resolve(snapshot_id)
        manifest = self._folder.manifest(snapshot_id)
        entries = {entry.name: entry for entry in manifest.files}
        names = [name.removesuffix(OTHERS) for name in entries if name.endswith(OTHERS)]
        wanted = names if components is None else sorted(components)
        states: dict[str, State] = {}
        for name in wanted:
            if name not in names:
                raise SnapshotNotFoundError(
                    f"snapshot {snapshot_id} has no state {name!r}; it has {', '.join(names)}"
                )
            others = self._folder.content(snapshot_id, entries[name + OTHERS])
            arrays = entries.get(name + ARRAYS)
            found = None if arrays is None else self._folder.content(snapshot_id, arrays)
            states[name] = read_state(others, found, f"snapshot {snapshot_id}, {name}")
        return Snapshot(manifest, states)

    def load_current(self, *, components: Collection[str] | None = None) -> Snapshot:
        """Read the current snapshot; when it is pruned meanwhile, read the one that is current now.

        Raises:
            SnapshotNotFoundError: nothing is current, or publishing overtook the reading ten times.
            SnapshotDamagedError: naming the file that is missing or differs, and how.
        """
        for _ in range(_CURRENT_ATTEMPTS - 1):
            with contextlib.suppress(SnapshotNotFoundError):
                return self.load("current", components=components)
        return self.load("current", components=components)

    def load_newest_good(self) -> tuple[Snapshot | None, builtins.list[str]]:
        """Return what a trainer starts from, and one line per damaged snapshot passed over.

        That is the current snapshot or, when it is damaged, the newest good one before it. Newer
        ones (left by a roll back) come last, nearest first. None when there is no good one.
        """
        passed_over = []
        for snapshot_id in self._by_preference():
            try:
                snapshot = self.load(snapshot_id)
            except (SnapshotDamagedError, SnapshotNotFoundError) as error:
                passed_over.append(str(error))
            else:
                self._parent_id = snapshot_id
                return snapshot, passed_over
        return None, passed_over

    def current_id(self) -> str | None:
        """Return the id of the current snapshot, None before the first publish.

        Raises:
            SnapshotDamagedError: CURRENT does not hold an id.
        """
        return self._folder.current_id()

    def latest_id(self) -> str | None:
        """Return the id with the highest step, None when there is none."""
        return max(self._folder.ids(), default=None)

    def ids(self) -> builtins.list[str]:
        """Return the ids of all snapshots, damaged ones too, oldest first."""
        return self._folder.ids()

    def list(self) -> builtins.list[Manifest]:
        """Return the manifests of all snapshots, oldest first.

        One whose manifest is damaged is left out; `ids` names it and `verify` says what is wrong.
        """
        manifests = []
        for snapshot_id in self._folder.ids():
            with contextlib.suppress(SnapshotDamagedError, SnapshotNotFoundError):
                manifests.append(self._folder.manifest(snapshot_id))
        return manifests

    def size_bytes(self, snapshot_id: str = "current") -> int:
        """Return the size of all files of a snapshot, its manifest aside.

        Raises:
            SnapshotNotFoundError: there is no such snapshot.
            SnapshotDamagedError: its manifest is damaged.
        """
        manifest = self._folder.manifest(self._folder.resolve(snapshot_id))
        return sum(entry.size_bytes for entry in manifest.files)

    def verify(self, snapshot_id: str = "current") -> builtins.list[str]:
        """Return what is wrong with a snapshot, one line per file; empty when it is sound.

        Raises:
            SnapshotNotFoundError: there is no such snapshot.
        """
        return [*self._folder.problems(self._folder.resolve(snapshot_id))]

    def promote(self, snapshot_id: str) -> None:
        """Make a snapshot current, if it is sound.

        Raises:
            SnapshotNotFoundError: there is no such snapshot.
            SnapshotDamagedError: it is damaged; what was current stays so.
        """
        snapshot_id = self._folder.resolve(snapshot_id)
        with disk.naming(self._folder.root), self._folder.pointer_lock():
            problem = next(self._folder.problems(snapshot_id), None)
            if problem is not None:
                raise SnapshotDamagedError(problem)
            self._folder.point_at(snapshot_id)

    def rollback(self) -> str:
        """Make the snapshot before the current one current, and return its id.

        Raises:
            SnapshotNotFoundError: nothing is current, or nothing is older.
            SnapshotDamagedError: the one before is damaged; what was current stays so.
        """
        current = self._folder.resolve("current")
        older = [snapshot_id for snapshot_id in self._folder.ids() if snapshot_id < current]
        if not older:
            raise SnapshotNotFoundError(f"{self._folder.root}: nothing is older than {current}")
        self.promote(older[-1])
        return older[-1]

    def roll_back_before(self, event_time_ms: int) -> str | None:
        """Make the newest sound snapshot current that had seen nothing from this time on.

        Returns:
            Its id; None when there is none, and what is current stays so.
        """
        earlier = [one for one in self.list() if one.event_time_ms < event_time_ms]
        for manifest in reversed(earlier):
            with contextlib.suppress(SnapshotDamagedError, SnapshotNotFoundError):
                self.promote(manifest.snapshot_id)
                return manifest.snapshot_id
        return None

    def _write_aside(self, states: Mapping[str, State], draft: Manifest) -> Manifest:
        """Phase 1 of `publish`; the manifest is read back, so that what it holds is well formed."""
        if not is_step(draft.step):
            raise SnapshotError(f"step must be an int from 0 to 10**12 - 1, got {draft.step!r}")
        aside = self._folder.aside
        disk.remove_folder(aside)
        aside.mkdir()
        entries = []
        for component in sorted(states):
            for name in write_state(aside, component, states[component]):
                path = aside / name
                size_bytes = path.stat().st_size
                entries.append(
                    FileEntry(name=name, size_bytes=size_bytes, sha256=disk.sha256_of(path))
                )
        try:
            text = replace(draft, files=tuple(entries)).named().to_json()
        except (TypeError, ValueError) as error:
            raise SnapshotError(f"positions, event time or extra are not JSON: {error}") from error
        (aside / MANIFEST).write_text(text, encoding="utf-8")
        return manifest_from_json(text, "the new manifest")

    def _make_durable(self, manifest: Manifest) -> None:
        """Phase 2 of `publish`."""
        aside = self._folder.aside
        for name in (*(entry.name for entry in manifest.files), MANIFEST):
            disk.sync(aside / name)
        disk.sync(aside)

    def _reveal(self, manifest: Manifest) -> None:
        """Phase 3 of `publish`."""
        self._folder.reveal(manifest.snapshot_id)

    def _point_at(self, manifest: Manifest) -> None:
        """Phase 4 of `publish`."""
        with self._folder.pointer_lock():
            self._folder.point_at(manifest.snapshot_id)

    def _prune(self, manifest: Manifest) -> None:
        """Phase 5 of `publish`.

        What is newer than the snapshot just published belongs to a course that was rolled back; it
        only stays while there is room. What is current stays in any case.
        """
        published_id = manifest.snapshot_id
        with self._folder.pointer_lock():
            ids = self._folder.ids()
            up_to_now = [snapshot_id for snapshot_id in ids if snapshot_id <= published_id]
            newer = [snapshot_id for snapshot_id in ids if snapshot_id > published_id]
            keep = [*reversed(up_to_now), *newer][: self._config.keep]
            keep.append(self._folder.readable_current_id() or published_id)
            hidden = self._folder.hide([one for one in ids if one not in keep])
        for path in hidden:
            disk.remove_folder(path)

    def _by_preference(self) -> Iterator[str]:
        ids = self._folder.ids()
        current = self._folder.readable_current_id() or max(ids, default="")
        yield from reversed([snapshot_id for snapshot_id in ids if snapshot_id <= current])
        yield from (snapshot_id for snapshot_id in ids if snapshot_id > current)
