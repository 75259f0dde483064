"""Which drift signals are live: one per stream, from the moment it is given until it ends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from domain.state import State
from monitoring.drift_signal import (
    SEVERITIES,
    DriftSignal,
    signal_from_plain,
    signal_to_plain,
)
from monitoring.drift_sinks import DriftSink
from monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

_HALF_WAY_BACK = 0.5
_STILL_THERE = 0.75
"""A stream that has lost a quarter of its change and changes again has begun something new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BookRules:
    """When a signal is news, and for how long it is live; see `DriftMonitorConfig`."""

    refractory_ms: int
    live_ms: int
    max_live: int


class SignalBook:
    """Gives signals, lets them grow, and ends them; each step is counted, logged and passed on.

    A stream has at most one live signal. What a detector says of it meanwhile makes the signal
    grow, ends it when it leads back to where the stream came from, or gives way to a new one when
    the stream had come back part of the way.
    """

    def __init__(self, rules: BookRules, metrics: Metrics, sinks: Sequence[DriftSink] = ()) -> None:
        self._rules = rules
        self._metrics = metrics.monitoring
        self._sinks = tuple(sinks)
        self._live: dict[str, DriftSignal] = {}
        self._last_ms: dict[str, tuple[int, int]] = {}  # by stream: last given or grown, last ended
        self._metrics.drift_live_signals.set(0)

    def live(self) -> list[DriftSignal]:
        """Return the live signals, oldest first."""
        return sorted(self._live.values(), key=lambda signal: (signal.time_ms, signal.stream))

    def live_of(self, stream: str) -> DriftSignal | None:
        """Return a stream's live signal, None when there is none."""
        return self._live.get(stream)

    def give(self, signal: DriftSignal) -> bool:
        """Take what a detector says; return whether it became a new signal.

        It is no news within the refractory time of the stream's last signal, nor when it began
        before that one was given or ended: a slower detector may find the same change long after a
        faster one.
        """
        live = self._live.get(signal.stream)
        if live is not None and not self._is_over(live, signal):
            self._grow(live, signal)
            return False
        given_ms, ended_ms = self._last_ms.get(signal.stream, (None, 0))
        if given_ms is not None and (
            signal.time_ms - given_ms < self._rules.refractory_ms
            or signal.since_ms <= given_ms
            or signal.since_ms < ended_ms
        ):
            return False
        self._last_ms[signal.stream] = (signal.time_ms, 0)
        self._live[signal.stream] = signal
        self._metrics.drift_signals.labels(detector=signal.detector, stream=signal.stream).inc()
        logger.warning("drift signal: %s", signal.describe(), extra=signal_to_plain(signal))
        self._show(signal.stream)
        self._tell(signal)
        while len(self._live) > self._rules.max_live:
            self.end(self.live()[0].stream, signal.time_ms)
        return True

    def end(self, stream: str, time_ms: int) -> None:
        """Say that a stream has recovered, or that its new level is normal by now."""
        signal = replace(self._live.pop(stream), ended_ms=time_ms)
        self._last_ms[stream] = (self._last_ms[stream][0], time_ms)
        self._metrics.drift_ended.labels(stream=stream).inc()
        logger.info("drift signal ended: %s", signal.describe(), extra=signal_to_plain(signal))
        self._show(stream)
        self._tell(signal)

    def advance(self, time_ms: int) -> None:
        """End what has been live for so long that it counts as normal."""
        if not self._live:  # asked at every point of every stream
            return
        oldest_ms = time_ms - self._rules.live_ms
        for signal in [one for one in self._live.values() if one.time_ms < oldest_ms]:
            self.end(signal.stream, time_ms)

    def save(self) -> State:
        """Return live signals, and when streams gave and ended their last ones."""
        return {
            "live": [signal_to_plain(signal) for signal in self._live.values()],
            "last_ms": {stream: list(last) for stream, last in self._last_ms.items()},
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        shown = set(self._live)
        self._live = {one["stream"]: signal_from_plain(one) for one in state["live"]}
        self._last_ms = {name: (int(a), int(b)) for name, (a, b) in state["last_ms"].items()}
        for stream in shown | set(self._live):
            self._show(stream)

    def _is_over(self, live: DriftSignal, said: DriftSignal) -> bool:
        """End a live signal when its stream leads back, or came back a good part and moves anew.

        Returns:
            Whether what is said now is a change of its own.
        """
        moved = live.after - live.before
        if (said.after - live.before) * moved < _HALF_WAY_BACK * moved * moved:
            self.end(live.stream, said.time_ms)
            return False
        came_back = (said.before - live.before) * moved < _STILL_THERE * moved * moved
        began_later = said.since_ms > self._last_ms[live.stream][0]
        if began_later and came_back and (said.after - said.before) * moved > 0.0:
            self.end(live.stream, said.since_ms)
            return True
        return False

    def _grow(self, live: DriftSignal, said: DriftSignal) -> None:
        moved = live.after - live.before
        now = said.after - live.before
        if live.stream in self._live and abs(now) > abs(moved):
            grown = replace(live, after=said.after, deviations=live.deviations * now / moved)
            self._live[live.stream] = grown
            self._last_ms[live.stream] = (said.time_ms, 0)
            self._show(live.stream)
            self._tell(grown)

    def _show(self, stream: str) -> None:
        live = self._live.get(stream)
        severity = 0 if live is None else 1 + SEVERITIES.index(live.severity)
        self._metrics.drift_live_severity.labels(stream=stream).set(severity)
        self._metrics.drift_live_signals.set(len(self._live))

    def _tell(self, signal: DriftSignal) -> None:
        for sink in self._sinks:
            sink.write_signals([signal])
