"""Watches named streams for drift and keeps the signals an operator should look at."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from prometheus_client import Gauge

from domain.errors import ConfigError
from domain.state import State
from monitoring.drift_detectors import (
    DetectorName,
    DriftDetector,
    DriftDetectorsConfig,
    StreamDetector,
    WatchedStream,
)
from monitoring.drift_signal import DriftSignal
from monitoring.drift_sinks import DriftSink
from monitoring.field_watch import FieldWatchConfig
from monitoring.metrics import DRIFT_DETECTORS, Metrics
from monitoring.signal_book import BookRules, SignalBook
from monitoring.signal_store import SignalStoreConfig
from monitoring.webhook import WebhookConfig

Explain: TypeAlias = Callable[[DriftSignal], tuple[tuple[str, float], ...]]
"""Says what contributed most to a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftMonitorConfig:
    """How streams are watched.

    Attributes:
        detectors: names of the detectors on every stream. Each finds what another misses: ADWIN
            small lasting shifts, Page-Hinkley large ones at once, KSWIN also changes of shape.
        point_examples: examples averaged into one point; detectors see points. Small micro-batches
            are pooled up to this count, so that points are about equally noisy.
        refractory_ms: event time after a signal in which its stream gives no other.
        live_ms: event time after which a signal ends although its stream has not recovered: what
            lasts that long is normal by then.
        max_live: signals live at once; the oldest are ended.
        recover_points: points whose mean says whether a stream has recovered.
        sensitivity: settings of the detectors.
        fields: how fields are watched.
        store: how much of what was found is kept on disk.
        webhook: who is told.
    """

    detectors: tuple[DetectorName, ...] = ("adwin", "page_hinkley")
    point_examples: int = 128
    refractory_ms: int = 30 * 60 * 1000
    live_ms: int = 24 * 60 * 60 * 1000
    max_live: int = 100
    recover_points: int = 20
    sensitivity: DriftDetectorsConfig = field(default_factory=DriftDetectorsConfig)
    fields: FieldWatchConfig = field(default_factory=FieldWatchConfig)
    store: SignalStoreConfig = field(default_factory=SignalStoreConfig)
    webhook: WebhookConfig = field(default_factory=WebhookConfig)

    def __post_init__(self) -> None:
        for name in self.detectors:
            if name not in DRIFT_DETECTORS:
                known = ", ".join(DRIFT_DETECTORS)
                raise ConfigError(f"drift.detectors must be among {known}, got {name!r}")
        for key in ("point_examples", "live_ms", "max_live", "recover_points"):
            if getattr(self, key) < 1:
                raise ConfigError(f"drift.{key} must be at least 1, got {getattr(self, key)}")
        if self.refractory_ms < 0:
            raise ConfigError(f"drift.refractory_ms must not be negative, got {self.refractory_ms}")


class DriftMonitor:
    """Turns streams of means into drift signals; the same input gives the same signals."""

    def __init__(
        self,
        streams: Sequence[WatchedStream],
        config: DriftMonitorConfig,
        metrics: Metrics,
        sinks: Sequence[DriftSink] = (),
        explain: Explain = lambda _: (),
    ) -> None:
        self._config = config
        self._explain = explain
        self._streams = {
            stream.name: _Watch(
                [StreamDetector(name, stream, config.sensitivity) for name in config.detectors],
                config.recover_points,
            )
            for stream in streams
        }
        for stream in streams:
            for name in config.detectors:
                metrics.monitoring.drift_signals.labels(detector=name, stream=stream.name)
        self._value = metrics.monitoring.drift_stream_value
        rules = BookRules(
            refractory_ms=config.refractory_ms, live_ms=config.live_ms, max_live=config.max_live
        )
        self.book = SignalBook(rules, metrics, sinks)

    def observe(
        self, stream: str, mean: float, examples: int, event_time_ms: int
    ) -> list[DriftSignal]:
        """Take the mean of some examples of a stream; return the new signal, if there is one.

        A mean that is not finite, or of no examples, says nothing and is passed over. A stream
        that is not watched is a mistake of the caller (KeyError). `event_time_ms` must be a time
        that can be believed: signals that have been live for long end by it.
        """
        watch = self._streams[stream]
        self.book.advance(event_time_ms)
        if examples < 1 or not math.isfinite(mean):
            return []
        watch.total += mean * examples
        watch.examples += examples
        if watch.examples < self._config.point_examples:
            return []
        point = watch.total / watch.examples
        watch.total, watch.examples = 0.0, 0
        watch.add_to_tail(point)
        if watch.shown is None:  # on the metrics page from its first point on, not before
            watch.shown = self._value.labels(stream=stream)
        watch.shown.set(point)
        # Every detector must see every point, also when the first of them has raised an alarm.
        found = [detector.update(point, event_time_ms) for detector in watch.detectors]
        live = self.book.live_of(stream)
        if live is not None and watch.has_recovered(live):
            self.book.end(stream, event_time_ms)
        signal = next((signal for signal in found if signal is not None), None)
        if signal is None:
            return []
        if self.book.live_of(stream) is None:
            signal = replace(signal, contributors=self._explain(signal))
        if not self.book.give(signal):
            return []
        watch.tail.clear()
        return [signal]

    def observe_point(self, stream: str, value: float, event_time_ms: int) -> list[DriftSignal]:
        """Take a number that is a point already, such as the AUC of a window."""
        return self.observe(stream, value, self._config.point_examples, event_time_ms)

    def live(self) -> list[DriftSignal]:
        """Return the live signals, oldest first."""
        return self.book.live()

    def save(self) -> State:
        """Return detectors, started points and live signals."""
        return {
            "streams": {name: watch.save() for name, watch in self._streams.items()},
            "book": self.book.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described; a stream or detector that is new starts afresh."""
        for name, watch in self._streams.items():
            if name in state["streams"]:
                watch.load(state["streams"][name])
        self.book.load(state["book"])


class _Watch:
    """One stream: its detectors, the point being gathered, and the newest points."""

    def __init__(self, detectors: Sequence[StreamDetector], recover_points: int) -> None:
        self.detectors: Sequence[DriftDetector] = detectors
        self._names = [detector.name for detector in detectors]
        self.total = 0.0
        self.examples = 0
        self.tail: deque[float] = deque(maxlen=recover_points)
        self.shown: Gauge | None = None

    def add_to_tail(self, point: float) -> None:
        self.tail.append(point)

    def has_recovered(self, live: DriftSignal) -> bool:
        """Return whether the newest points are back where the stream was before the change.

        Back is within a quarter of the change, or half a standard deviation: twice the standard
        error of the mean of 20 points.
        """
        if len(self.tail) < (self.tail.maxlen or 0):
            return False
        moved = abs(live.after - live.before)
        deviation = moved / max(abs(live.deviations), _LEAST_DEVIATIONS)
        off = abs(float(np.mean(self.tail)) - live.before)
        return off <= max(_NEARLY_BACK * moved, _HALF * deviation)

    def save(self) -> State:
        states = [detector.save() for detector in self.detectors]
        return {
            "detectors": dict(zip(self._names, states, strict=True)),
            "point": np.array([self.total, float(self.examples)]),
            "tail": np.array(self.tail),
        }

    def load(self, state: State) -> None:
        for name, detector in zip(self._names, self.detectors, strict=True):
            if name in state["detectors"]:
                detector.load(state["detectors"][name])
        self.total, self.examples = float(state["point"][0]), int(state["point"][1])
        self.tail.clear()
        self.tail.extend(state["tail"].tolist())


_NEARLY_BACK = 0.25
_HALF = 0.5
_LEAST_DEVIATIONS = 1e-9
