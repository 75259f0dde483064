"""What `headrace freshness` does: markers, one after the other, and a table of what they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.errors import EXIT_FAILED
from app.freshness_probe import HISTORY, ITEM, RANK, WEIGHTS, FreshnessProbe, ProbeConfig
from domain.clock import SystemClock

_MEANING = {
    ITEM: "a new item is in Retrieve",
    HISTORY: "an action is in Retrieve",
    RANK: "an action is in Rank",
    WEIGHTS: "the models know of it",
}
_TARGETS_MS = {ITEM: (50, 500), HISTORY: (50, 500), RANK: (50, 500), WEIGHTS: (None, 5_000)}
"""What p50 and p99 should be at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshnessPlan:
    """How often to measure.

    Attributes:
        markers: what is looked for, in turns.
        rounds: markers published of each.
        pause_s: time between two of them.
    """

    markers: tuple[str, ...]
    rounds: int
    pause_s: float
    probe: ProbeConfig


def measure_freshness(channel: grpc.Channel, plan: FreshnessPlan) -> int:
    """Measure, print a table, and return the exit code: 1 when something never showed.

    Raises:
        ServingError: a call failed.
    """
    clock, console = SystemClock(), Console(highlight=False)
    probe = FreshnessProbe(channel, clock, plan.probe)
    took: dict[str, list[float | None]] = {marker: [] for marker in plan.markers}
    try:
        for marker in track(
            plan.markers * plan.rounds,
            description="markers",
            console=Console(stderr=True),
            transient=True,
            disable=not console.is_terminal,
        ):
            took[marker].append(probe.measure(marker))
            clock.sleep(plan.pause_s)
    finally:
        probe.clean_up()
    _print_table(console, took)
    missing = {marker: times.count(None) for marker, times in took.items() if None in times}
    for marker, count in missing.items():
        console.print(_advice(marker, count, plan), soft_wrap=True)
    return EXIT_FAILED if missing else 0


def _print_table(console: Console, took: dict[str, list[float | None]]) -> None:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("from an event until")
    for name in ("p50", "p99", "slowest", "goal", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for marker, times in took.items():
        seen = [seconds for seconds in times if seconds is not None]
        middle, most = _TARGETS_MS[marker]
        goal = f"{_time(most / 1_000)}" if middle is None else f"{middle} / {most} ms"
        table.add_row(_MEANING[marker], *_figures(seen), goal, f"{len(seen)} of {len(times)}")
    console.print(table)


def _figures(seconds: Sequence[float]) -> tuple[str, str, str]:
    if not seconds:
        return "-", "-", "-"
    middle, high = np.quantile(seconds, (0.5, 0.99))
    return _time(middle), _time(high), _time(max(seconds))


def _time(seconds: float) -> str:
    return f"{seconds * 1_000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _advice(marker: str, count: int, plan: FreshnessPlan) -> str:
    within = f"within {plan.probe.timeout_s:g} s"
    match marker:
        case "weights":
            why = "does the trainer run, and does the server follow its deltas?"
        case "new item":
            why = "does the server read the log? (headrace_serving_tail_lag_seconds)"
        case _:
            why = f"has the schema a label head for {plan.probe.kind!r}? See --kind"
    return f"{count} of {plan.rounds} times {_MEANING[marker]!r} did not show {within}: {why}"
