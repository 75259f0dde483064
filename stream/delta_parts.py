"""One delta as several records, none larger than a broker takes, and back again.

Each part names its delta and its place in it, and carries a checksum of the whole: parts belong
together when all of that agrees, and a delta is whole when every part has come, in order, and
together they have that checksum. What a delta consists of inside is not looked at here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.deltas import DeltaPoint

MAX_PARTS = 512
"""Parts of one delta: half a gigabyte, so that a reader never holds more than that."""


@dataclass(frozen=True, slots=True)
class DeltaPart:
    """One record of a chain.

    Attributes:
        point: the delta's place in its chain. Number 0 says that the chain begins, in one part
            without content.
        part: place of this part in its delta, from 0.
        parts: how many there are.
        checksum: SHA-256 of the whole delta.
    """

    point: DeltaPoint
    part: int
    parts: int
    checksum: bytes
    content: bytes

    @property
    def begins_chain(self) -> bool:
        """Return whether this is no delta but the word that a chain begins."""
        return self.point.number == 0


def split(point: DeltaPoint, content: bytes, part_bytes: int) -> list[DeltaPart]:
    """Return a delta in parts of at most `part_bytes`.

    >>> [part.content for part in split(DeltaPoint("c", 1), b"abcde", 2)]
    [b'ab', b'cd', b'e']
    """
    starts = range(0, max(len(content), 1), part_bytes)
    checksum = hashlib.sha256(content).digest()
    return [
        DeltaPart(point, part, len(starts), checksum, content[start : start + part_bytes])
        for part, start in enumerate(starts)
    ]


def beginning(chain: str) -> DeltaPart:
    """Return the record that says that a chain begins and every other has ended."""
    return split(DeltaPoint(chain, 0), b"", 1)[0]


def headers_of(part: DeltaPart) -> list[tuple[str, bytes]]:
    """Return all of a part but its content, as headers of a record."""
    return [
        ("chain", part.point.chain.encode()),
        ("number", str(part.point.number).encode()),
        ("part", str(part.part).encode()),
        ("parts", str(part.parts).encode()),
        ("sha256", part.checksum),
    ]


def part_from(headers: Sequence[tuple[str, bytes]], content: bytes | None) -> DeltaPart | None:
    """Return the part that a record holds, None when it is none of ours."""
    values: Mapping[str, bytes] = dict(headers)
    try:
        point = DeltaPoint(values["chain"].decode(), int(values["number"]))
        part, parts = int(values["part"]), int(values["parts"])
        checksum = values["sha256"]
    except (KeyError, ValueError):
        return None
    if not (0 <= part < parts <= MAX_PARTS and point.number >= 0):
        return None
    return DeltaPart(point, part, parts, checksum, content or b"")


class Assembly:
    """Puts the parts of deltas together; they have to come in order and one delta at a time."""

    def __init__(self) -> None:
        self._parts: list[DeltaPart] = []

    def take(self, part: DeltaPart) -> bytes | None:
        """Take the next part; return the content of the delta that is whole with it.

        None while parts are missing. A delta of which one went missing never becomes whole: what
        there is of it is forgotten as soon as another begins. So is one whose checksum is wrong.
        """
        if part.part == 0:
            self._parts = []
        if part.part != len(self._parts) or (self._parts and not _together(self._parts[0], part)):
            self._parts = []
            return None
        self._parts.append(part)
        if len(self._parts) < part.parts:
            return None
        content = b"".join(one.content for one in self._parts)
        self._parts = []
        return content if hashlib.sha256(content).digest() == part.checksum else None


def _together(first: DeltaPart, part: DeltaPart) -> bool:
    return (first.point, first.parts, first.checksum) == (part.point, part.parts, part.checksum)
