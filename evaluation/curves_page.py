"""Metric per epoch as one HTML page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.comparison import TITLES, markdown
from replay.plot_page import plot_page

_SHOWN = ("ndcg@10", "hr@10", "mrr")
_COLOURS = {"upstream": "#0072b2", "validation": "#d55e00"}
_PARTS = {"test": "solid", "validation": "dot"}


def page(report: Mapping[str, Any]) -> str:
    """Return a report (see `comparison.report`) as a page: its table, then a plot per metric."""
    figures = {"loss": _loss(report), **{f"m{i}": _curve(report, m) for i, m in enumerate(_SHOWN)}}
    return plot_page(f"{report['config']['model']}, epoch by epoch", markdown(report), figures)


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
