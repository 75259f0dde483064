"""Watches the loop for drift: inputs, labels, predictions, concept, and the way events arrive."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample, LearnReport, PositiveAction
from domain.features import FeatureSchema
from domain.state import State
from monitoring import quality
from monitoring.drift_monitor import DriftMonitor, DriftMonitorConfig
from monitoring.drift_signal import DriftSignal
from monitoring.drift_sinks import DriftSink
from monitoring.drift_streams import (
    ITEM_NOVELTY,
    LABEL_DELAY,
    LATENESS,
    USER_NOVELTY,
    observe_batch,
    standard_streams,
)
from monitoring.field_drift import FieldDrift
from monitoring.field_watch import FieldWatch
from monitoring.item_novelty import ItemNovelty
from monitoring.metrics import Metrics
from stream.observer import Demand, Measured
from stream.watermark import Watermark

VARIANTS = ("online", "online+memory")
_REMEMBERED_IDS = 1_000_000
_LISTS_AT_ONCE = 16
"""Lists whose numbers are added up before streams hear of them; points are made of more."""
_LISTS, _ITEMS, _NEW_ITEMS, _NEW_USERS, _BEHIND = range(5)
_SHOWN_SUMS = 5
_AUC_EXAMPLES = 1_024
"""Examples behind one AUC: with a click rate of .2 its standard error is about .02."""


class DriftWatch:
    """Feeds everything that is watched for drift, and keeps what was found.

    Times are those that can be believed: one event far in the future ends no signal.
    """

    def __init__(
        self,
        schema: FeatureSchema,
        config: DriftMonitorConfig,
        metrics: Metrics,
        sinks: Sequence[DriftSink] = (),
    ) -> None:
        self._heads = tuple(head.name for head in schema.heads)
        self._fields = FieldWatch(schema, config.fields)
        streams = standard_streams(VARIANTS, self._heads)
        self._monitor = DriftMonitor(streams, config, metrics, sinks, self._explain)
        self._field_drift = FieldDrift(self._fields, config.fields, self._monitor.book, sinks)
        self._items, self._users = ItemNovelty(_REMEMBERED_IDS), ItemNovelty(_REMEMBERED_IDS)
        self._time = Watermark()
        self._auc = _AucWindow(len(self._heads))
        self._shown = [0.0] * _SHOWN_SUMS

    def live(self) -> list[DriftSignal]:
        """Return the live signals, oldest first."""
        return self._monitor.live()

    def on_demand(self, demand: Demand) -> None:
        """Watch what is shown to whom, and how late that arrives."""
        request = demand.request
        now_ms = self._believed(request.time_ms)
        shown = self._shown
        shown[_LISTS] += 1.0
        shown[_ITEMS] += len(request.item_ids)
        shown[_NEW_ITEMS] += self._items.update(request.item_ids) * len(request.item_ids)
        shown[_NEW_USERS] += self._users.update((request.user.user_id,)) * len(request.item_ids)
        if request.time_ms < now_ms:
            behind = math.log1p((now_ms - request.time_ms) / 1_000)
            shown[_BEHIND] += behind * len(request.item_ids)
        if shown[_LISTS] >= _LISTS_AT_ONCE:
            self._observe_shown(now_ms)
        state = self._fields.observe(request, now_ms)
        if state is not None:
            self._field_drift.take(state)

    def _observe_shown(self, now_ms: int) -> None:
        observe, shown = self._monitor.observe, self._shown
        items = max(int(shown[_ITEMS]), 1)
        observe(ITEM_NOVELTY, shown[_NEW_ITEMS] / items, items, now_ms)
        observe(USER_NOVELTY, shown[_NEW_USERS] / items, items, now_ms)
        observe(LATENESS, shown[_BEHIND] / items, items, now_ms)
        self._shown = [0.0] * _SHOWN_SUMS

    def on_examples(self, examples: Sequence[JoinedExample]) -> None:
        """Do nothing: labels are watched when they are settled."""

    def on_measured(self, measured: Sequence[Measured]) -> None:
        """Watch labels, predictions and the relation between them."""
        if not measured:
            return
        label_NH = np.array([one.example.labels for one in measured], np.float32)
        scores = {
            "online": np.stack([one.base_H for one in measured]),
            "online+memory": np.stack([one.compensated_H for one in measured]),
        }
        now_ms = self._believed(max(one.example.revealed_ms for one in measured))
        observe_batch(self._monitor, self._heads, label_NH, scores, now_ms)
        for head, auc_by_variant in self._auc.update(label_NH, scores):
            for variant, auc in auc_by_variant.items():
                name = f"auc/{variant}/{self._heads[head]}"
                self._monitor.observe_point(name, auc, now_ms)

    def on_ranks(self, actions: Sequence[PositiveAction], ranks: NDArray[np.int64]) -> None:
        """Watch how long after a list its items are taken."""
        del ranks
        for action in actions:
            if action.user.last_impression_ms is not None:
                delay_s = max(action.time_ms - action.user.last_impression_ms, 0) / 1_000
                now_ms = self._believed(action.time_ms)
                self._monitor.observe(LABEL_DELAY, math.log1p(delay_s), 1, now_ms)

    def on_forget(self, impression_ids: Sequence[str]) -> None:
        """Do nothing: nothing is kept by impression."""

    def on_step(self, step: int, ranking: LearnReport, retrieval: LearnReport) -> None:
        """Do nothing: steps are not watched."""

    def save(self) -> State:
        """Return detectors, counts, what was seen and what is live."""
        return {
            "monitor": self._monitor.save(),
            "fields": self._fields.save(),
            "field_drift": self._field_drift.save(),
            "items": self._items.save(),
            "users": self._users.save(),
            "time": self._time.save(),
            "auc": self._auc.save(),
            "shown": list(self._shown),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._monitor.load(state["monitor"])
        self._fields.load(state["fields"])
        self._field_drift.load(state["field_drift"])
        self._items.load(state["items"])
        self._users.load(state["users"])
        self._time.load(state["time"])
        self._auc.load(state["auc"])
        self._shown = list(state["shown"])

    def _believed(self, time_ms: int) -> int:
        self._time.observe(time_ms)
        return self._time.newest_ms

    def _explain(self, signal: DriftSignal) -> tuple[tuple[str, float], ...]:
        return self._field_drift.explain(signal)


class _AucWindow:
    """Gathers labels and scores until they suffice for an AUC; H heads."""

    def __init__(self, num_heads: int) -> None:
        self._label = [np.zeros(0, np.float32) for _ in range(num_heads)]
        self._score = {
            variant: [np.zeros(0, np.float32) for _ in range(num_heads)] for variant in VARIANTS
        }

    def update(
        self, label_NH: NDArray[np.float32], scores: dict[str, NDArray[np.float32]]
    ) -> list[tuple[int, dict[str, float]]]:
        """Take a batch; return head and AUC by variant for each window that is full."""
        found: list[tuple[int, dict[str, float]]] = []
        for head in range(len(self._label)):
            known_N = ~np.isnan(label_NH[:, head])
            for score_NH in scores.values():
                known_N &= np.isfinite(score_NH[:, head])
            self._label[head] = np.concatenate([self._label[head], label_NH[known_N, head]])
            for variant, score_NH in scores.items():
                kept = self._score[variant]
                kept[head] = np.concatenate([kept[head], score_NH[known_N, head]])
            if len(self._label[head]) >= _AUC_EXAMPLES:
                found.append((head, self._take(head)))
        return found

    def _take(self, head: int) -> dict[str, float]:
        label_N, self._label[head] = self._label[head], np.zeros(0, np.float32)
        aucs: dict[str, float] = {}
        for variant, kept in self._score.items():
            score_N, kept[head] = kept[head], np.zeros(0, np.float32)
            auc = quality.auc(label_N, score_N)
            if auc is not None:
                aucs[variant] = auc
        return aucs

    def save(self) -> State:
        return {
            "labels": {str(head): label_N.copy() for head, label_N in enumerate(self._label)},
            "scores": {
                variant: {str(head): score_N.copy() for head, score_N in enumerate(kept)}
                for variant, kept in self._score.items()
            },
        }

    def load(self, state: State) -> None:
        self._label = [state["labels"][str(head)].copy() for head in range(len(self._label))]
        for variant, kept in self._score.items():
            for head in range(len(kept)):
                kept[head] = state["scores"][variant][str(head)].copy()
