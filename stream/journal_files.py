"""The files of the step journal: one segment for each snapshot, named by its content.

root/<step>-<hash>.json.gz   what happened between two snapshots
root/.writing                the one being written

A segment names the one before it, and the hash in a name covers all of the content, that name too.
So a segment vouches for the whole chain behind it, and one that was written twice is one file.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from domain.errors import JournalError
from domain.event_log import Positions
from stream.gaps import Gap

FORMAT_VERSION = 1

_SUFFIX = ".json.gz"
_WRITING = ".writing"
_NAME = re.compile(r"[0-9]{12}-[0-9a-f]{12}")


class Run(NamedTuple):
    """Records of one partition that were learned one after the other, without a hole."""

    partition: str
    first: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What was learned between two snapshots, in which order.

    Attributes:
        previous: name of the segment before; None when the snapshot before names none.
        parent: snapshot that this segment goes on from; None when it begins with nothing learned.
        schema_hash: of the schema that the settings hold.
        settings: every setting that decides what is learned, by section, as JSON values.
        begin: positions before the first record.
        end: positions after the last one; what the snapshot that names this segment holds.
        runs: the records, in the order in which they were learned.
        gaps: (number of runs before it, the gap) for each hole that somebody chose to skip.
        holes: runs of offsets that the log itself did not hold, as a compacted topic does not.
        first_step: learning steps taken before the segment.
        steps: for each step, how many events of the segment had been led when it was taken.
        num_events: events of the segment, those set aside included.
    """

    previous: str | None
    parent: str | None
    schema_hash: str
    settings: Mapping[str, Any]
    begin: Positions
    end: Positions
    runs: tuple[Run, ...] = ()
    gaps: tuple[tuple[int, Gap], ...] = ()
    holes: tuple[Run, ...] = ()
    first_step: int = 0
    steps: tuple[int, ...] = ()
    num_events: int = field(default=0)

    @property
    def last_step(self) -> int:
        """Return the learning steps taken when the segment ended."""
        return self.first_step + len(self.steps)

    def to_json(self) -> bytes:
        """Return the segment as JSON, runs as columns; the same segment gives the same bytes."""
        partitions = sorted({run.partition for run in (*self.runs, *self.holes)})
        code_of = {name: code for code, name in enumerate(partitions)}
        document = {
            "format_version": FORMAT_VERSION,
            "previous": self.previous,
            "parent": self.parent,
            "schema_hash": self.schema_hash,
            "settings": self.settings,
            "begin": self.begin,
            "end": self.end,
            "partitions": partitions,
            "runs": _columns(self.runs, code_of),
            "gaps": [[n, gap.partition, gap.position, gap.resume] for n, gap in self.gaps],
            "holes": _columns(self.holes, code_of),
            "first_step": self.first_step,
            "steps": _differences(self.steps),
            "num_events": self.num_events,
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Segment:
        """Return what `to_json` wrote.

        Raises:
            JournalError: it is of another version, or no segment.
        """
        try:
            raw = json.loads(text)
            version = raw["format_version"]
            if version != FORMAT_VERSION:
                raise JournalError(
                    f"{where}: expected format version {FORMAT_VERSION}, got {version!r}"
                )
            return cls(
                previous=raw["previous"],
                parent=raw["parent"],
                schema_hash=raw["schema_hash"],
                settings=raw["settings"],
                begin=raw["begin"],
                end=raw["end"],
                runs=_runs(raw["runs"], raw["partitions"]),
                gaps=tuple((gap[0], Gap(*gap[1:])) for gap in raw["gaps"]),
                holes=_runs(raw["holes"], raw["partitions"]),
                first_step=raw["first_step"],
                steps=_sums(raw["steps"]),
                num_events=raw["num_events"],
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise JournalError(f"{where}: is no segment of a step journal: {error!r}") from error


class JournalFolder:
    """Writes, reads and prunes segments; the folder is made with the first one."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)

    def write(self, segment: Segment) -> str:
        """Make a segment durable and return its name; on return it survives a crash.

        Raises:
            JournalError: the disk refused; nothing of the segment is left.
        """
        content = segment.to_json()
        name = _name_of(segment, content)
        aside = self.root / _WRITING
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                # Without a time of writing in its header: the same segment gives the same file.
                file.write(gzip.compress(content, mtime=0))
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self._path(name))
            _sync_folder(self.root)
        except OSError as error:
            with contextlib.suppress(OSError):  # a full disk is to be freed, not filled further
                aside.unlink(missing_ok=True)
            raise JournalError(f"{error.filename or self.root}: {error.strerror}") from error
        return name

    def remove(self, name: str) -> None:
        """Delete a segment; nothing happens when it is gone already."""
        self._path(name).unlink(missing_ok=True)

    def read(self, name: str) -> Segment:
        """Read a segment, which is the one that its name was made for.

        Raises:
            JournalError: it is missing or damaged.
        """
        path = self._path(name)
        try:
            content = gzip.decompress(path.read_bytes())
        except FileNotFoundError:
            raise JournalError(f"{path}: the file is missing") from None
        except (OSError, EOFError, zlib.error) as error:
            raise JournalError(f"{path}: cannot be read: {error}") from error
        segment = Segment.from_json(content, str(path))
        if _name_of(segment, content) != name:
            raise JournalError(f"{path}: damaged: its content is not what its name was made for")
        return segment

    def chain(self, name: str) -> list[tuple[str, Segment]]:
        """Return the segments that lead to one, oldest first, as far back as they are kept.

        Raises:
            JournalError: the newest is missing, or one of them is damaged.
        """
        found: list[tuple[str, Segment]] = []
        link: str | None = name
        while link is not None and (not found or self._path(link).exists()):
            segment = self.read(link)
            found.append((link, segment))
            link = segment.previous
        return found[::-1]

    def sizes(self) -> dict[str, int]:
        """Return the size of each segment by name, in the order of writing."""
        found = []
        for path in self.root.glob(f"*{_SUFFIX}"):
            name = path.name.removesuffix(_SUFFIX)
            if _NAME.fullmatch(name):
                status = path.stat()
                found.append((status.st_mtime_ns, name, status.st_size))
        return {name: size for _, name, size in sorted(found)}

    def size_bytes(self, name: str) -> int:
        """Return the size of one segment on the disk."""
        return self._path(name).stat().st_size

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise JournalError(f"{self.root}: expected the name of a segment, got {name!r}")
        return self.root / f"{name}{_SUFFIX}"


def _name_of(segment: Segment, content: bytes) -> str:
    return f"{segment.last_step:012d}-{hashlib.sha256(content).hexdigest()[:12]}"


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _columns(runs: tuple[Run, ...], code_of: Mapping[str, int]) -> dict[str, list[int]]:
    return {
        "partition": [code_of[run.partition] for run in runs],
        "first": _differences([run.first for run in runs]),
        "length": [run.length for run in runs],
    }


def _runs(columns: Mapping[str, list[int]], partitions: list[str]) -> tuple[Run, ...]:
    rows = zip(columns["partition"], _sums(columns["first"]), columns["length"], strict=True)
    return tuple(Run(partitions[code], first, length) for code, first, length in rows)


def _differences(values: list[int] | tuple[int, ...]) -> list[int]:
    """Small numbers instead of large ones: they take less room."""
    return [b - a for a, b in zip((0, *values), values, strict=False)]


def _sums(differences: list[int]) -> tuple[int, ...]:
    total, values = 0, []
    for difference in differences:
        total += difference
        values.append(total)
    return tuple(values)
