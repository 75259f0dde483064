"""Gaps: records that were still to be read and are gone, and what a trainer does about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from domain.errors import LogGapError
from domain.event_log import Positions

OnGap = Literal["fail", "skip"]
"""fail: stop and let a person choose. skip: go on behind the gap, count and log what was lost."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A hole between what was read and what can be read next.

    Attributes:
        partition: "topic/partition".
        position: next offset that was to be read.
        resume: offset at which reading can go on.
    """

    partition: str
    position: int
    resume: int

    @property
    def made_anew(self) -> bool:
        """Return whether the log begins again: offsets mean other records than before."""
        return self.resume < self.position

    @property
    def lost(self) -> int:
        """Return how many records are gone for certain; of a log made anew nobody knows."""
        return max(self.resume - self.position, 0)

    def __str__(self) -> str:
        if self.made_anew:
            return (
                f"{self.partition} was made anew or restored: expected to go on at offset "
                f"{self.position}, which it does not have; it begins at {self.resume}"
            )
        return (
            f"{self.partition} lost {self.lost:,} records before they were read: expected to go "
            f"on at offset {self.position}, the oldest one held is {self.resume}"
        )


def find_gaps(
    positions: Positions, beginnings: Mapping[str, int], ends: Mapping[str, int]
) -> list[Gap]:
    """Return the gaps between where reading is to go on and what the log holds.

    A partition that was never read has none, and neither has one that the log does not know:
    reading says what is wrong with that.

    >>> find_gaps({"a": 3, "b": 9, "c": 5}, {"a": 7, "b": 0, "c": 5}, {"a": 8, "b": 2, "c": 5})
    [Gap(partition='a', position=3, resume=7), Gap(partition='b', position=9, resume=0)]
    """
    return [
        Gap(partition, position, beginnings[partition])
        for partition, position in sorted(positions.items())
        if partition in ends and not beginnings[partition] <= position <= ends[partition]
    ]


def gap_from(error: LogGapError) -> Gap:
    """Return the gap that a log ran into."""
    return Gap(error.partition, error.position, error.beginning)


def choice(gaps: Sequence[Gap]) -> str:
    """Return the one line that spells out what can be done."""
    resumes = ", ".join(f"{gap.partition}@{gap.resume}" for gap in gaps)
    return (
        f"{'; '.join(map(str, gaps))}. Restore the records, or accept the loss: "
        f"--on-gap skip goes on at {resumes}"
    )
