"""Whether a journal tells every offset exactly once, in order, without a hole nobody knows of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from domain.errors import JournalError
from domain.event_log import Positions
from stream.gaps import Gap
from stream.journal_files import Run, Segment


def check_chain(chain: Sequence[tuple[str, Segment]]) -> None:
    """Check segments that follow each other, oldest first.

    Raises:
        JournalError: naming the segment, what was expected and what came.
    """
    for name, segment in chain:
        _check_segment(name, segment)
    for (before_name, before), (name, segment) in pairwise(chain):
        for what, expected, found in (
            ("the segment before", before_name, segment.previous),
            ("positions at its beginning", before.end, segment.begin),
            ("steps before it", before.last_step, segment.first_step),
        ):
            if expected != found:
                raise JournalError(f"segment {name}: expected {what} {expected!r}, got {found!r}")


def _check_segment(name: str, segment: Segment) -> None:
    positions = dict(segment.begin)
    holes = {(hole.partition, hole.first): hole.length for hole in segment.holes}
    gaps = list(segment.gaps)
    for number, run in enumerate(segment.runs):
        while gaps and gaps[0][0] == number:
            _pass_gap(name, positions, gaps.pop(0)[1])
        _pass_run(name, positions, holes, run)
    for _, gap in gaps:
        _pass_gap(name, positions, gap)
    if holes:
        partition, first = min(holes)
        raise JournalError(f"segment {name}: {partition}@{first} is a hole and was learned as well")
    if positions != segment.end:
        raise JournalError(
            f"segment {name}: expected to end at {segment.end}, its records end at {positions}"
        )
    steps = (0, *segment.steps, segment.num_events)
    if any(one > two for one, two in pairwise(steps)):
        raise JournalError(f"segment {name}: its steps are not in the order of its events")


def _pass_gap(name: str, positions: Positions, gap: Gap) -> None:
    if positions.get(gap.partition) != gap.position:
        raise JournalError(
            f"segment {name}: a gap at {gap.partition}@{gap.position}, "
            f"but its records end at {positions.get(gap.partition)}"
        )
    positions[gap.partition] = gap.resume


def _pass_run(name: str, positions: Positions, holes: dict[tuple[str, int], int], run: Run) -> None:
    expected = positions.get(run.partition, run.first)
    expected += holes.pop((run.partition, expected), 0)
    if run.first != expected:
        raise JournalError(
            f"segment {name}: expected {run.partition}@{expected} next, got offset {run.first}"
        )
    positions[run.partition] = run.first + run.length
