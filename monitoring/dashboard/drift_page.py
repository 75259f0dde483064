"""Drift: what changed, since when and how much, field by field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dash import dcc, html

from monitoring.dashboard.page import Page, View, nav_link
from monitoring.dashboard.parts import (
    COLOURS,
    Component,
    empty,
    graph,
    named,
    panel,
    plain_layout,
    table,
)
from monitoring.dashboard.records import Look
from monitoring.dashboard.words import moment, number, percent
from monitoring.drift_signal import DriftSignal
from monitoring.field_report import FieldDistribution, FieldWindow
from monitoring.reactions import Reaction

MAP = "field-map"
_MAX_FIELDS = 40
_MAX_WINDOWS = 120
_MAX_BARS = 20
_ROLE_WORDS = {"reference": "reference", "day": "last day", "now": "now"}
# From nothing to much, on any background: the colour is the page's, only its strength changes.
_SCALE = ((0.0, "rgba(217,119,43,0)"), (0.3, "rgba(217,119,43,0.45)"), (1.0, "rgba(212,82,110,1)"))


@dataclass(frozen=True, slots=True)
class _Measure:
    """A number of a field's window; the map is fully coloured from `much` on."""

    words: str
    attribute: str
    much: float
    note: str


_MEASURES = {
    "reference": _Measure("against reference", "psi_reference", 1.0,
                          "Population stability index; from 0.25 on worth a look."),
    "day": _Measure("against last day", "psi_day", 1.0,
                    "Population stability index; from 0.25 on worth a look."),
    "missing": _Measure("missing", "missing", 0.5, "Share of requests without a value."),
    "unseen": _Measure("unseen", "unseen", 0.5, "Share of values never seen before."),
}  # fmt: skip


def build(look: Look, view: View) -> Component:
    """Return the page."""
    if not look.records.places.drift.exists():
        return panel("No drift records yet", empty("A trainer writes them as it runs."))
    windows = look.records.drift(lambda store: store.windows())
    return html.Div(
        [_signals(look.signals), *_reactions(look.reactions), _fields(look, view, windows)]
    )


def _signals(signals: Sequence[DriftSignal]) -> Component:
    if not signals:
        return panel(
            "Signals",
            empty("No drift signal was ever given: every watched stream is what it was."),
            wide=True,
        )
    live = [signal for signal in signals if signal.ended_ms is None]
    ended = [signal for signal in signals if signal.ended_ms is not None]
    rows = [
        [
            signal.describe(),
            html.Span(signal.severity, className=f"badge {signal.severity}"),
            signal.kind,
            moment(signal.since_ms),
            moment(signal.ended_ms)
            if signal.ended_ms is not None
            else html.Span("live", className="badge look"),
        ]
        for signal in [*live, *ended]
    ]
    return panel(
        "Signals",
        table(
            "Drift signals, live ones first",
            ["What", "Size", "Kind", "Since (UTC)", "Ended (UTC)"],
            rows,
        ),
        note=f"{len(live)} live, {len(ended)} ended. Times are event times.",
        wide=True,
    )


def _reactions(done: Sequence[Reaction]) -> list[Component]:
    """Return nothing where nothing was done: reactions are off unless they were asked for."""
    if not done:
        return []
    rows = [[one.describe(), moment(one.time_ms)] for one in done]
    shown = table("What the trainer did about drift", ["What", "When (UTC)"], rows)
    return [panel("Reactions", shown, note="Times are event times.", wide=True)]


def _fields(look: Look, view: View, windows: Sequence[FieldWindow]) -> Component:
    if not windows:
        return panel(
            "Fields",
            empty("No window of fields was complete yet; the trainer writes one when it is."),
            wide=True,
        )
    measure = _MEASURES.get(view.asked.get("measure", ""), _MEASURES["reference"])
    newest: dict[str, FieldWindow] = {window.field: window for window in windows}
    fields = sorted(newest, key=lambda field: -(_largest(windows, field, measure)))
    shown = fields[:_MAX_FIELDS]
    chosen = view.asked.get("field", shown[0])
    links = [
        html.Li(nav_link(one.words, view.address(measure=key), is_here=one is measure))
        for key, one in _MEASURES.items()
    ]
    parts = [
        html.Nav(html.Ul(links), className="spans", **named("Measure of the map")),
        _map(windows, shown, measure),
        _numbers(view, [newest[field] for field in shown]),
    ]
    few = f" The {len(shown)} of {len(fields)} fields that moved most." if fields != shown else ""
    return html.Div(
        [
            panel("Fields over event time", *parts, note=measure.note + few, wide=True),
            _distribution(look, chosen),
        ]
    )


def _largest(windows: Sequence[FieldWindow], field: str, measure: _Measure) -> float:
    values = [getattr(one, measure.attribute) for one in windows if one.field == field]
    return max((value for value in values if value is not None), default=0.0)


def _map(windows: Sequence[FieldWindow], fields: Sequence[str], measure: _Measure) -> Component:
    ends = sorted({window.ended_ms for window in windows})[-_MAX_WINDOWS:]
    values = {
        (window.field, window.ended_ms): getattr(window, measure.attribute) for window in windows
    }
    rows = [[values.get((field, end)) for end in ends] for field in fields]
    cells = {
        "type": "heatmap",
        "x": [moment(end) for end in ends],
        "y": list(fields),
        "z": rows,
        "zmin": 0.0,
        "zmax": measure.much,
        "colorscale": [list(step) for step in _SCALE],
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{y}<br>%{x}<br>%{z:.3f}<extra></extra>",
        "colorbar": {"thickness": 12, "outlinewidth": 0},
    }
    layout = plain_layout(
        height=80 + 22 * len(fields),
        xaxis={"type": "category", "nticks": 6, "fixedrange": True, "tickangle": 0},
        yaxis={"autorange": "reversed", "automargin": True, "fixedrange": True, "dtick": 1},
    )
    figure = {"data": [cells], "layout": layout}
    return graph(f"Fields over event time, {measure.words}", figure, name=MAP)


def _numbers(view: View, windows: Sequence[FieldWindow]) -> Component:
    rows = [
        [
            dcc.Link(window.field, href=view.address(field=window.field)),
            number(window.psi_reference),
            number(window.psi_day),
            number(window.distance_reference),
            percent(window.missing),
            percent(window.unseen),
            f"{window.examples:,}",
        ]
        for window in windows
    ]
    heads = [
        "Field",
        "PSI, reference",
        "PSI, last day",
        "Distance",
        "Missing",
        "Unseen",
        "Examples",
    ]
    return table("Newest window of each field; choose one for its distribution", heads, rows, 6)


def _distribution(look: Look, field: str) -> Component:
    found = look.records.drift(lambda store: store.distributions(field))
    title = f"Distribution of {field}"
    if not found:
        return panel(title, empty("There is no distribution of this field."), wide=True)
    labels = _most_frequent(found)
    roles = list(_ROLE_WORDS)
    found = sorted(found, key=lambda one: roles.index(one.role))
    figure = {
        "data": [_bars(one, labels, colour) for one, colour in zip(found, COLOURS, strict=False)],
        "layout": plain_layout(
            height=300,
            barmode="group",
            xaxis={"type": "category", "fixedrange": True, "automargin": True},
            yaxis={"tickformat": ".0%", "fixedrange": True, "automargin": True},
        ),
    }
    few = len({label for one in found for label in one.labels}) - len(labels)
    note = f"Now against the reference; up to {moment(max(one.ended_ms for one in found))} UTC."
    note += f" {few} rarer values are not drawn." if few else ""
    return panel(title, graph(title, figure), note=note, wide=True)


def _bars(one: FieldDistribution, labels: Sequence[str], colour: str) -> dict[str, Any]:
    total = sum(one.counts) or 1.0
    shares = {label: count / total for label, count in zip(one.labels, one.counts, strict=True)}
    return {
        "type": "bar",
        "x": list(labels),
        "y": [shares.get(label, 0.0) for label in labels],
        "name": _ROLE_WORDS[one.role],
        "marker": {"color": colour},
        "hovertemplate": "%{y:.1%}",
    }


def _most_frequent(found: Sequence[FieldDistribution]) -> list[str]:
    """Return the bins to draw, in their own order, those that matter in any of the roles."""
    weights: dict[str, float] = {}
    for one in found:
        total = sum(one.counts) or 1.0
        for label, count in zip(one.labels, one.counts, strict=True):
            weights[label] = max(weights.get(label, 0.0), count / total)
    kept = set(sorted(weights, key=lambda label: -weights[label])[:_MAX_BARS])
    return [label for label in weights if label in kept]


PAGE = Page("/drift", "Drift", build, has_span=False)
