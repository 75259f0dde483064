"""Metric per epoch as one HTML page that needs nothing but a browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from plotly.offline import get_plotlyjs

from evaluation.comparison import TITLES, markdown

_SHOWN = ("ndcg@10", "hr@10", "mrr")
_COLOURS = {"upstream": "#0072b2", "validation": "#d55e00"}
_PARTS = {"test": "solid", "validation": "dot"}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 0 auto; padding: 1.2rem; }
pre { overflow-x: auto; padding: .8rem; background: #8882; border-radius: 8px; }
"""

_SCRIPT = """
for (const [id, figure] of Object.entries(FIGURES)) {
  Plotly.newPlot(id, figure.data, figure.layout, {responsive: true, displayModeBar: false});
}
"""


def page(report: Mapping[str, Any]) -> str:
    """Return a report (see `comparison.report`) as a page: its table, then a plot per metric."""
    figures = {"loss": _loss(report), **{f"m{i}": _curve(report, m) for i, m in enumerate(_SHOWN)}}
    # A "</script>" in a name must not end the script.
    data = json.dumps(figures, allow_nan=False).replace("</", "<\\/")
    places = "".join(f'<div id="{name}"></div>' for name in figures)
    title = escape(f"{report['config']['model']}, epoch by epoch")
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>\n'
        f"<pre>{escape(markdown(report))}</pre>\n{places}\n"
        f"<script>{get_plotlyjs()}</script>\n"
        f"<script>const FIGURES = {data};{_SCRIPT}</script></body></html>\n"
    )


def _runs(report: Mapping[str, Any]) -> dict[tuple[str, int], list[Mapping[str, Any]]]:
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for one in report["epochs"]:
        found.setdefault((one["rule"], one["seed"]), []).append(one)
    return found


def _curve(report: Mapping[str, Any], metric: str) -> dict[str, Any]:
    lines = []
    for (rule, seed), epochs in _runs(report).items():
        for part, dash in _PARTS.items():
            if epochs[0][part] is not None:
                values = [one[part][metric] for one in epochs]
                lines.append(_line(f"{rule}, seed {seed}: {part}", rule, dash, epochs, values))
    return _figure(lines, TITLES[metric])


def _loss(report: Mapping[str, Any]) -> dict[str, Any]:
    lines = [
        _line(f"{rule}, seed {seed}", rule, "solid", epochs, [one["loss"] for one in epochs])
        for (rule, seed), epochs in _runs(report).items()
    ]
    return _figure(lines, "training loss")


def _line(
    name: str, rule: str, dash: str, epochs: list[Mapping[str, Any]], values: list[float]
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [one["epoch"] for one in epochs],
        "y": values,
        "line": {"color": _COLOURS[rule], "dash": dash, "width": 1.5},
    }


def _figure(lines: list[dict[str, Any]], title: str) -> dict[str, Any]:
    layout = {
        "title": {"text": title},
        "xaxis": {"title": {"text": "epoch"}},
        "height": 360,
        "margin": {"l": 60, "r": 20, "t": 50, "b": 45},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
    }
    return {"data": lines, "layout": layout}
