"""What is known of one field after a window: numbers for a table, bins for a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["reference", "day", "now"]
"""reference: what the first requests looked like. day: the last day. now: the newest window."""

ROLES: tuple[Role, ...] = ("reference", "day", "now")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldWindow:
    """One field in one window; a number that cannot be computed is None.

    Attributes:
        field: "user.NAME", "item.NAME" or "context.NAME"; "user" and "item" are the ids.
        started_ms: event time of the window's first request.
        ended_ms: event time of its last; field and `ended_ms` name the window.
        examples: how often the field could have had a value.
        missing: share of those without one.
        unseen: share of the values that had not been seen before; None for numbers.
        psi_reference: population stability index against the reference.
        psi_day: the same against the last day before this window.
        distance_reference: Jensen-Shannon distance (base 2, in [0, 1]) to the reference; for
            numbers the Wasserstein distance in standard deviations of the reference.
        distance_day: the same to the last day.
    """

    field: str
    started_ms: int
    ended_ms: int
    examples: int
    missing: float | None
    unseen: float | None
    psi_reference: float | None
    psi_day: float | None
    distance_reference: float | None
    distance_day: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDistribution:
    """How often each bin of a field was met.

    Attributes:
        ended_ms: event time up to which it was counted.
        labels: what each bin stands for: a value, "other", or an interval such as "[0.5, 0.7)".
        counts: how many values fell into it; of the same length.
    """

    field: str
    role: Role
    ended_ms: int
    labels: tuple[str, ...]
    counts: tuple[float, ...]
