"""What the demo prints at its end."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from rich.console import Console
from rich.table import Table

_NAMES = {
    "frozen": "frozen copy",
    "online": "online",
    "online+memory": "online + error memory",
}
_BARS = "▁▂▃▄▅▆▇█"
# AUC within this of what it was before the change counts as recovered.
_RECOVERED = 0.02


def print_demo_report(report: dict[str, Any], console: Console, moment: str = "the change") -> None:
    """Print events, quality before and after a moment, latency and freshness."""
    comparison, users = report["comparison"], report["users"]
    console.print(_quality_table(comparison, moment))
    console.print(f"AUC over time, from .5 or less ({_BARS[0]}) to .8 ({_BARS[-1]}); | is {moment}")
    for line in _curves(comparison):
        console.print(line, highlight=False)
    if moment == "the change":
        for line in _sentences(comparison):
            console.print(line)
    console.print(
        f"\n{comparison['events']:,} events, {comparison['examples']:,} examples, "
        f"{comparison['steps']:,} learning steps; {comparison['duplicates']:,} duplicates dropped, "
        f"{comparison['late']:,} late, {report['dead_letters']:,} dead letters "
        f"({report['malformed']} malformed records were sent)."
    )
    console.print(
        f"Recommend, as {users['lists']:,} simulated requests saw it: "
        f"p50 {users['p50_ms']:.1f} ms, p99 {users['p99_ms']:.1f} ms, {users['failed']} failed."
    )
    console.print(_freshness_line(report["freshness_s"]))


def _quality_table(comparison: dict[str, Any], moment: str) -> Table:
    before, just_after, at_the_end = _parts(comparison)
    parts = {f"before {moment}": before, "just after": just_after, "at the end": at_the_end}
    table = Table(title="Clicks predicted before they were known")
    table.add_column("model")
    for name in parts:
        table.add_column(f"{name}\nAUC / NE", justify="right")
    for variant, label in _NAMES.items():
        numbers = [_auc_ne(_pooled(windows, variant)) for windows in parts.values()]
        table.add_row(label, *numbers)
    return table


def _curves(comparison: dict[str, Any]) -> list[str]:
    """Return a line per variant: a bar per window, the moment marked by a stroke."""
    before = [one for one in comparison["curve"] if one["from_ms"] < comparison["freeze_at_ms"]]
    after = comparison["curve"][len(before) :]
    width = max(len(label) for label in _NAMES.values())
    return [
        f"{label:{width}}  {_sparkline(before, variant)}|{_sparkline(after, variant)}"
        for variant, label in _NAMES.items()
    ]


_Windows: TypeAlias = list[dict[str, Any]]


def _parts(comparison: dict[str, Any]) -> tuple[_Windows, _Windows, _Windows]:
    """Cut the curve at the change: the half before it; after it, the first and the last third."""
    change_ms = comparison["freeze_at_ms"]
    before = [one for one in comparison["curve"] if one["from_ms"] < change_ms]
    after = [one for one in comparison["curve"] if one["from_ms"] >= change_ms]
    third = max(len(after) // 3, 1)
    return before[len(before) // 2 :], after[:third], after[-third:]


def _pooled(windows: _Windows, variant: str) -> dict[str, float | None]:
    """Return the mean over windows, weighted by their examples."""
    pooled: dict[str, float | None] = {}
    for name in ("auc", "ne"):
        known = [
            (one["variants"][variant][name], one["variants"][variant]["examples"])
            for one in windows
            if one["variants"][variant][name] is not None
        ]
        values, weights = [value for value, _ in known], [weight for _, weight in known]
        pooled[name] = float(np.average(values, weights=weights)) if known else None
    return pooled


def _auc_ne(values: dict[str, float | None]) -> str:
    auc, ne = values["auc"], values["ne"]
    return "n/a" if auc is None or ne is None else f"{auc:.3f} / {ne:.3f}"


def _sparkline(curve: _Windows, variant: str) -> str:
    """Draw AUC from .5 (lowest bar) to .8 (highest)."""
    bars = []
    for window in curve:
        auc = window["variants"][variant]["auc"]
        level = 0.0 if auc is None else (auc - 0.5) / 0.3
        bars.append(_BARS[int(np.clip(level, 0.0, 0.999) * len(_BARS))])
    return "".join(bars)


def _sentences(comparison: dict[str, Any]) -> list[str]:
    recovered = {variant: _recovery_s(comparison, variant) for variant in _NAMES}
    lines = []
    for variant, label in _NAMES.items():
        seconds = recovered[variant]
        lines.append(
            f"{label}: not back to its earlier AUC by the end"
            if seconds is None
            else f"{label}: back to its earlier AUC {seconds:.0f} s after the change"
        )
    online, memory = recovered["online"], recovered["online+memory"]
    if memory is not None and (online is None or memory < online):
        lines.append("The error memory recovered sooner than the online model alone.")
    else:
        lines.append("The error memory did not recover sooner than the online model alone.")
    return lines


def _recovery_s(comparison: dict[str, Any], variant: str) -> float | None:
    """Return when AUC was back within .02 of its earlier value and stayed there, in seconds."""
    earlier = _pooled(_parts(comparison)[0], variant)["auc"]
    after = [one for one in comparison["curve"] if one["from_ms"] >= comparison["freeze_at_ms"]]
    if earlier is None:
        return None
    recovered_at: int | None = None
    for window in after:
        auc = window["variants"][variant]["auc"]
        is_back = auc is not None and auc >= earlier - _RECOVERED
        if not is_back:
            recovered_at = None
        elif recovered_at is None:
            recovered_at = window["from_ms"]
    if recovered_at is None:
        return None
    return float(recovered_at - comparison["freeze_at_ms"]) / 1_000


def _freshness_line(seconds: list[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    if not known:
        return "From an action to a changed answer: no answer changed within 5 s."
    missed = len(seconds) - len(known)
    tail = f"; {missed} of {len(seconds)} did not change within 5 s" if missed else ""
    return (
        f"From an action to a changed answer, {len(seconds)} probes: median "
        f"{np.median(known):.3f} s, slowest {max(known):.3f} s{tail}."
    )
