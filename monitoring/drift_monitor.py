"""Watches named streams for drift and keeps the signals an operator should look at."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from domain.errors import ConfigError
from domain.state import State
from monitoring.drift_detectors import (
    DetectorName,
    DriftDetector,
    DriftDetectorsConfig,
    StreamDetector,
    WatchedStream,
)
from monitoring.drift_signal import DriftSignal, signal_from_plain, signal_to_plain
from monitoring.metrics import DRIFT_DETECTORS, Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftMonitorConfig:
    """How streams are watched.

    Attributes:
        detectors: names of the detectors on every stream. Each finds what another misses: ADWIN
            small lasting shifts, Page-Hinkley large ones at once, KSWIN also changes of shape.
        point_examples: examples averaged into one point; detectors see points. Small micro-batches
            are pooled up to this count, so that points are about equally noisy.
        refractory_ms: event time after a signal in which its stream gives no other.
        live_ms: event time for which a signal stays live.
        max_live: signals kept; the oldest give way.
        sensitivity: settings of the detectors.
    """

    detectors: tuple[DetectorName, ...] = ("adwin", "page_hinkley")
    point_examples: int = 128
    refractory_ms: int = 30 * 60 * 1000
    live_ms: int = 24 * 60 * 60 * 1000
    max_live: int = 100
    sensitivity: DriftDetectorsConfig = field(default_factory=DriftDetectorsConfig)

    def __post_init__(self) -> None:
        for name in self.detectors:
            if name not in DRIFT_DETECTORS:
                known = ", ".join(DRIFT_DETECTORS)
                raise ConfigError(f"drift.detectors must be among {known}, got {name!r}")
        for key in ("point_examples", "live_ms", "max_live"):
            if getattr(self, key) < 1:
                raise ConfigError(f"drift.{key} must be at least 1, got {getattr(self, key)}")
        if self.refractory_ms < 0:
            raise ConfigError(f"drift.refractory_ms must not be negative, got {self.refractory_ms}")


class DriftMonitor:
    """Turns streams of means into drift signals; the same input gives the same signals.

    Each signal is counted in the metrics, logged once and kept while it is live.
    """

    def __init__(
        self, streams: Sequence[WatchedStream], config: DriftMonitorConfig, metrics: Metrics
    ) -> None:
        self._config = config
        self._metrics = metrics.monitoring
        self._streams = {
            stream.name: _Watch(
                [StreamDetector(name, stream, config.sensitivity) for name in config.detectors]
            )
            for stream in streams
        }
        for stream in streams:
            for name in config.detectors:
                self._metrics.drift_signals.labels(detector=name, stream=stream.name)
        self._metrics.drift_live_signals.set(0)
        self._signals: list[DriftSignal] = []
        self._newest_ms = 0

    def observe(
        self, stream: str, mean: float, examples: int, event_time_ms: int
    ) -> list[DriftSignal]:
        """Take the mean of some examples of a stream; return the new signal, if there is one.

        A mean that is not finite, or of no examples, says nothing and is passed over. A stream
        that is not watched is a mistake of the caller (KeyError).
        """
        watch = self._streams[stream]
        self._newest_ms = max(self._newest_ms, event_time_ms)
        self._forget_old_signals()
        if examples < 1 or not math.isfinite(mean):
            return []
        watch.total += mean * examples
        watch.examples += examples
        if watch.examples < self._config.point_examples:
            return []
        point = watch.total / watch.examples
        watch.total, watch.examples = 0.0, 0
        # Every detector must see every point, also when the first of them has raised an alarm.
        found = [detector.update(point, event_time_ms) for detector in watch.detectors]
        signal = next((signal for signal in found if signal is not None), None)
        return [signal] if signal is not None and self._announce(watch, signal) else []

    def live(self) -> list[DriftSignal]:
        """Return the live signals, oldest first."""
        return list(self._signals)

    def save(self) -> State:
        """Return detectors, started points and live signals."""
        return {
            "streams": {name: watch.save() for name, watch in self._streams.items()},
            "signals": [signal_to_plain(signal) for signal in self._signals],
            "newest_ms": self._newest_ms,
        }

    def load(self, state: State) -> None:
        """Become what `save` described; a stream or detector that is new starts afresh."""
        for name, watch in self._streams.items():
            if name in state["streams"]:
                watch.load(state["streams"][name])
        self._signals = [signal_from_plain(plain) for plain in state["signals"]]
        self._newest_ms = state["newest_ms"]
        self._metrics.drift_live_signals.set(len(self._signals))

    def _forget_old_signals(self) -> None:
        oldest_ms = self._newest_ms - self._config.live_ms
        if self._signals and self._signals[0].time_ms < oldest_ms:
            self._signals = [signal for signal in self._signals if signal.time_ms >= oldest_ms]
            self._metrics.drift_live_signals.set(len(self._signals))

    def _announce(self, watch: _Watch, signal: DriftSignal) -> bool:
        """Make a signal known, unless its stream has given one a moment ago; return whether.

        A slower detector may find the same change long after a faster one: what began before the
        last signal is no news either.
        """
        last_ms = watch.last_signal_ms
        if last_ms is not None and (
            signal.time_ms - last_ms < self._config.refractory_ms or signal.since_ms <= last_ms
        ):
            return False
        watch.last_signal_ms = signal.time_ms
        self._signals = [*self._signals, signal][-self._config.max_live :]
        self._metrics.drift_signals.labels(detector=signal.detector, stream=signal.stream).inc()
        self._metrics.drift_live_signals.set(len(self._signals))
        logger.warning("drift signal: %s", signal.describe(), extra=signal_to_plain(signal))
        return True


class _Watch:
    """One stream: its detectors, the point being gathered and when it last gave a signal."""

    def __init__(self, detectors: Sequence[StreamDetector]) -> None:
        self.detectors: Sequence[DriftDetector] = detectors
        self._names = [detector.name for detector in detectors]
        self.total = 0.0
        self.examples = 0
        self.last_signal_ms: int | None = None

    def save(self) -> State:
        states = [detector.save() for detector in self.detectors]
        return {
            "detectors": dict(zip(self._names, states, strict=True)),
            "point": np.array([self.total, float(self.examples)]),
            "last_signal_ms": self.last_signal_ms,
        }

    def load(self, state: State) -> None:
        for name, detector in zip(self._names, self.detectors, strict=True):
            if name in state["detectors"]:
                detector.load(state["detectors"][name])
        self.total, self.examples = float(state["point"][0]), int(state["point"][1])
        self.last_signal_ms = state["last_signal_ms"]
