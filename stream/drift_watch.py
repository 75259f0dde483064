"""Watches the loop for drift: inputs, labels, predictions, concept, and the way events arrive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domain.examples import JoinedExample, LearnReport, PositiveAction
from domain.features import FeatureSchema
from domain.state import State
from monitoring.drift_monitor import DriftMonitor, DriftMonitorConfig
from monitoring.drift_signal import DriftSignal
from monitoring.drift_sinks import DriftSink
from monitoring.drift_streams import (
    DEAD_LETTERS,
    DUPLICATES,
    ITEM_NOVELTY,
    LABEL_DELAY,
    LATENESS,
    UNRANKED,
    USER_NOVELTY,
    observe_batch,
    observe_skew,
    observe_windows,
    standard_streams,
)
from monitoring.field_drift import FieldDrift
from monitoring.field_watch import FieldWatch
from monitoring.item_novelty import ItemNovelty
from monitoring.metrics import Metrics
from monitoring.quality_windows import QualityWindows
from monitoring.score_skew import ScoreSkew, are_rankers
from stream.observer import Arrivals, Demand, Measured
from stream.watermark import Watermark, WatermarkConfig

VARIANTS = ("online", "online+memory")
_REMEMBERED_IDS = 1_000_000
_LISTS_AT_ONCE = 16
"""Lists whose numbers are added up before streams hear of them; points are made of more."""
_LISTS, _ITEMS, _NEW_ITEMS, _NEW_USERS, _BEHIND, _SERVED, _UNRANKED = range(7)
_SHOWN_SUMS = 7


class LearnerProbe(Protocol):
    """Reads numbers off the learners now and then: what they are, not how they score."""

    def read(self, event_time_ms: int) -> Mapping[str, float]:
        """Return points by the name of their stream; empty when it is not time yet."""

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""

    def load(self, state: State) -> None:
        """Become what `save` described."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftWatchParts:
    """What a watch works with.

    Attributes:
        config: how streams are watched.
        watermark: which event times can be believed; the same as the loop's.
        sinks: who hears of what was found.
        probes: who reads the learners, by a name that is kept in snapshots.
    """

    config: DriftMonitorConfig
    metrics: Metrics
    watermark: WatermarkConfig = field(default_factory=WatermarkConfig)
    sinks: Sequence[DriftSink] = ()
    probes: Mapping[str, LearnerProbe] = field(default_factory=dict)


class DriftWatch:
    """Feeds everything that is watched for drift, and keeps what was found.

    Times are those that can be believed: one event far in the future ends no signal.
    """

    def __init__(self, schema: FeatureSchema, parts: DriftWatchParts) -> None:
        config, sinks = parts.config, parts.sinks
        self._heads = tuple(head.name for head in schema.heads)
        self._fields = FieldWatch(schema, config.fields)
        streams = standard_streams(VARIANTS, self._heads)
        self._monitor = DriftMonitor(streams, config, parts.metrics, sinks, self._explain)
        self._field_drift = FieldDrift(self._fields, config.fields, self._monitor.book, sinks)
        self._items, self._users = ItemNovelty(_REMEMBERED_IDS), ItemNovelty(_REMEMBERED_IDS)
        self._time = Watermark(parts.watermark)
        self._windows = QualityWindows(VARIANTS, len(self._heads))
        self._skew = ScoreSkew()
        self._probes = dict(parts.probes)
        self._shown = [0.0] * _SHOWN_SUMS
        self._arrived = Arrivals()

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
        if demand.served_N is not None:
            shown[_SERVED] += 1.0
            shown[_UNRANKED] += not are_rankers(demand.served_N)
        if shown[_LISTS] >= _LISTS_AT_ONCE:
            self._observe_shown(now_ms)
            self._observe_arrivals(demand.arrivals, now_ms)
        state = self._fields.observe(request, now_ms)
        if state is not None:
            self._field_drift.take(state)

    def _observe_shown(self, now_ms: int) -> None:
        observe, shown = self._monitor.observe, self._shown
        items = max(int(shown[_ITEMS]), 1)
        observe(ITEM_NOVELTY, shown[_NEW_ITEMS] / items, items, now_ms)
        observe(USER_NOVELTY, shown[_NEW_USERS] / items, items, now_ms)
        observe(LATENESS, shown[_BEHIND] / items, items, now_ms)
        served = int(shown[_SERVED])
        observe(UNRANKED, shown[_UNRANKED] / max(served, 1), served, now_ms)
        self._shown = [0.0] * _SHOWN_SUMS

    def _observe_arrivals(self, arrived: Arrivals, now_ms: int) -> None:
        before, self._arrived = self._arrived, arrived
        events = arrived.total - before.total
        for name, count in (
            (DUPLICATES, arrived.duplicates - before.duplicates),
            (DEAD_LETTERS, arrived.dead_letters - before.dead_letters),
        ):
            self._monitor.observe(name, count / max(events, 1), events, now_ms)

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
        windows = self._windows.update(label_NH, scores)
        observe_windows(self._monitor, self._heads, windows, now_ms)
        self._observe_skew(measured, scores["online+memory"][:, 0], now_ms)

    def _observe_skew(
        self, measured: Sequence[Measured], trained_N: NDArray[np.float32], now_ms: int
    ) -> None:
        """Compare what servers showed with what the trainer said of the primary head."""
        served_N = np.array([one.served for one in measured], np.float32)
        served_N[~((served_N > 0.0) & (served_N < 1.0))] = np.nan
        observe_skew(self._monitor, self._skew.update(served_N, trained_N), now_ms)

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
        """Watch what the learners have become."""
        del step, ranking, retrieval
        now_ms = self._time.newest_ms
        for probe in self._probes.values():
            for stream, value in probe.read(now_ms).items():
                self._monitor.observe_point(stream, value, now_ms)

    def save(self) -> State:
        """Return detectors, counts, what was seen and what is live."""
        return {
            "monitor": self._monitor.save(),
            "fields": self._fields.save(),
            "field_drift": self._field_drift.save(),
            "items": self._items.save(),
            "users": self._users.save(),
            "time": self._time.save(),
            "auc": self._windows.save(),
            "skew": self._skew.save(),
            "probes": {name: probe.save() for name, probe in self._probes.items()},
            "shown": list(self._shown),
            "arrived": asdict(self._arrived),
        }

    def load(self, state: State) -> None:
        """Become what `save` described; what it lacks starts afresh."""
        self._monitor.load(state["monitor"])
        self._fields.load(state["fields"])
        self._field_drift.load(state["field_drift"])
        self._items.load(state["items"])
        self._users.load(state["users"])
        self._time.load(state["time"])
        self._windows.load(state["auc"])
        if "skew" in state:
            self._skew.load(state["skew"])
            self._arrived = Arrivals(**state["arrived"])
            self._shown = list(state["shown"])
            for name, probe in self._probes.items():
                if name in state["probes"]:
                    probe.load(state["probes"][name])

    def _believed(self, time_ms: int) -> int:
        self._time.observe(time_ms)
        return self._time.newest_ms

    def _explain(self, signal: DriftSignal) -> tuple[tuple[str, float], ...]:
        return self._field_drift.explain(signal)
