"""The folder that snapshots lie in: which there are, which is current, what their files hold."""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from domain.errors import SnapshotDamagedError, SnapshotError, SnapshotNotFoundError
from snapshot import disk
from snapshot.manifest import FileEntry, Manifest, is_snapshot_id, manifest_from_json

MANIFEST = "manifest.json"

_CURRENT = "CURRENT"
_WRITING = ".writing"
_TRASH = ".trash-"
_POINTER_LOCK = ".pointer.lock"
_WRITER_LOCK = ".writer.lock"


class SnapshotFolder:
    """Names, reads and moves what lies under one root; creates it only when told to.

    root/CURRENT       id of the current snapshot
    root/<id>/         one snapshot: manifest.json and the files it lists; never changed
    root/.writing/     the one being written
    root/.trash-<id>/  one being deleted

    Attributes:
        aside: where the writer puts together the next snapshot.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.aside = root / _WRITING

    def create(self) -> None:
        """Make the root folder if it is not there."""
        self.root.mkdir(parents=True, exist_ok=True)

    def try_lock_for_writing(self) -> int | None:
        """Take the writer's place; see `disk.try_lock`."""
        return disk.try_lock(self.root / _WRITER_LOCK)

    def clear_leftovers(self) -> None:
        """Delete what a crashed writer was writing or deleting; only the writer may."""
        for path in sorted(self.root.iterdir()):
            if path.name == _WRITING or path.name.startswith(_TRASH):
                disk.remove_folder(path)

    def ids(self) -> list[str]:
        """Return the ids of all snapshots, damaged ones too, oldest first."""
        with disk.naming(self.root):
            try:
                names = [path.name for path in self.root.iterdir()]
            except FileNotFoundError:
                return []
        return sorted(name for name in names if is_snapshot_id(name))

    def current_id(self) -> str | None:
        """Return the id that CURRENT names, None before the first publish.

        Raises:
            SnapshotDamagedError: CURRENT does not hold an id.
        """
        path = self.root / _CURRENT
        with disk.naming(path):
            try:
                text = path.read_bytes().decode(errors="replace").strip()
            except FileNotFoundError:
                return None
        if not is_snapshot_id(text):
            raise SnapshotDamagedError(f"{path}: expected a snapshot id, got {text[:80]!r}")
        return text

    def readable_current_id(self) -> str | None:
        """Return `current_id`, None also when CURRENT is damaged."""
        with contextlib.suppress(SnapshotDamagedError):
            return self.current_id()
        return None

    def resolve(self, snapshot_id: str) -> str:
        """Return the id that "current", "latest" or an id stands for.

        Raises:
            SnapshotNotFoundError: there is no such snapshot; says which there are.
        """
        found: str | None = snapshot_id
        if snapshot_id == "current":
            found = self.current_id()
        elif snapshot_id == "latest":
            found = max(self.ids(), default=None)
        if found is None:
            raise SnapshotNotFoundError(f"{self.root}: there is no {snapshot_id} snapshot")
        if not is_snapshot_id(found) or not (self.root / found).is_dir():
            known = ", ".join(self.ids()) or "none"
            raise SnapshotNotFoundError(f"{self.root}: no snapshot {found!r}; there are: {known}")
        return found

    def manifest(self, snapshot_id: str) -> Manifest:
        """Read a snapshot's manifest.

        Raises:
            SnapshotNotFoundError: the snapshot is gone.
            SnapshotDamagedError: the manifest is missing, damaged or another snapshot's.
        """
        path = self.root / snapshot_id / MANIFEST
        manifest = manifest_from_json(self._read(path), str(path))
        if manifest.snapshot_id != snapshot_id:
            raise SnapshotDamagedError(
                f"{path}: expected snapshot {snapshot_id}, got {manifest.snapshot_id}"
            )
        return manifest

    def content(self, snapshot_id: str, entry: FileEntry) -> bytes:
        """Return a file's bytes, which are those the manifest was written for.

        Raises:
            SnapshotNotFoundError: the snapshot is gone.
            SnapshotDamagedError: naming the file and what differs.
        """
        path = self.root / snapshot_id / entry.name
        content = self._read(path)
        if len(content) != entry.size_bytes:
            raise SnapshotDamagedError(
                f"{path}: expected {entry.size_bytes} bytes, got {len(content)}"
            )
        digest = hashlib.sha256(content).hexdigest()
        if digest != entry.sha256:
            raise SnapshotDamagedError(f"{path}: expected SHA-256 {entry.sha256}, got {digest}")
        return content

    def problems(self, snapshot_id: str) -> Iterator[str]:
        """Say what is wrong with a snapshot, one line per file.

        Raises:
            SnapshotNotFoundError: the snapshot is gone.
        """
        try:
            manifest = self.manifest(snapshot_id)
        except SnapshotDamagedError as error:
            yield str(error)
            return
        for entry in manifest.files:
            try:
                self.content(snapshot_id, entry)
            except SnapshotDamagedError as error:
                yield str(error)

    def reveal(self, snapshot_id: str) -> None:
        """Rename what was written aside to its id; what is there and damaged makes room."""
        target = self.root / snapshot_id
        if target.is_dir():
            if next(self.problems(snapshot_id), None) is None:
                # A crash came after the rename, and a resumed trainer has made the same again.
                disk.remove_folder(self.aside)
                return
            self.discard([snapshot_id])
        self.aside.rename(target)
        disk.sync(self.root)

    def point_at(self, snapshot_id: str) -> None:
        """Make a snapshot current. The caller holds the pointer lock."""
        disk.replace_text(self.root / _CURRENT, f"{snapshot_id}\n")

    def pointer_lock(self) -> contextlib.AbstractContextManager[None]:
        """Hold what keeps a promotion and a pruning from crossing each other."""
        return disk.locked(self.root / _POINTER_LOCK)

    def hide(self, ids: Sequence[str]) -> list[Path]:
        """Take snapshots out of sight, each as a whole, so that no reader sees half of one."""
        return [(self.root / one).rename(self.root / f"{_TRASH}{one}") for one in ids]

    def discard(self, ids: Sequence[str]) -> None:
        """Hide snapshots, then delete them."""
        for path in self.hide(ids):
            disk.remove_folder(path)

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if path.parent.is_dir():
                raise SnapshotDamagedError(f"{path}: the file is missing") from None
            raise SnapshotNotFoundError(
                f"{self.root}: snapshot {path.parent.name} was pruned while it was being read"
            ) from None
        except OSError as error:
            # EIO: the disk has lost it. Anything else (permissions, say) is no damage.
            kind = SnapshotDamagedError if error.errno == errno.EIO else SnapshotError
            raise kind(f"{path}: {error.strerror}") from error
