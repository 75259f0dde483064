"""A drift signal: a detector's statement that a stream is not what it was."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal

from domain.state import State

DriftKind = Literal["covariate", "label", "concept"]
"""What changed: the inputs, the rate of labels, or the relation between the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSignal:
    """What changed, since when, by how much, compared with what, and who says so.

    Attributes:
        stream: name of the watched stream, e.g. "loss/compensated/click".
        detector: "adwin", "page_hinkley" or "kswin".
        time_ms: event time at which it was noticed.
        since_ms: estimated event time at which the change began.
        before: mean of the stream before `since_ms`, as far as it was kept.
        after: mean of the stream from `since_ms` to `time_ms`.
        deviations: after minus before, in standard deviations of the points before.
        points_before: points behind `before`; a point is the mean of a number of examples.
        points_after: points behind `after`.
    """

    stream: str
    kind: DriftKind
    detector: str
    time_ms: int
    since_ms: int
    before: float
    after: float
    deviations: float
    points_before: int
    points_after: int

    def describe(self) -> str:
        """Return the statement as one sentence.

        >>> DriftSignal(stream="label_rate/click", kind="label", detector="adwin", time_ms=90_000,
        ...     since_ms=30_000, before=0.2, after=0.3, deviations=2.5, points_before=40,
        ...     points_after=10).describe()
        'label_rate/click rose from 0.2 to 0.3 (+2.5 sd) within the last 60 s, says adwin'
        """
        verb = "rose" if self.after > self.before else "fell"
        seconds = (self.time_ms - self.since_ms) / 1_000
        return (
            f"{self.stream} {verb} from {self.before:.4g} to {self.after:.4g} "
            f"({self.deviations:+.1f} sd) within the last {seconds:.0f} s, says {self.detector}"
        )


def signal_to_plain(signal: DriftSignal) -> State:
    """Return JSON values from which `signal_from_plain` builds an equal signal."""
    return asdict(signal)


def signal_from_plain(plain: State) -> DriftSignal:
    """Return the signal that `signal_to_plain` described."""
    return DriftSignal(**{field.name: plain[field.name] for field in fields(DriftSignal)})
