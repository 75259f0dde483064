"""Prequential evaluation: every example is scored before it is learned, every variant alike."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample, LearnReport, PositiveAction
from domain.state import State
from monitoring.quality import (
    auc,
    calibration_ratio,
    gauc,
    mrr,
    ndcg_at_k,
    normalized_entropy,
    recall_at_k,
)
from replay.variants import Variant
from stream.observer import Demand, Measured

TOP_K = 20


class Prequential:
    """Keeps every measured prediction of a replay, and turns them into tables.

    Memory: 8 bytes per example and variant, 36 bytes per example beside.
    """

    def __init__(self, variants: Sequence[Variant], max_examples: int | None = None) -> None:
        """Keep what `variants` predict.

        Args:
            variants: scored beside each other.
            max_examples: examples kept; what comes after is not. None keeps all.
        """
        self._variants = tuple(variants)
        self._max_examples = max_examples
        self._ordinals: dict[str, int] = {}
        self._ordinal = array("q")
        self._time_ms = array("q")
        self._session = array("q")
        self._label = array("d")
        self._scores = {variant.name: array("d") for variant in variants}
        self._rank = array("q")
        self._rank_ordinal = array("q")
        self._num_demands = 0

    def on_demand(self, demand: Demand) -> None:
        """Let every variant score the items about to be shown."""
        self._ordinals[demand.impression_id] = demand.ordinal
        self._num_demands = demand.ordinal + 1
        for variant in self._variants:
            variant.on_demand(demand)

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Let every variant learn from labels that became known."""
        for variant in self._variants:
            variant.on_examples(examples)

    def on_measured(self, measured: Sequence[Measured]) -> None:
        """Keep what each variant predicted beside the settled label.

        What was shown before a trainer was restarted is left out: nobody was there to predict it.
        """
        measured = [one for one in measured if one.example.impression_id in self._ordinals]
        if not measured or len(self._label) == self._max_examples:
            return
        by_variant = [variant.probabilities(measured) for variant in self._variants]
        for row, one in enumerate(measured):
            label = one.example.labels[0]
            if np.isnan(label) or len(self._label) == self._max_examples:
                continue
            self._ordinal.append(self._ordinals[one.example.impression_id])
            self._time_ms.append(one.example.shown_ms)
            self._session.append(one.session)
            self._label.append(label)
            for variant, scores in zip(self._variants, by_variant, strict=True):
                self._scores[variant.name].append(scores[row])

    def on_ranks(self, actions: Sequence[PositiveAction], ranks: NDArray[np.int64]) -> None:
        """Keep the ranks retrieval gave to what users took next."""
        del actions
        self._rank.extend(int(rank) for rank in ranks)
        self._rank_ordinal.extend([self._num_demands] * len(ranks))

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Drop what was kept for impressions that are done with."""
        for impression_id in impression_ids:
            self._ordinals.pop(impression_id, None)
        for variant in self._variants:
            variant.on_forget(impression_ids)

    def on_step(self, step: int, ranking: LearnReport, retrieval: LearnReport) -> None:
        """Do nothing: steps are not evaluated."""

    def save(self) -> State:
        """Return nothing: a replay is not resumed."""
        return {}

    def load(self, state: State) -> None:
        """Take nothing: a replay is not resumed."""

    def variants(
        self, split_at: int, num_demands: int, num_windows: int = 20
    ) -> dict[str, dict[str, Any]]:
        """Return `{name: {"second_half": {...}, "windows": [...]}}`.

        Args:
            split_at: demand at which the second half begins.
            num_demands: demands there were to be in all; feedback that comes before its impression
                makes one more.
            num_windows: windows of equally many demands that curves are drawn from.
        """
        ordinal = np.asarray(self._ordinal)
        order = np.argsort(ordinal, kind="stable")
        second = order[ordinal[order] >= split_at]
        edges = np.linspace(0, max(num_demands, self._num_demands), num_windows + 1)
        windows = [
            rows
            for low, high in pairwise(edges)
            if len(rows := order[(ordinal[order] >= low) & (ordinal[order] < high)])
        ]
        return {
            name: {
                "second_half": self._quality(name, second),
                "windows": [self._window(name, rows) for rows in windows],
            }
            for name in self._scores
        }

    def between(self, from_ms: int, until_ms: int) -> dict[str, dict[str, float | int | None]]:
        """Return each variant's quality over what was shown in [from_ms, until_ms)."""
        shown = np.asarray(self._time_ms)
        rows = np.flatnonzero((shown >= from_ms) & (shown < until_ms))
        return {name: self._quality(name, rows) for name in self._scores}

    def span_ms(self) -> tuple[int, int]:
        """Return when the first and the last kept item was shown; (0, 0) when there is none."""
        return (min(self._time_ms), max(self._time_ms)) if self._time_ms else (0, 0)

    def retrieval(self, split_at: int) -> dict[str, float | int | None]:
        """Return retrieval quality over the second half; an item not in the catalog is a miss."""
        ranks = np.asarray(self._rank, np.int64)
        second = ranks[np.asarray(self._rank_ordinal) >= split_at]
        # 0 marks users without a history, who are not evaluated; -1 a miss.
        asked = second[second != 0]
        return {
            f"recall@{TOP_K}": recall_at_k(asked, TOP_K),
            f"ndcg@{TOP_K}": ndcg_at_k(asked, TOP_K),
            "mrr": mrr(asked),
            "predictions": len(asked),
        }

    def _window(self, name: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        times = np.asarray(self._time_ms)[rows]
        span = {"from_ms": int(times.min()), "until_ms": int(times.max())}
        return {**span, **self._quality(name, rows)}

    def _quality(self, name: str, rows: NDArray[np.int64]) -> dict[str, float | int | None]:
        labels = np.asarray(self._label)[rows]
        scores = np.asarray(self._scores[name])[rows]
        sessions = np.asarray(self._session)[rows]
        return {
            "examples": len(rows),
            "auc": auc(labels, scores),
            "gauc": gauc(labels, scores, sessions),
            "ne": normalized_entropy(labels, scores),
            "calibration": calibration_ratio(labels, scores),
        }
