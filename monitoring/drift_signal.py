"""A drift signal: a detector's statement that a stream is not what it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

from domain.state import State

DriftKind = Literal["covariate", "label", "concept", "model", "stream"]
"""What changed: the inputs, the rate of labels, the relation between the two, the models and their
answers (lambda, norms, served scores), or the way events arrive (lateness, duplicates)."""

DRIFT_KINDS: tuple[DriftKind, ...] = ("covariate", "label", "concept", "model", "stream")

Measure = Literal["deviations", "psi", "share"]
"""In what the size of a change is measured. deviations: standard deviations of the points before.
psi: population stability index. share: difference of two shares."""

Severity = Literal["small", "medium", "large"]

SEVERITIES: tuple[Severity, ...] = ("small", "medium", "large")

SEVERITY_FROM: dict[Measure, tuple[float, float]] = {
    "deviations": (3.0, 6.0),
    "psi": (0.25, 1.0),
    "share": (0.05, 0.2),
}
"""From which size on a change is medium, and from which it is large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSignal:
    """What changed, since when, by how much, compared with what, and who says so.

    The same change has the same `stream`, `detector` and `since_ms`, whoever sees it how often.

    Attributes:
        stream: name of the watched stream, e.g. "loss/compensated/click" or "field/item.category".
        detector: "adwin", "page_hinkley", "kswin", or "psi" and "share" for fields.
        time_ms: event time at which it was noticed.
        since_ms: estimated event time at which the change began.
        before: mean of the stream before `since_ms`, as far as it was kept.
        after: mean of the stream from `since_ms` to `time_ms`.
        deviations: after minus before, in standard deviations of the points before; 0 where there
            is no such thing.
        points_before: points behind `before`; a point is the mean of a number of examples.
        points_after: points behind `after`.
        ended_ms: event time at which the stream had recovered, or the new level had lasted so long
            that it counts as normal; None while it is live.
        measure: in what its size is measured.
        compared_with: what `before` is.
        contributors: what moved most, and each one's part of it, the largest first.
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
    ended_ms: int | None = None
    measure: Measure = "deviations"
    compared_with: str = "its own past"
    contributors: tuple[tuple[str, float], ...] = ()

    @property
    def size(self) -> float:
        """Return how large the change is, in units of `measure`; never negative."""
        match self.measure:
            case "deviations":
                return abs(self.deviations)
            case "psi":
                return self.after
            case "share":
                return abs(self.after - self.before)

    @property
    def severity(self) -> Severity:
        """Return how large the change is, in words; see `SEVERITY_FROM`."""
        medium, large = SEVERITY_FROM[self.measure]
        return "large" if self.size >= large else "medium" if self.size >= medium else "small"

    def describe(self) -> str:
        """Return the statement as one sentence.

        >>> DriftSignal(stream="label_rate/click", kind="label", detector="adwin", time_ms=90_000,
        ...     since_ms=30_000, before=0.2, after=0.3, deviations=2.5, points_before=40,
        ...     points_after=10).describe()
        'label_rate/click rose from 0.2 to 0.3 (+2.5 sd) within the last 60 s, says adwin'
        """
        verb = "rose" if self.after > self.before else "fell"
        seconds = (self.time_ms - self.since_ms) / 1_000
        size = f" ({self.deviations:+.1f} sd)" if self.measure == "deviations" else ""
        against = "" if self.compared_with == "its own past" else f" against {self.compared_with}"
        most = ", ".join(f"{name} {part:.0%}" for name, part in self.contributors[:3])
        return (
            f"{self.stream} {verb} from {self.before:.4g} to {self.after:.4g}{size}{against} "
            f"within the last {seconds:.0f} s, says {self.detector}"
            f"{f'; most of it: {most}' if most else ''}"
        )


def signal_to_plain(signal: DriftSignal) -> State:
    """Return JSON values from which `signal_from_plain` builds an equal signal."""
    return {**asdict(signal), "contributors": [list(one) for one in signal.contributors]}


def signal_from_plain(plain: State) -> DriftSignal:
    """Return the signal that `signal_to_plain` described; what it lacks is the default."""
    given = {field.name: plain[field.name] for field in fields(DriftSignal) if field.name in plain}
    given["contributors"] = contributors_from(given.get("contributors", ()))
    return DriftSignal(**given)


def contributors_from(plain: Sequence[Sequence[object]]) -> tuple[tuple[str, float], ...]:
    """Return contributors as a signal holds them.

    >>> contributors_from([["item.category", 0.75]])
    (('item.category', 0.75),)
    """
    return tuple((str(name), float(str(part))) for name, part in plain)
