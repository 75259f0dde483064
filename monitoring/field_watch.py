"""Watches every declared field: how much is missing or new, and how far its values have moved.

Requests are gathered into steps; a window is the last few steps. Counts over fixed bins add up, so
the window, the last day and the reference are sums of the same rows, and the memory per field never
grows. At most so many requests per second of event time are looked at: shares need thousands of
values, not all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.events import Features, FeatureValue
from domain.features import Entity, FeatureSchema
from domain.requests import RankingRequest
from domain.state import State
from monitoring import field_distance
from monitoring.field_report import FieldDistribution, FieldWindow, Role
from monitoring.field_sketch import BINS, CategoricalSketch, Sketch, make_sketch

# Shape legend: F = fields, B = bins, T = steps of a window.

_HOUR_MS = 60 * 60 * 1000
_HOURS = 24
_SECOND_MS = 1_000
# columns of what is counted beside bins
_EXAMPLES, _MISSING, _VALUES, _UNSEEN = range(4)

Table: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldWatchConfig:
    """How fields are watched.

    Attributes:
        max_requests_per_s: requests looked at per second of event time; 0 watches no field.
        step_requests: requests that make a step; numbers are computed once per step.
        window_steps: steps that make a window.
        reference_steps: first steps that make the reference; the first quarter fixes the bins.
        psi_from: PSI against the reference, beyond what the reference shows between its own
            halves, from which on a field has drifted.
        share_from: rise of a share (missing, unseen) from which on a field has drifted.
        report_ms: least event time between two reports on the same field.
    """

    max_requests_per_s: float = 10.0
    step_requests: int = 250
    window_steps: int = 8
    reference_steps: int = 16
    psi_from: float = 0.1
    share_from: float = 0.02
    report_ms: int = 5 * 60 * 1000

    def __post_init__(self) -> None:
        for key, least in (
            ("max_requests_per_s", 0),
            ("step_requests", 1),
            ("window_steps", 1),
            ("reference_steps", 4),
            ("report_ms", 0),
        ):
            if getattr(self, key) < least:
                raise ConfigError(
                    f"drift.fields.{key} must be at least {least}, got {getattr(self, key)}"
                )
        for key in ("psi_from", "share_from"):
            if not getattr(self, key) > 0.0:
                raise ConfigError(f"drift.fields.{key} must be positive, got {getattr(self, key)}")


@dataclass(frozen=True, slots=True, eq=False)
class FieldState:
    """All fields after a step; float64 (F,) each, NaN where a number cannot be computed.

    Attributes:
        step_ms: event time of the newest step's first request.
        calm: PSI between the two halves of the reference: what is ordinary.
        missing_before: share of missing values in the reference.
        unseen_before: share of unseen values in the last day before this window.
        steps: steps since the reference was complete.
    """

    started_ms: int
    step_ms: int
    ended_ms: int
    examples: Table
    missing: Table
    missing_before: Table
    unseen: Table
    unseen_before: Table
    psi_reference: Table
    psi_day: Table
    distance_reference: Table
    distance_day: Table
    calm: Table
    steps: int


@dataclass(slots=True)
class _Step:
    """What was counted in some requests: bins int64 (F, B), other columns int64 (F, 4)."""

    bins_FB: NDArray[np.int64]
    beside_F4: NDArray[np.int64]
    started_ms: int = 0
    ended_ms: int = 0

    def add(self, other: _Step) -> None:
        self.bins_FB += other.bins_FB
        self.beside_F4 += other.beside_F4


class FieldWatch:
    """Counts what requests carry; tells the state of all fields after each step."""

    def __init__(self, schema: FeatureSchema, config: FieldWatchConfig) -> None:
        self._config = config
        self._fields = schema.fields
        self.names = tuple(f"{field.entity}.{field.name}" for field in schema.fields)
        self._sketches: list[Sketch] = [make_sketch(field.kind) for field in schema.fields]
        self._gap_ms = _SECOND_MS / config.max_requests_per_s if config.max_requests_per_s else 0.0
        self._next_ms = 0.0
        self._waiting: dict[Entity, list[Features]] = {"user": [], "item": [], "context": []}
        self._started_ms = self._ended_ms = 0
        self._missing_F = np.zeros(len(self._fields), np.int64)
        self._examples_F = np.zeros(len(self._fields), np.int64)
        self._requests = 0
        self._steps = 0
        self._halves = (self._empty(), self._empty())
        self._window: deque[_Step] = deque()
        self._hours: dict[int, _Step] = {}

    def observe(self, request: RankingRequest, event_time_ms: int) -> FieldState | None:
        """Look at a request, when it is time to; return the state of all fields after a step.

        None is returned within a step, and until reference and window are complete.
        `event_time_ms` must be a time that can be believed, and never goes back.
        """
        if not self._fields or not self._gap_ms or event_time_ms < self._next_ms:
            return None
        self._next_ms = max(self._next_ms, event_time_ms) + self._gap_ms
        if not self._requests:
            self._started_ms = event_time_ms
        self._ended_ms = event_time_ms
        self._waiting["user"].append(request.user.features)
        self._waiting["context"].append(request.context)
        self._waiting["item"].extend(request.item_features)
        self._requests += 1
        if self._requests < self._config.step_requests:
            return None
        return self._close_step()

    def distributions(self) -> list[FieldDistribution]:
        """Return the distribution of every field: reference, last day and now, as far as known."""
        day, now = self._day(), self._now()
        ended_ms = self._ended_ms
        roles: tuple[tuple[Role, _Step], ...] = (
            ("reference", self._reference()),
            ("day", day),
            ("now", now),
        )
        return [
            _distribution(name, role, ended_ms, sketch.labels(), step.bins_FB[index])
            for index, (name, sketch) in enumerate(zip(self.names, self._sketches, strict=True))
            for role, step in roles
            if step.bins_FB[index].any()
        ]

    def psi_parts(self, index: int) -> tuple[tuple[str, float], ...]:
        """Return which values of a field moved most, each with its part of the PSI; at most 3."""
        live_B = self._live_bins()[index]
        reference_B = self._reference().bins_FB[index].astype(np.float64)
        now_B = self._now().bins_FB[index].astype(np.float64)
        parts_B = field_distance.psi_parts(reference_B, now_B, live_B)
        total = float(parts_B.sum())
        labels = self._sketches[index].labels()
        order = np.argsort(-parts_B, kind="stable")[:3].tolist()
        return tuple((labels[b], float(parts_B[b]) / total) for b in order if parts_B[b] > 0.0)

    def _close_step(self) -> FieldState | None:
        self._absorb()
        step = self._empty()
        beside_F4 = step.beside_F4
        beside_F4[:, _EXAMPLES], beside_F4[:, _MISSING] = self._examples_F, self._missing_F
        for index, sketch in enumerate(self._sketches):
            beside_F4[index, _VALUES], beside_F4[index, _UNSEEN] = sketch.values, sketch.unseen
        fixing = self._steps < self._bin_steps
        if self._steps + 1 == self._bin_steps:
            for sketch in self._sketches:
                sketch.fix()
        if not fixing or self._steps + 1 == self._bin_steps:
            for index, sketch in enumerate(self._sketches):
                step.bins_FB[index] = sketch.take()
        else:
            for sketch in self._sketches:
                sketch.unseen = sketch.values = 0
        step.started_ms, step.ended_ms = self._started_ms, self._ended_ms
        self._examples_F[:] = 0
        self._missing_F[:] = 0
        self._requests = 0
        self._steps += 1
        return self._take(step)

    @property
    def _bin_steps(self) -> int:
        return max(self._config.reference_steps // 4, 1)

    def _absorb(self) -> None:
        """Count what waits; when that happens changes nothing."""
        for index, (field, sketch) in enumerate(zip(self._fields, self._sketches, strict=True)):
            carriers, name = self._waiting[field.entity], field.name
            values: list[FeatureValue | None] = [carrier.get(name) for carrier in carriers]
            self._missing_F[index] += sketch.add(values)
            self._examples_F[index] += len(values)
        for carriers in self._waiting.values():
            carriers.clear()

    def _take(self, step: _Step) -> FieldState | None:
        """Let a step be part of the reference, then of the window, then of the last day."""
        if self._steps <= self._config.reference_steps:
            self._halves[2 * self._steps > self._config.reference_steps].add(step)
            return None
        self._window.append(step)
        if len(self._window) > self._config.window_steps:
            self._into_day(self._window.popleft())
        if len(self._window) < self._config.window_steps:
            return None
        return self._state()

    def _into_day(self, step: _Step) -> None:
        hour = step.ended_ms // _HOUR_MS
        self._hours.setdefault(hour, self._empty()).add(step)
        for old in [one for one in self._hours if one <= hour - _HOURS]:
            del self._hours[old]

    def _state(self) -> FieldState:
        reference, day, now = self._reference(), self._day(), self._now()
        live_FB = self._live_bins()
        first, second = self._halves
        missing, unseen = _shares(now, self._sketches)
        return FieldState(
            started_ms=self._window[0].started_ms,
            step_ms=self._window[-1].started_ms,
            ended_ms=self._window[-1].ended_ms,
            examples=now.beside_F4[:, _EXAMPLES].astype(np.float64),
            missing=missing,
            missing_before=_shares(reference, self._sketches)[0],
            unseen=unseen,
            unseen_before=_shares(day, self._sketches)[1],
            psi_reference=_psi(reference, now, live_FB),
            psi_day=_psi(day, now, live_FB),
            distance_reference=self._distance(reference, now, live_FB),
            distance_day=self._distance(day, now, live_FB),
            calm=np.nan_to_num(_psi(first, second, live_FB)),
            steps=self._steps - self._config.reference_steps,
        )

    def _distance(self, one: _Step, other: _Step, live_FB: NDArray[np.bool_]) -> Table:
        a_FB, b_FB = one.bins_FB.astype(np.float64), other.bins_FB.astype(np.float64)
        far_F = field_distance.jensen_shannon(a_FB, b_FB, live_FB)
        for index, sketch in enumerate(self._sketches):
            centre_B = sketch.centres()
            if centre_B is not None:
                far_F[index] = field_distance.wasserstein(a_FB[index], b_FB[index], centre_B)
        far_F[~(a_FB.any(axis=1) & b_FB.any(axis=1))] = np.nan
        return far_F

    def _live_bins(self) -> NDArray[np.bool_]:
        labels = [[bool(label) for label in sketch.labels()] for sketch in self._sketches]
        return np.array(labels, np.bool_).reshape(len(self._fields), BINS)

    def _reference(self) -> _Step:
        return _sum(self._empty(), self._halves)

    def _day(self) -> _Step:
        return _sum(self._empty(), list(self._hours.values()))

    def _now(self) -> _Step:
        return _sum(self._empty(), self._window)

    def _empty(self) -> _Step:
        count = len(self._fields)
        return _Step(np.zeros((count, BINS), np.int64), np.zeros((count, 4), np.int64))

    def save(self) -> State:
        """Return everything `load` needs; what waits is counted first, which changes nothing."""
        self._absorb()
        return {
            "names": list(self.names),
            "sketches": {str(i): sketch.save() for i, sketch in enumerate(self._sketches)},
            "now": {
                "next_ms": self._next_ms,
                "started_ms": self._started_ms,
                "ended_ms": self._ended_ms,
                "missing": self._missing_F.copy(),
                "examples": self._examples_F.copy(),
                "requests": self._requests,
                "steps": self._steps,
            },
            "halves": _steps_to_plain(self._halves, self._empty()),
            "window": _steps_to_plain(self._window, self._empty()),
            "hours": {
                "numbers": list(self._hours),
                **_steps_to_plain(list(self._hours.values()), self._empty()),
            },
        }

    def load(self, state: State) -> None:
        """Become what `save` described; other fields than were watched then are started afresh."""
        if state["names"] != list(self.names):
            return
        for index, sketch in enumerate(self._sketches):
            sketch.load(state["sketches"][str(index)])
        now = state["now"]
        self._next_ms, self._requests, self._steps = now["next_ms"], now["requests"], now["steps"]
        self._started_ms, self._ended_ms = now["started_ms"], now["ended_ms"]
        self._missing_F, self._examples_F = now["missing"].copy(), now["examples"].copy()
        first, second = _steps_from_plain(state["halves"])
        self._halves = (first, second)
        self._window = deque(_steps_from_plain(state["window"]))
        hours = _steps_from_plain(state["hours"])
        self._hours = dict(zip(state["hours"]["numbers"], hours, strict=True))


def field_windows(
    names: Sequence[str], state: FieldState, indices: Sequence[int]
) -> list[FieldWindow]:
    """Return what is known of some fields as rows of a table."""

    def number(values_F: Table, index: int) -> float | None:
        value = float(values_F[index])
        return None if np.isnan(value) else value

    return [
        FieldWindow(
            field=names[index],
            started_ms=state.started_ms,
            ended_ms=state.ended_ms,
            examples=int(state.examples[index]),
            missing=number(state.missing, index),
            unseen=number(state.unseen, index),
            psi_reference=number(state.psi_reference, index),
            psi_day=number(state.psi_day, index),
            distance_reference=number(state.distance_reference, index),
            distance_day=number(state.distance_day, index),
        )
        for index in indices
    ]


def _psi(one: _Step, other: _Step, live_FB: NDArray[np.bool_]) -> Table:
    a_FB, b_FB = one.bins_FB.astype(np.float64), other.bins_FB.astype(np.float64)
    far_F = field_distance.psi(a_FB, b_FB, live_FB)
    far_F[~(a_FB.any(axis=1) & b_FB.any(axis=1))] = np.nan
    return far_F


def _shares(step: _Step, sketches: Sequence[Sketch]) -> tuple[Table, Table]:
    """Return the shares of missing and of unseen values; NaN where there are none."""
    beside_F4 = step.beside_F4.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        missing_F = beside_F4[:, _MISSING] / beside_F4[:, _EXAMPLES]
        unseen_F = beside_F4[:, _UNSEEN] / beside_F4[:, _VALUES]
    known_F = [isinstance(one, CategoricalSketch) and one.knows_unseen for one in sketches]
    return missing_F, np.where(np.array(known_F, np.bool_), unseen_F, np.nan)


def _distribution(
    name: str, role: Role, ended_ms: int, labels: Sequence[str], counts_B: NDArray[np.int64]
) -> FieldDistribution:
    used = [(label, float(count)) for label, count in zip(labels, counts_B, strict=True) if label]
    return FieldDistribution(
        field=name,
        role=role,
        ended_ms=ended_ms,
        labels=tuple(label for label, _ in used),
        counts=tuple(count for _, count in used),
    )


def _sum(empty: _Step, steps: Sequence[_Step] | deque[_Step]) -> _Step:
    for step in steps:
        empty.add(step)
    return empty


def _steps_to_plain(steps: Sequence[_Step] | deque[_Step], empty: _Step) -> State:
    rows = list(steps)
    return {
        "bins": np.stack([empty.bins_FB, *(one.bins_FB for one in rows)])[1:],
        "beside": np.stack([empty.beside_F4, *(one.beside_F4 for one in rows)])[1:],
        "times_ms": [[one.started_ms, one.ended_ms] for one in rows],
    }


def _steps_from_plain(plain: State) -> list[_Step]:
    return [
        _Step(bins_FB.copy(), beside_F4.copy(), started_ms, ended_ms)
        for bins_FB, beside_F4, (started_ms, ended_ms) in zip(
            plain["bins"], plain["beside"], plain["times_ms"], strict=True
        )
    ]
