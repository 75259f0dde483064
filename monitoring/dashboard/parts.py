"""What pages are made of: panels, tiles, tables, curves, and what stands where there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
from dash import dcc, html

from monitoring.dashboard.curves import Times, with_gaps
from monitoring.metric_history import Values

Component: TypeAlias = Any
"""A dash component; dash has no types of its own."""

COLOURS = ("#2f80d0", "#d9772b", "#2f9e6e", "#b45fc4", "#c9a227", "#d4526e", "#7a86c8", "#6b9a9a")
"""Legible on white and on near-black; the order keeps neighbours apart for the colour-blind."""
MARK = "#d4526e"
STATE_WORDS = {"good": "ok", "look": "look", "bad": "act", "unknown": "no data"}
_HEIGHT = 230


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One line of a plot."""

    name: str
    times_ms: Times
    values: Values


@dataclass(frozen=True, slots=True)
class Plot:
    """How a plot is drawn.

    Attributes:
        span_ms: first and last moment of the horizontal axis.
        unit: what the vertical axis counts.
        marks: moments at which something happened, with a word for each.
        line: a value that means something, such as 1 for calibration.
    """

    title: str
    span_ms: tuple[int, int]
    unit: str = ""
    note: str = ""
    marks: Sequence[tuple[int, str]] = ()
    line: float | None = None


def named(words: str) -> dict[str, Any]:
    """Return the attribute that tells a screen reader what something is."""
    return {"aria-label": words}


def curves(plot: Plot, drawn: Sequence[Curve]) -> Component:
    """Return a panel with curves, or one that says that there is nothing to draw."""
    drawn = [curve for curve in drawn if not np.isnan(curve.values).all()]
    if not drawn:
        return panel(plot.title, empty("No values within this span."), note=plot.note)
    layout = _layout(plot)
    layout["showlegend"] = len(drawn) > 1 or bool(drawn[0].name)
    layout["shapes"] = [_line(plot.line)] if plot.line is not None else []
    layout["shapes"] += [_mark(time_ms) for time_ms, _ in plot.marks]
    layout["annotations"] = [_word(time_ms, word) for time_ms, word in plot.marks]
    lines = [_trace(curve, COLOURS[n % len(COLOURS)]) for n, curve in enumerate(drawn)]
    return panel(plot.title, graph(plot.title, {"data": lines, "layout": layout}), note=plot.note)


def graph(title: str, figure: dict[str, Any], name: str = "") -> Component:
    """Return a figure without plotly's own buttons; `name` is given to what may be clicked."""
    own: dict[str, Any] = {"id": name} if name else {}
    drawn = dcc.Graph(
        figure=figure,
        config={"displayModeBar": False, "responsive": True, "showTips": False},
        style={"height": f"{figure['layout']['height']}px"},
        **own,
    )
    return html.Div(drawn, role="img", **named(title))


def panel(title: str, *content: Component, note: str = "", wide: bool = False) -> Component:
    """Return a titled part of a page."""
    notes = [html.P(note, className="note")] if note else []
    return html.Section(
        [html.H2(title), *notes, *content], className="panel wide" if wide else "panel"
    )


def grid(*panels: Component) -> Component:
    """Return panels side by side, as many as fit."""
    return html.Div(list(panels), className="grid")


def tiles(found: Sequence[tuple[str, str, str]]) -> Component:
    """Return numbers to be read from afar: name, number, and what it is compared with."""
    return html.Dl(
        [
            html.Div(
                [
                    html.Dt(name),
                    html.Dd(value, className="value"),
                    html.Dd(note, className="note"),
                ],
                className="tile",
            )
            for name, value, note in found
        ],
        className="tiles",
    )


def badge(state: str) -> Component:
    """Return a state as a word and a colour, never as a colour alone."""
    return html.Span(STATE_WORDS[state], className=f"badge {state}")


def table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[Component]], numbers: int = 0
) -> Component:
    """Return a table whose last `numbers` columns are numbers."""
    first_number = len(heads) - numbers

    def kind(column: int) -> str:
        return "number" if column >= first_number else ""

    body = [
        html.Tr(
            [
                html.Th(cell, scope="row") if column == 0 else html.Td(cell, className=kind(column))
                for column, cell in enumerate(row)
            ]
        )
        for row in rows
    ]
    heading = [
        html.Th(head, scope="col", className=kind(column)) for column, head in enumerate(heads)
    ]
    return html.Div(
        html.Table(
            [
                html.Caption(caption, className="sr-only"),
                html.Thead(html.Tr(heading)),
                html.Tbody(body),
            ]
        ),
        className="scroll",
        tabIndex=0,
        role="region",
        **named(caption),
    )


def empty(text: str, *more: Component) -> Component:
    """Return what stands where there is nothing to show, and why."""
    return html.Div([html.P(text), *more], className="empty")


def problem(text: str) -> Component:
    """Return what went wrong, in the words of who noticed."""
    return html.Div(
        [html.Strong("This cannot be shown. "), text], className="problem", role="alert"
    )


def plain_layout(height: int = _HEIGHT, **more: Any) -> dict[str, Any]:
    """Return a layout whose colours come from the page's style sheet, in both schemes."""
    return {
        "height": height,
        "margin": {"l": 52, "r": 12, "t": 18, "b": 30},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12},
        "template": "none",
        "legend": {"orientation": "h", "y": -0.18, "x": 0, "yanchor": "top"},
        "uirevision": "kept",
        **more,
    }


def _layout(plot: Plot) -> dict[str, Any]:
    since, until = (_iso(time_ms) for time_ms in plot.span_ms)
    return plain_layout(
        hovermode="x unified",
        xaxis={"range": [since, until], "type": "date", "nticks": 6, "fixedrange": True},
        yaxis={
            "title": {"text": plot.unit, "standoff": 6},
            "nticks": 5,
            # Counts and times begin at 0; of a ratio, small differences are what matters.
            "rangemode": "tozero" if plot.unit else "nonnegative",
            "zeroline": False,
            "fixedrange": True,
            "automargin": True,
        },
    )


def _trace(curve: Curve, colour: str) -> dict[str, Any]:
    times_ms, values = with_gaps(curve.times_ms, curve.values)
    return {
        "type": "scatter",
        "x": [_iso(time_ms) for time_ms in times_ms],
        "y": [None if np.isnan(value) else float(value) for value in values],
        "name": curve.name,
        "mode": "lines" if (~np.isnan(values)).sum() > 1 else "markers",
        "line": {"color": colour, "width": 2},
        "hovertemplate": "%{y:.4~g}",
    }


def _line(value: float) -> dict[str, Any]:
    line = {"color": "#8a8f98", "width": 1, "dash": "dot"}
    across = {"xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value}
    return {"type": "line", "line": line, **across}


def _mark(time_ms: int) -> dict[str, Any]:
    line = {"color": MARK, "width": 1, "dash": "dash"}
    upright = {"yref": "paper", "y0": 0, "y1": 1, "x0": _iso(time_ms), "x1": _iso(time_ms)}
    return {"type": "line", "line": line, **upright}


def _word(time_ms: int, word: str) -> dict[str, Any]:
    where = {"x": _iso(time_ms), "y": 1, "yref": "paper", "yanchor": "bottom"}
    return {"text": word, "showarrow": False, "font": {"color": MARK, "size": 11}, **where}


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(int(time_ms) / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
