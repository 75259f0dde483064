"""What the incremental protocol came to: numbers, Markdown, TSV, and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring import quality
from replay.incremental import IncrementalConfig, Slot, SlotScores
from replay.plot_page import plot_page

METRICS = ("auc", "gauc", "ne")
_TITLES = {"auc": "AUC", "gauc": "session GAUC", "ne": "NE"}
_COLOURS = ("#999999", "#E69F00", "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#8B5FBF")


def measure(
    slots: Sequence[Slot], heads: Sequence[str], seed: int, config: IncrementalConfig
) -> dict[str, Any]:
    """Return the numbers of one seed: per method, head and slot; and with lambda held fixed."""
    return {
        "seed": seed,
        "slots": [
            {
                "from_ms": slot.from_ms,
                "until_ms": slot.until_ms,
                "examples": len(slot.session_N),
                "sessions": len(np.unique(slot.session_N)),
            }
            for slot in slots
        ],
        "methods": {
            method: {
                head: [_of_slot(slot, slot.scores[method], at) for slot in slots]
                for at, head in enumerate(heads)
            }
            for method in slots[0].scores
        },
        "fixed_lambda": {
            method: {
                f"{value:g}": [
                    _measures(slot, _corrected(slot.scores[method], value), 0) for slot in slots
                ]
                for value in config.lambdas
            }
            for method, scores in slots[0].scores.items()
            if scores.error_NH is not None
        },
    }


def _of_slot(slot: Slot, scores: SlotScores, head: int) -> dict[str, Any]:
    measures = _measures(slot, scores.score_NH, head)
    used = None if scores.lambda_H is None else round(float(scores.lambda_H[head]), 4)
    return {**measures, "lambda": used}


def _measures(slot: Slot, score_NH: NDArray[np.float32], head: int) -> dict[str, float | None]:
    label_N, score_N = slot.label_NH[:, head], score_NH[:, head]
    known_N = ~np.isnan(label_N)
    label_N, score_N = label_N[known_N], score_N[known_N].astype(np.float64)
    return {
        "auc": quality.auc(label_N, score_N),
        "gauc": quality.gauc(label_N, score_N, slot.session_N[known_N]),
        "ne": quality.normalized_entropy(label_N, score_N),
    }


def _corrected(scores: SlotScores, value: float) -> NDArray[np.float32]:
    """Return y_base + lambda y_err within 0 and 1, as the memory's compensation does it."""
    assert scores.error_NH is not None
    corrected_NH: NDArray[np.float32] = np.clip(scores.base_NH + value * scores.error_NH, 0.0, 1.0)
    return corrected_NH


def mean_of(report: Mapping[str, Any], method: str, metric: str, slots: slice) -> list[float]:
    """Return one number per seed: the mean of a metric of the primary head over some slots."""
    head = report["heads"][0]
    return [
        float(np.mean([one[metric] for one in run["methods"][method][head][slots]]))
        for run in report["runs"]
        if all(one[metric] is not None for one in run["methods"][method][head][slots])
    ]


def _by_slot(report: Mapping[str, Any], method: str, metric: str) -> list[list[float]]:
    num_slots = len(report["runs"][0]["slots"])
    return [mean_of(report, method, metric, slice(at, at + 1)) for at in range(num_slots)]


def markdown(report: Mapping[str, Any]) -> str:
    """Return what a terminal shows: slot by slot, and the mean after the first slot."""
    head, seeds = report["heads"][0], ", ".join(str(run["seed"]) for run in report["runs"])
    first = report["runs"][0]["slots"]
    lines = [
        f"# Incremental protocol on {report['dataset']}, head {head}",
        "",
        f"{len(first)} slots of about {first[0]['examples']:,} examples after a base that learned "
        f"the first {report['base_share']:.0%}; seeds {seeds}. Slot 1 is the same for all.",
    ]
    for metric in METRICS:
        names = [str(at + 1) for at in range(len(first))]
        lines += ["", f"| {_TITLES[metric]} | {' | '.join(names)} | mean from 2 |"]
        lines.append("|---|" + "---|" * (len(names) + 1))
        for method in report["runs"][0]["methods"]:
            cells = [
                _mean(mean_of(report, method, metric, slice(at, at + 1)))
                for at in range(len(first))
            ]
            whole = mean_of(report, method, metric, slice(1, None))
            lines.append(f"| {method} | {' | '.join(cells)} | {_mean_and_deviation(whole)} |")
    lines += ["", *_lambda_table(report, head)]
    return "\n".join(lines) + "\n"


def _lambda_table(report: Mapping[str, Any], head: str) -> list[str]:
    """Return what fixed lambdas would have come to, beside the ones that were earned."""
    runs = report["runs"]
    values = list(next(iter(runs[0]["fixed_lambda"].values())))
    lines = [
        f"| mean from 2, lambda | earned | {' | '.join(values)} |",
        "|---|" + "---|" * (len(values) + 1),
    ]
    for method, by_value in runs[0]["fixed_lambda"].items():
        earned = np.mean(
            [one["lambda"] for run in runs for one in run["methods"][method][head][1:]]
        )
        lines.append(f"| {method}: lambda | {earned:.2f} |" + " |" * len(values))
        for metric in ("auc", "ne"):
            cells = [
                _mean(
                    [one[metric] for run in runs for one in run["fixed_lambda"][method][value][1:]]
                )
                for value in by_value
            ]
            own = _mean(mean_of(report, method, metric, slice(1, None)))
            lines.append(f"| {method}: {_TITLES[metric]} | {own} | {' | '.join(cells)} |")
    return lines


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return _short(float(np.mean(known))) if known else "n/a"


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return "n/a"
    deviation = f" ± {_short(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return f"{_short(float(np.mean(values)))}{deviation}"


def _short(value: float) -> str:
    return f"{value:.4f}".removeprefix("0") if 0 <= value < 1 else f"{value:.4f}"


def tsv(report: Mapping[str, Any]) -> str:
    """Return a line per seed, method, head and slot."""
    lines = ["seed\tmethod\thead\tslot\texamples\tauc\tgauc\tne\tlambda"]
    for run in report["runs"]:
        for method, heads in run["methods"].items():
            for head, slots in heads.items():
                for at, one in enumerate(slots):
                    cells = [run["seed"], method, head, at + 1, run["slots"][at]["examples"]]
                    cells += ["" if one[key] is None else one[key] for key in (*METRICS, "lambda")]
                    lines.append("\t".join(map(str, cells)))
    return "\n".join(lines) + "\n"


def page(report: Mapping[str, Any]) -> str:
    """Return the report as one HTML page that needs nothing but a browser."""
    figures = {f"plot-{metric}": _figure(report, metric) for metric in METRICS}
    title = f"Incremental protocol on {report['dataset']}"
    return plot_page(title, markdown(report), figures)


def _figure(report: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Return a metric slot by slot, the mean over seeds, a line per method."""
    num_slots = len(report["runs"][0]["slots"])
    traces = []
    for at, method in enumerate(report["runs"][0]["methods"]):
        means = [
            mean_of(report, method, metric, slice(slot, slot + 1)) for slot in range(num_slots)
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": method,
                "x": list(range(1, num_slots + 1)),
                "y": [float(np.mean(values)) if values else None for values in means],
                "line": {"color": _COLOURS[at % len(_COLOURS)]},
            }
        )
    layout = {
        "title": {"text": _TITLES[metric]},
        "height": 420,
        "xaxis": {"title": {"text": "slot"}, "dtick": 1},
        "legend": {"orientation": "h", "y": -0.25},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "#7f7f7f"},
    }
    return {"data": traces, "layout": layout}
