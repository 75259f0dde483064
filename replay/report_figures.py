"""Figures of a report as plain data: what plotly.js draws, without asking anyone for anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from replay.compare import TITLES
from replay.report import SCORE_BINS

CURVES = ("auc", "gauc", "ne", "calibration")
# Okabe and Ito's colours: told apart by those who see fewer colours, and on light and dark alike.
# Their yellow is left out: as a line on white it cannot be seen.
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#999999")
_OWN_COLOURS = {"online+memory": "#0072B2", "online": "#8B5FBF", "frozen": "#D55E00"}
"""Colours of the models, whatever baselines there are; what a server answers stands out."""
_SEVERITY_COLOURS = {"small": "#999999", "medium": "#E69F00", "large": "#D55E00"}
_GREY = "rgba(128,128,128,0.25)"
_TEXT = "#7f7f7f"
_LEGEND_BELOW = {"orientation": "h", "y": -0.25}

Figure = dict[str, Any]


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each variant, the same in every figure of a report."""
    others = [name for name in names if name not in _OWN_COLOURS]
    return _OWN_COLOURS | {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(others)}


def moment(time_ms: int) -> str:
    """Return an event time as people and plotly read it, in UTC."""
    return f"{datetime.fromtimestamp(time_ms / 1_000, UTC):%Y-%m-%d %H:%M:%S}"


def curve(report: Mapping[str, Any], head: str, metric: str, served: str) -> Figure:
    """Return one measure of every variant over event time, drift signals as vertical lines."""
    windows = report["windows"][head]
    names = list(windows[0]["variants"]) if windows else []
    colour = colours(list(report["variants"]))
    traces: list[dict[str, Any]] = []
    for name in names:
        points = [
            (_middle(window), window["variants"][name][metric])
            for window in windows
            if name in window["variants"]
        ]
        if name == served:
            traces.append(_band(points, colour[name]))
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": name,
                "x": [at for at, _ in points],
                "y": [one["value"] for _, one in points],
                "line": {"color": colour[name], "width": 3 if name == served else 1.5},
                "marker": {"size": 4},
                "connectgaps": False,
            }
        )
    layout = _layout(TITLES[metric], "event time (UTC)", TITLES[metric])
    signals = report.get("drift_signals", [])
    if metric == "calibration":
        traces.append(_constant(windows, 1.0))
    layout["shapes"] = [_line(signal) for signal in signals]
    if signals and windows:
        traces.append(_marks(signals))
    return {"data": traces, "layout": layout}


def _middle(window: Mapping[str, Any]) -> str:
    return moment((window["from_ms"] + window["until_ms"]) // 2)


def _band(points: Sequence[tuple[str, Mapping[str, Any]]], colour: str) -> dict[str, Any]:
    """Return the 95 % interval of a curve as an area, where there is one."""
    known = [(at, one) for at, one in points if one["low"] is not None]
    up, down = [one["high"] for _, one in known], [one["low"] for _, one in known]
    times = [at for at, _ in known]
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return {
        "type": "scatter",
        "x": times + times[::-1],
        "y": up + down[::-1],
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},0.18)",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _constant(windows: Sequence[Mapping[str, Any]], value: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "right",
        "x": [_middle(window) for window in windows],
        "y": [value] * len(windows),
        "line": {"color": _TEXT, "dash": "dot", "width": 1},
        "hoverinfo": "skip",
    }


def _line(signal: Mapping[str, Any]) -> dict[str, Any]:
    at = moment(signal["time_ms"])
    colour = _SEVERITY_COLOURS[signal["severity"]]
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": at,
        "x1": at,
        "y0": 0,
        "y1": 1,
        # There may be many, and the curves are what the figure is for.
        "layer": "below",
        "opacity": 0.45,
        "line": {"color": colour, "width": 1, "dash": "dot"},
    }


def _marks(signals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a mark at the foot of each signal's line; hovering says what it was."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "drift signal",
        "x": [moment(signal["time_ms"]) for signal in signals],
        "y": [0.02] * len(signals),
        "yaxis": "y2",
        "text": [signal["sentence"] for signal in signals],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "symbol": "triangle-up",
            "size": 9,
            "color": [_SEVERITY_COLOURS[signal["severity"]] for signal in signals],
        },
    }


def calibration(report: Mapping[str, Any]) -> Figure:
    """Return observed rate over mean prediction; on the diagonal is right."""
    colour = colours(list(report["variants"]))
    curves = report["calibration_curves"]
    top = max((value for one in curves.values() for value in one["observed"]), default=1.0)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "right",
            "x": [0, top],
            "y": [0, top],
            "line": {"color": _TEXT, "dash": "dot", "width": 1},
            "hoverinfo": "skip",
        }
    ]
    traces += [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": one["predicted"],
            "y": one["observed"],
            "text": [f"{count:,} examples" for count in one["examples"]],
            "line": {"color": colour[name], "width": 1.5},
            "marker": {"size": 5},
        }
        for name, one in curves.items()
    ]
    return {
        "data": traces,
        "layout": _layout("Calibration", "mean prediction of a bin", "observed rate"),
    }


def scores(report: Mapping[str, Any], served: str) -> Figure:
    """Return how scores of positives and of negatives are spread; one variant, others on demand."""
    colour = colours(list(report["variants"]))
    middles = [(at + 0.5) / SCORE_BINS for at in range(SCORE_BINS)]
    traces = []
    for name, one in report["score_histograms"].items():
        for kind, dash in (("positives", "solid"), ("negatives", "dot")):
            total = sum(one[kind]) or 1
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": name,
                    "legendgroup": name,
                    "showlegend": kind == "positives",
                    "x": middles,
                    "y": [count / total for count in one[kind]],
                    "hovertemplate": f"%{{x}}: %{{y:.3f}}<extra>{name}, {kind}</extra>",
                    "line": {"color": colour[name], "dash": dash, "shape": "hvh", "width": 1.5},
                    "visible": True if name == served else "legendonly",
                }
            )
    title = "Scores (solid: positives, dotted: negatives)"
    return {"data": traces, "layout": _layout(title, "score", f"share per {1 / SCORE_BINS:g}")}


def slices(report: Mapping[str, Any], metric: str, names: Sequence[str]) -> Figure:
    """Return one measure per slice for a few variants, with intervals."""
    colour = colours(list(report["variants"]))
    traces = []
    parts = report["slices"]
    for name in names:
        cells = [part["variants"].get(name, {}).get(metric) or {} for part in parts.values()]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": list(parts),
                "y": [cell.get("value") for cell in cells],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_reach(cell, "high") for cell in cells],
                    "arrayminus": [_reach(cell, "low") for cell in cells],
                },
                "marker": {"color": colour[name], "size": 8},
            }
        )
    layout = _layout(f"{TITLES[metric]} by slice", "", TITLES[metric])
    layout["xaxis"] |= {"tickangle": -35, "automargin": True, "type": "category"}
    layout["yaxis"] |= _around(parts.values(), metric)
    layout["title"] |= {"y": 0.98, "yanchor": "top"}
    layout["margin"] |= {"t": 95}
    layout["height"] = 520
    layout["legend"] = {"orientation": "h", "y": 1.01, "yanchor": "bottom"}
    layout["scattermode"] = "group"
    return {"data": traces, "layout": layout}


def _around(parts: Iterable[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Return an axis that reaches from the lowest interval to the highest.

    With grouped markers it would begin at 0 by itself, and no difference could be seen.
    """
    cells = [one[metric] for part in parts for one in part["variants"].values()]
    ends = [cell[end] for cell in cells for end in ("value", "low", "high") if cell.get(end)]
    if not ends:
        return {}
    room = 0.05 * (max(ends) - min(ends)) or 0.05
    return {"range": [min(ends) - room, max(ends) + room]}


def _reach(cell: Mapping[str, Any], end: str) -> float:
    if cell.get("value") is None or cell.get(end) is None:
        return 0.0
    return abs(float(cell[end]) - float(cell["value"]))


def _layout(title: str, x_title: str, y_title: str) -> dict[str, Any]:
    axis = {"gridcolor": _GREY, "zerolinecolor": _GREY, "automargin": True}
    return {
        "title": {"text": title, "font": {"size": 15}},
        "margin": {"l": 60, "r": 15, "t": 45, "b": 45},
        "height": 420,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": _TEXT},
        "xaxis": {**axis, "title": {"text": x_title}},
        "yaxis": {**axis, "title": {"text": y_title}},
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False},
        "legend": _LEGEND_BELOW,
        "hovermode": "closest",
    }
