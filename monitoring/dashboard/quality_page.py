"""Quality: how good the predictions are, per head and variant, measured before they are learned."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html

from monitoring.dashboard.curves import processing_time
from monitoring.dashboard.overview_page import nothing_yet
from monitoring.dashboard.page import Page, View
from monitoring.dashboard.parts import Component, Curve, Plot, curves, empty, grid, panel, table
from monitoring.dashboard.records import Look
from monitoring.dashboard.words import number
from monitoring.drift_signal import DriftSignal

_METRICS = (
    ("Normalized entropy", "normalized_entropy_ratio", "Lower is better; 1 is always saying the "
     "mean rate.", 1.0),
    ("AUC", "auc_ratio", "Chance that a positive is scored above a negative; 0.5 is chance.", None),
    ("AUC within a session", "gauc_ratio", "Whether the order shown to a user makes sense.", None),
    ("Calibration", "calibration_ratio", "Mean prediction over mean label; 1 is right.", 1.0),
    ("Log loss", "log_loss", "In nats, as the heads are trained.", None),
)  # fmt: skip
_MAX_MARKS = 8


def build(look: Look, view: View) -> Component:
    """Return the page."""
    if not look.sources:
        return nothing_yet(look)
    heads = _heads(look)
    if not heads:
        return panel(
            "Nothing measured yet",
            empty(
                "A score is measured when its label is settled: when the attribution window of its "
                "impression closes, or at the first positive."
            ),
        )
    drift = marked(look)
    curves_of_heads = [_of_head(look, head, drift) for head in heads]
    return html.Div([_numbers(look), *_legend(drift), *curves_of_heads])


def marked(look: Look) -> list[tuple[int, DriftSignal]]:
    """Return the newest drift signals within the span, oldest first, with where they stand on it.

    Signals bear event time; the axis shows when the trainer had reached it.
    """
    found = [
        (at_ms, signal)
        for signal in look.signals[:_MAX_MARKS]
        if (at_ms := processing_time(look.trained, signal.time_ms)) is not None
    ]
    return [one for one in reversed(found) if one[0] >= look.since_ms]


def _legend(drift: Sequence[tuple[int, DriftSignal]]) -> list[Component]:
    if not drift:
        return []
    items = [html.Li(signal.describe()) for _, signal in drift]
    return [panel("Drift signals on the curves", html.Ol(items), wide=True)]


def _heads(look: Look) -> list[str]:
    found = look.trained.matching("headrace_monitoring_normalized_entropy_ratio")
    return list(dict.fromkeys(own["head"] for own, _ in found))


def _numbers(look: Look) -> Component:
    names = {f"headrace_monitoring_{name}": title for title, name, _, _ in _METRICS}
    cells: dict[tuple[str, str, str], dict[str, float]] = {}
    for name, title in names.items():
        for own, values in look.trained.matching(name):
            if len(values):
                key = (own["head"], own["variant"], own["scope"])
                cells.setdefault(key, {})[title] = float(values[-1])
    scopes = {"window": "last examples", "progressive": "whole run"}
    rows = [
        [head, variant, scopes[scope], *[number(found.get(title)) for title in names.values()]]
        for (head, variant, scope), found in sorted(cells.items(), key=lambda one: one[0])
    ]
    return panel(
        "Now",
        table(
            "Quality by head and variant",
            ["Head", "Variant", "Over", *names.values()],
            rows,
            numbers=len(names),
        ),
        note="online: the ranker alone. online+memory: with the error memory, which is what is "
        "served.",
        wide=True,
    )


def _of_head(look: Look, head: str, drift: Sequence[tuple[int, DriftSignal]]) -> Component:
    frame = look.trained
    marks = [(at_ms, f"drift {number_}") for number_, (at_ms, _) in enumerate(drift, 1)]
    panels = []
    for title, name, note, line in _METRICS:
        plot = Plot(
            f"{title}, {head}",
            (look.since_ms, look.until_ms),
            note=note,
            marks=marks,
            line=line,
        )
        drawn = [
            Curve(own["variant"], frame.times_ms, values)
            for own, values in frame.matching(
                f"headrace_monitoring_{name}", head=head, scope="window"
            )
        ]
        panels.append(curves(plot, drawn))
    return grid(*panels)


PAGE = Page("/quality", "Quality", build)
