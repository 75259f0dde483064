"""Deltas in a folder beside the snapshots: one numbered file each, written aside and renamed.

Nothing is synced to the disk. A power cut may lose the newest deltas or leave one that is damaged:
to a reader that is a gap, which the next full snapshot closes, and the trainer never reads them. A
process that is killed loses nothing that was renamed.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domain.deltas import Delta, DeltaPoint
from domain.errors import ConfigError, DeltaGapError, SnapshotDamagedError, SnapshotError
from snapshot import disk
from snapshot.delta_files import delta_from_bytes, delta_to_bytes

logger = logging.getLogger(__name__)

_CHAIN = "CHAIN"
_WRITING = ".writing"
_CHAIN_NAME = re.compile(r"[0-9a-f]{16}")
_FILE_NAME = re.compile(r"([0-9]{12})\.delta")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaStoreConfig:
    """How many deltas stay.

    A server joins the chain at a snapshot, so what stays must reach back behind the newest one.

    Attributes:
        keep: deltas kept; at one a second, ten minutes of them.
        max_bytes: size of all of them; the oldest go first, the newest stays in any case.
    """

    keep: int = 600
    max_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        for name in ("keep", "max_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"delta_store.{name} must be at least 1, got {getattr(self, name)}"
                )


class LocalDeltaStore:
    """Implements `domain.deltas.DeltaPublisher` and `DeltaSource` in a folder.

    root/CHAIN                    name of the chain that is being written
    root/<chain>/<number>.delta   one delta, 12 digits; never changed
    root/<chain>/.writing         the one being written

    One writer, the trainer that holds the snapshots' writer lock; any number of readers, in any
    processes of this machine.
    """

    def __init__(self, root: Path | str, config: DeltaStoreConfig | None = None) -> None:
        self._root = Path(root)
        self._config = config or DeltaStoreConfig()
        self._chain = ""
        self._held: deque[tuple[int, int]] = deque()  # (number, size), oldest first
        self._held_bytes = 0

    def begin_chain(self) -> str:
        """Begin a new chain, end the one there was, and return the new one's name.

        1. Make the new chain's folder.
        2. Point CHAIN at it: written aside, renamed. From here on the old chain has ended.
        3. Delete all other chains, those of crashed writers too.

        A trainer that resumes learns again what came after its snapshot, but cuts it elsewhere, so
        its deltas must never be taken for those of its earlier life. The name is drawn by the
        operating system; it is no part of any model's state.

        Raises:
            SnapshotError: the folder cannot be written.
        """
        chain = secrets.token_hex(8)
        with disk.naming(self._root):
            (self._root / chain).mkdir(parents=True)
            disk.replace_text(self._root / _CHAIN, f"{chain}\n")
            for path in sorted(self._root.iterdir()):
                if _CHAIN_NAME.fullmatch(path.name) and path.name != chain:
                    disk.remove_folder(path)
        self._chain = chain
        self._held.clear()
        self._held_bytes = 0
        return chain

    def publish(self, delta: Delta) -> int:
        """Make a delta visible, whole, and return its size in bytes; then delete the oldest.

        Raises:
            SnapshotError: nothing was published: it is not of this chain, not behind the last one,
                has no exact form on disk, or the disk refused.
        """
        number = delta.point.number
        last = self._held[-1][0] if self._held else 0
        if delta.point.chain != self._chain or number <= last:
            raise SnapshotError(
                f"{self._root}: expected a delta of chain {self._chain or 'none'} behind {last}, "
                f"got {delta.point.chain} {number}"
            )
        content = delta_to_bytes(delta)
        aside = self._root / self._chain / _WRITING
        with disk.naming(aside):
            write_aside(aside, content)
            aside.rename(self.path_of(delta.point))
        self._held.append((number, len(content)))
        self._held_bytes += len(content)
        try:
            with disk.naming(self._root):
                self._prune()
        except SnapshotError as error:
            # The delta is published; there are only more of them than there should be.
            logger.warning("deltas not pruned", extra={"error": str(error)})
        return len(content)

    def after(self, point: DeltaPoint, limit: int) -> Sequence[Delta]:
        """Return at most `limit` deltas that follow `point`, in order; none while none is there.

        Raises:
            DeltaGapError: the next one is gone, or the chain has ended: load a full snapshot.
            SnapshotDamagedError: the next one is there, and its checksum is wrong.
        """
        self._check_chain(point)
        deltas: list[Delta] = []
        while len(deltas) < limit:
            wanted = DeltaPoint(point.chain, point.number + len(deltas) + 1)
            try:
                content = self._read(wanted)
                if content is None:
                    break
                deltas.append(_checked(content, wanted, str(self.path_of(wanted))))
            except (DeltaGapError, SnapshotDamagedError):
                if deltas:
                    break  # these are good; the next call meets the error first
                raise
        return deltas

    def newest(self) -> DeltaPoint | None:
        """Return the place of the newest delta, number 0 while its chain has none; None: no chain.

        Raises:
            SnapshotDamagedError: CHAIN does not hold a name.
        """
        chain = self._current_chain()
        if chain is None:
            return None
        return DeltaPoint(chain, max(self._numbers(chain), default=0))

    def path_of(self, point: DeltaPoint) -> Path:
        """Return the file of a delta, whether it is there or not."""
        return self._root / point.chain / f"{point.number:012d}.delta"

    def _check_chain(self, point: DeltaPoint) -> None:
        chain = self._current_chain()
        if chain != point.chain:
            raise DeltaGapError(
                f"{self._root}: chain {point.chain} has ended, now {chain or 'none'} is written"
            )

    def _current_chain(self) -> str | None:
        path = self._root / _CHAIN
        with disk.naming(path):
            try:
                text = path.read_bytes().decode(errors="replace").strip()
            except FileNotFoundError:
                return None
        if not _CHAIN_NAME.fullmatch(text):
            raise SnapshotDamagedError(f"{path}: expected a chain's name, got {text[:80]!r}")
        return text

    def _read(self, wanted: DeltaPoint) -> bytes | None:
        """Return a delta's content, None while it is still to come."""
        for attempt in range(2):
            with disk.naming(self.path_of(wanted)), contextlib.suppress(FileNotFoundError):
                return self.path_of(wanted).read_bytes()
            # What is listed was renamed in order, so when a later one is there and this one cannot
            # be read even now, it never will be.
            newest = max(self._numbers(wanted.chain), default=0)
            if newest < wanted.number:
                return None
            if attempt:
                self._check_chain(wanted)
                break
        raise DeltaGapError(
            f"{self._root}: delta {wanted.number} of chain {wanted.chain} is gone, "
            f"the newest is {newest}"
        )

    def _numbers(self, chain: str) -> list[int]:
        with disk.naming(self._root / chain):
            try:
                names = [path.name for path in (self._root / chain).iterdir()]
            except FileNotFoundError:
                return []
        return [int(found[1]) for found in map(_FILE_NAME.fullmatch, names) if found]

    def _prune(self) -> None:
        config = self._config
        while len(self._held) > 1 and (
            len(self._held) > config.keep or self._held_bytes > config.max_bytes
        ):
            number, size = self._held.popleft()
            self._held_bytes -= size
            self.path_of(DeltaPoint(self._chain, number)).unlink(missing_ok=True)


def write_aside(path: Path, content: bytes) -> None:
    """Write a file that nobody looks at yet."""
    path.write_bytes(content)


def _checked(content: bytes, wanted: DeltaPoint, where: str) -> Delta:
    delta = delta_from_bytes(content, where)
    if delta.point != wanted:
        raise SnapshotDamagedError(
            f"{where}: expected delta {wanted.number} of {wanted.chain}, "
            f"got {delta.point.number} of {delta.point.chain}"
        )
    return delta
