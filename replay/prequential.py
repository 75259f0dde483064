"""Prequential evaluation: every example is scored before it is learned, every variant alike."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from replay.records import ExampleRecords, ReplayRecords, TakenRecords, digest
from replay.variants import Variant
from stream.observer import Demand, Measured

TOP_K = 20
LIVE_RETRIEVER = "online"

_COLUMNS = ("key", "user", "session", "ordinal", "time_ms", "known_actions", "item_shown")
_TAKEN_COLUMNS = ("key", "user", "ordinal")


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is remembered of a list until its labels are settled."""

    ordinal: int
    user: int
    known_actions: int
    item_shown: tuple[int, ...]


class Prequential:
    """Keeps every measured prediction of a replay, and turns them into tables.

    Memory: 4 bytes per example, variant and head, 60 bytes per example beside, and a count for each
    item ever shown.
    """

    def __init__(
        self,
        variants: Sequence[Variant],
        max_examples: int | None = None,
        heads: Sequence[str] = (),
    ) -> None:
        """Keep what `variants` predict.

        Args:
            variants: scored beside each other.
            max_examples: examples kept; what comes after is not. None keeps all.
            heads: names of the label heads; numbers where they are left out.
        """
        self._variants = tuple(variants)
        self._max_examples = max_examples
        self._heads = tuple(heads)
        self._shown: dict[str, _Shown] = {}
        self._times_shown: dict[str, int] = {}
        self._columns = {name: array("q") for name in _COLUMNS}
        self._labels = array("f")
        self._num_heads = len(heads)
        self._scores = {variant.name: array("f") for variant in variants}
        self._rank = array("q")
        self._taken = {name: array("q") for name in _TAKEN_COLUMNS}
        self._num_demands = 0

    def on_demand(self, demand: Demand) -> None:
        """Let every variant score the items about to be shown."""
        request = demand.request
        counts = tuple(self._times_shown.get(item, 0) for item in request.item_ids)
        self._shown[demand.impression_id] = _Shown(
            demand.ordinal, digest(request.user.user_id), len(request.user.history), counts
        )
        for item in request.item_ids:
            self._times_shown[item] = self._times_shown.get(item, 0) + 1
        self._num_demands = demand.ordinal + 1
        for variant in self._variants:
            variant.on_demand(demand)

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Let every variant learn from labels that became known."""
        for variant in self._variants:
            variant.on_examples(examples)

    def on_measured(self, measured: Sequence[Measured]) -> None:
        """Keep what each variant predicted beside the settled labels.

        What was shown before a trainer was restarted is left out: nobody was there to predict it.
        """
        measured = [one for one in measured if one.example.impression_id in self._shown]
        if not measured or len(self._columns["key"]) == self._max_examples:
            return
        by_variant = [variant.probabilities(measured) for variant in self._variants]
        for row, one in enumerate(measured):
            labels = one.example.labels
            if np.isnan(labels).all() or len(self._columns["key"]) == self._max_examples:
                continue
            self._keep(one)
            self._num_heads = len(labels)
            self._labels.extend(labels)
            for variant, score_NK in zip(self._variants, by_variant, strict=True):
                self._scores[variant.name].extend(score_NK[row].tolist())

    def _keep(self, one: Measured) -> None:
        example = one.example
        shown = self._shown[example.impression_id]
        values = (
            digest(example.impression_id, example.item_id),
            shown.user,
            one.session,
            shown.ordinal,
            example.shown_ms,
            shown.known_actions,
            shown.item_shown[example.item_index],
        )
        for name, value in zip(_COLUMNS, values, strict=True):
            self._columns[name].append(value)

    def on_ranks(self, actions: Sequence[PositiveAction], ranks: NDArray[np.int64]) -> None:
        """Keep the ranks retrieval gave to what users took next."""
        self._rank.extend(int(rank) for rank in ranks)
        for action in actions:
            user = action.user.user_id
            self._taken["key"].append(digest(user, action.item_id, str(action.time_ms)))
            self._taken["user"].append(digest(user))
            self._taken["ordinal"].append(self._num_demands)

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Drop what was kept for impressions that are done with."""
        for impression_id in impression_ids:
            self._shown.pop(impression_id, None)
        for variant in self._variants:
            variant.on_forget(impression_ids)

    def on_step(self, step: int, ranking: LearnReport, retrieval: LearnReport) -> None:
        """Do nothing: steps are not evaluated."""

    def save(self) -> State:
        """Return nothing: a trainer's snapshot is not made larger by what a report would show."""
        return {}

    def load(self, state: State) -> None:
        """Take nothing: a trainer that was restarted begins to record anew."""

    def save_all(self) -> State:
        """Return everything recorded and every variant, for a replay that is to go on."""
        shown = self._shown.values()
        return {
            "shown": list(self._shown),
            "lists": np.array(
                [(one.ordinal, one.user, one.known_actions) for one in shown], np.int64
            ).reshape(-1, 3),
            "items_shown": [list(one.item_shown) for one in shown],
            "times_shown": dict(self._times_shown),
            "columns": _plain(self._columns),
            "labels": np.array(self._labels, np.float32),
            "num_heads": self._num_heads,
            "scores": {str(at): np.array(one, np.float32) for at, one in self._by_number()},
            "rank": np.array(self._rank, np.int64),
            "taken": _plain(self._taken),
            "num_demands": self._num_demands,
            "variants": {str(at): one.save() for at, one in enumerate(self._variants)},
        }

    def load_all(self, state: State) -> None:
        """Become what `save_all` described; the variants are those of that replay."""
        rows = zip(state["shown"], state["lists"].tolist(), state["items_shown"], strict=True)
        self._shown = {
            name: _Shown(ordinal, user, known_actions, tuple(items))
            for name, (ordinal, user, known_actions), items in rows
        }
        self._times_shown = dict(state["times_shown"])
        self._columns = _typed(state["columns"])
        self._labels = _typed_one(state["labels"], "f")
        self._num_heads = state["num_heads"]
        for at, scores in self._by_number():
            scores[:] = _typed_one(state["scores"][str(at)], "f")
        self._rank = _typed_one(state["rank"], "q")
        self._taken = _typed(state["taken"])
        self._num_demands = state["num_demands"]
        for at, variant in enumerate(self._variants):
            variant.load(state["variants"][str(at)])

    def _by_number(self) -> Iterator[tuple[int, array[float]]]:
        return enumerate(self._scores.values())

    @property
    def num_demands(self) -> int:
        """Return how many demands there were so far."""
        return self._num_demands

    def records(
        self,
        split_at: int,
        num_demands: int,
        baseline_ranks: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> ReplayRecords:
        """Return everything recorded, as columns.

        Args:
            split_at: demand at which the second half begins.
            num_demands: demands there were to be in all; feedback that comes before its impression
                makes one more.
            baseline_ranks: ranks that retrieval baselines gave to the same actions, by name.
        """
        heads = self._heads or tuple(str(head) for head in range(self._num_heads))
        size = len(self._columns["key"])
        shown = ExampleRecords(
            heads=heads,
            columns={name: np.array(values, np.int64) for name, values in self._columns.items()},
            label_NH=np.array(self._labels, np.float32).reshape(size, -1 if size else len(heads)),
            scores={
                name: np.array(values, np.float32).reshape(size, -1 if size else len(heads))
                for name, values in self._scores.items()
            },
        )
        taken = TakenRecords(
            columns={name: np.array(values, np.int64) for name, values in self._taken.items()},
            ranks={LIVE_RETRIEVER: np.array(self._rank, np.int64), **(baseline_ranks or {})},
        )
        return ReplayRecords(split_at, max(num_demands, self._num_demands), shown, taken)

    def variants(
        self, split_at: int, num_demands: int, num_windows: int = 20
    ) -> dict[str, dict[str, Any]]:
        """Return the primary head's `{name: {"second_half": {...}, "windows": [...]}}`.

        Args:
            split_at: demand at which the second half begins.
            num_demands: demands there were to be in all, see `records`.
            num_windows: windows of equally many demands that curves are drawn from.
        """
        order, ordinal = self._primary()
        second = order[ordinal >= split_at]
        edges = np.linspace(0, max(num_demands, self._num_demands), num_windows + 1)
        windows = [
            rows
            for low, high in pairwise(edges)
            if len(rows := order[(ordinal >= low) & (ordinal < high)])
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
        rows, _ = self._primary()
        shown = np.asarray(self._columns["time_ms"])[rows]
        rows = np.sort(rows[(shown >= from_ms) & (shown < until_ms)])
        return {name: self._quality(name, rows) for name in self._scores}

    def span_ms(self) -> tuple[int, int]:
        """Return when the first and the last kept item was shown; (0, 0) when there is none."""
        times = self._columns["time_ms"]
        return (min(times), max(times)) if times else (0, 0)

    def retrieval(self, split_at: int) -> dict[str, float | int | None]:
        """Return retrieval quality over the second half; an item not in the catalog is a miss."""
        ranks = np.asarray(self._rank, np.int64)
        second = ranks[np.asarray(self._taken["ordinal"]) >= split_at]
        # 0 marks users without a history, who are not evaluated; -1 a miss.
        asked = second[second != 0]
        return {
            f"recall@{TOP_K}": recall_at_k(asked, TOP_K),
            f"ndcg@{TOP_K}": ndcg_at_k(asked, TOP_K),
            "mrr": mrr(asked),
            "predictions": len(asked),
        }

    def _primary(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows with a known primary label in the order they were shown, and their demand."""
        known = np.flatnonzero(~np.isnan(self._primary_labels()))
        ordinal = np.asarray(self._columns["ordinal"], np.int64)[known]
        order = np.argsort(ordinal, kind="stable")
        return known[order], ordinal[order]

    def _primary_labels(self) -> NDArray[np.float32]:
        return np.asarray(self._labels, np.float32)[:: max(self._num_heads, 1)]

    def _window(self, name: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        times = np.asarray(self._columns["time_ms"])[rows]
        span = {"from_ms": int(times.min()), "until_ms": int(times.max())}
        return {**span, **self._quality(name, rows)}

    def _quality(self, name: str, rows: NDArray[np.int64]) -> dict[str, float | int | None]:
        stored = self._scores[name]
        width = len(stored) // max(len(self._columns["key"]), 1)
        labels = self._primary_labels()[rows]
        scores = np.asarray(stored, np.float32)[:: max(width, 1)][rows]
        sessions = np.asarray(self._columns["session"])[rows]
        return {
            "examples": len(rows),
            "auc": auc(labels, scores),
            "gauc": gauc(labels, scores, sessions),
            "ne": normalized_entropy(labels, scores),
            "calibration": calibration_ratio(labels, scores),
        }


def _plain(columns: Mapping[str, array[int]]) -> State:
    return {name: np.array(values, np.int64) for name, values in columns.items()}


def _typed(columns: State) -> dict[str, array[int]]:
    return {name: _typed_one(values, "q") for name, values in columns.items()}


def _typed_one(values: NDArray[Any], code: str) -> array[Any]:
    """Return a column as what is appended to."""
    column: array[Any] = array(code)
    column.frombytes(values.tobytes())
    return column
