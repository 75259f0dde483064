"""Numbers of a report: every measure of every variant, per head, half, window and slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from replay.intervals import (
    CALIBRATION_BINS,
    BootstrapConfig,
    Estimate,
    draw_means,
    estimate,
    head_estimates,
)
from replay.records import ExampleRecords, ReplayRecords, TakenRecords
from replay.slices import slices

NUM_WINDOWS = 20
SCORE_BINS = 40
RANK_DEPTHS = (10, 20, 100)
RANK_METRICS = (
    *(f"recall@{k}" for k in RANK_DEPTHS),
    *(f"hr@{k}" for k in RANK_DEPTHS),
    *(f"ndcg@{k}" for k in RANK_DEPTHS),
    "mrr",
)
SLICE_METRICS = ("auc", "gauc", "ne", "calibration")


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the stream by name: rows with a known label of the head at hand."""

    name: str
    rows: NDArray[np.int64]


def measure(records: ReplayRecords, config: BootstrapConfig) -> dict[str, Any]:
    """Return the numbers of a replay as JSON values; a missing one is null with its reason.

    Returns:
        `heads`: `{head: {part: {"examples", "positives", "variants": {name: {metric: {"value",
        "low", "high", "reason"}}}}}}`, parts being all, first_half and second_half;
        `windows`: `{head: [the same, with "from_ms" and "until_ms"]}`;
        `slices`, `calibration_curves` and `score_histograms` of the primary head, second half;
        `retrievers`: `{name: {metric: ...}}`, second half.
    """
    shown = records.examples
    ordinal = shown.columns["ordinal"]
    second = ordinal >= records.split_at
    primary = shown.known(0, second) if len(shown) else np.zeros(0, np.int64)
    return {
        "heads": {
            name: {
                part.name: _part(shown, head, part.rows, config)
                for part in _halves(shown, head, second)
            }
            for head, name in enumerate(shown.heads)
        },
        "windows": {name: _windows(records, head, config) for head, name in enumerate(shown.heads)},
        "slices": {
            name: _part(shown, 0, rows, config, SLICE_METRICS)
            for name, rows in slices(shown, primary).items()
        },
        "calibration_curves": _curves(shown, primary),
        "score_histograms": _histograms(shown, primary),
        "retrievers": _retrievers(records.taken, records.split_at, config),
    }


def _halves(
    shown: ExampleRecords, head: int, second: NDArray[np.bool_]
) -> tuple[_Part, _Part, _Part]:
    return (
        _Part("all", shown.known(head, np.ones(len(shown), bool))),
        _Part("first_half", shown.known(head, ~second)),
        _Part("second_half", shown.known(head, second)),
    )


def _part(
    shown: ExampleRecords,
    head: int,
    rows: NDArray[np.int64],
    config: BootstrapConfig,
    metrics: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    examples = shown.examples(head, rows)
    found = head_estimates(examples, shown.head_scores(head, rows), config)
    return {
        "examples": len(rows),
        "positives": int(examples.label_N.sum()),
        "users": len(np.unique(examples.user_N)),
        "variants": {
            name: plain({key: value for key, value in one.items() if not metrics or key in metrics})
            for name, one in found.items()
        },
    }


def plain(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Return estimates as JSON values."""
    return {name: one.to_plain() for name, one in estimates.items()}


def _windows(records: ReplayRecords, head: int, config: BootstrapConfig) -> list[dict[str, Any]]:
    """Return windows of equally many demands; one without a known label is left out."""
    shown = records.examples
    rows = shown.known(head, np.ones(len(shown), bool))
    ordinal = shown.columns["ordinal"][rows]
    found = []
    for low, high in pairwise(np.linspace(0, records.num_demands, NUM_WINDOWS + 1)):
        inside = rows[(ordinal >= low) & (ordinal < high)]
        if len(inside):
            times = shown.columns["time_ms"][inside]
            span = {"from_ms": int(times.min()), "until_ms": int(times.max())}
            found.append({**span, **_part(shown, head, inside, config)})
    return found


def _curves(shown: ExampleRecords, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Return, per variant, bins of equally many examples: mean prediction, rate, examples."""
    found = {}
    label_N = shown.label_NH[rows, 0] if len(rows) else np.zeros(0, np.float32)
    for name, score_N in shown.head_scores(0, rows).items():
        order = np.argsort(score_N, kind="stable")
        bins = [one for one in np.array_split(order, CALIBRATION_BINS) if len(one)]
        found[name] = {
            "predicted": [float(score_N[one].mean(dtype=np.float64)) for one in bins],
            "observed": [float(label_N[one].mean(dtype=np.float64)) for one in bins],
            "examples": [len(one) for one in bins],
        }
    return found


def _histograms(shown: ExampleRecords, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Return, per variant, how many negatives and positives got which score."""
    edges = np.linspace(0.0, 1.0, SCORE_BINS + 1)
    label_N = shown.label_NH[rows, 0] if len(rows) else np.zeros(0, np.float32)
    return {
        name: {
            "negatives": np.histogram(score_N[label_N == 0.0], edges)[0].tolist(),
            "positives": np.histogram(score_N[label_N == 1.0], edges)[0].tolist(),
        }
        for name, score_N in shown.head_scores(0, rows).items()
    }


def rank_gains(rank_M: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what each evaluated rank earns by each of `RANK_METRICS`, float64 (M, metrics).

    There is one target each, so the hit rate at k is the recall at k; both names are in use.

    >>> rank_gains(np.array([1, 25, -1]))[:, RANK_METRICS.index("mrr")].tolist()
    [1.0, 0.04, 0.0]
    """
    rank = np.where(rank_M < 0, np.inf, rank_M.astype(np.float64))
    hits = [(rank <= k).astype(np.float64) for k in RANK_DEPTHS]
    discounted = 1.0 / np.log2(1.0 + rank)
    return np.stack([*hits, *hits, *(discounted * hit for hit in hits), 1.0 / rank], axis=1)


def _retrievers(taken: TakenRecords, split_at: int, config: BootstrapConfig) -> dict[str, Any]:
    found = {}
    second = taken.columns["ordinal"] >= split_at
    for name, rank_M in taken.ranks.items():
        rows = np.flatnonzero(second & (rank_M != 0))
        draws = draw_means(rank_gains(rank_M[rows]), taken.columns["user"][rows], config)
        reason = "nobody with a history took an item"
        found[name] = {
            "predictions": len(rows),
            **plain(
                {
                    metric: estimate(draws.value_M[at], draws.draw_DM[:, at], reason)
                    for at, metric in enumerate(RANK_METRICS)
                }
            ),
        }
    return found
