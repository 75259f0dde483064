"""Drift detectors behind one small protocol: a value comes in, a drift signal may come out.

ADWIN and Page-Hinkley (compiled, with river's results) and river's KSWIN decide *whether* a stream
changed. What is added here: values are put on one scale first, so that one setting suits a loss
near 0.6 and a like rate near 0.02; the moment of change is estimated; and the state is plain data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import State
from monitoring.adwin_bank import AdwinBank, AdwinRule
from monitoring.drift_kernels import PageHinkleyBank, PageHinkleyRule
from monitoring.drift_signal import DriftKind, DriftSignal

DetectorName = Literal["adwin", "page_hinkley", "kswin"]

_CLIP = 10.0
"""Standardised values are cut here; one wild point must not decide alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedStream:
    """A named sequence of values.

    Attributes:
        alarm_on: "rise" for streams whose fall is good news, such as a loss.
        least_change: share of the level before by which it must move to be worth a signal.
        least_move: the same in the stream's own unit, for streams whose level may be 0.
        least_deviation: smallest standard deviation believed in, in the stream's own unit: where
            nothing ever happened, the first little thing is not infinitely far from it.
        settle: first points passed over, in place of the configured number; for streams whose
            points are made of more examples, or of none.
    """

    name: str
    kind: DriftKind
    alarm_on: Literal["both", "rise", "fall"] = "both"
    least_change: float = 0.0
    least_move: float = 0.0
    least_deviation: float = 0.0
    settle: int | None = None

    def alarms(self, before: float, after: float) -> bool:
        """Return whether a change from `before` to `after` is worth a signal."""
        if abs(after - before) < max(self.least_change * abs(before), self.least_move):
            return False
        return self.alarm_on == "both" or (after > before) == (self.alarm_on == "rise")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftDetectorsConfig:
    """How sensitive detectors are; all distances are in standard deviations of the reference.

    Attributes:
        settle: first values of all, which are not looked at: a model that begins learns so fast
            that its past is no reference.
        warm_up: next values, which give mean and standard deviation of the reference.
        max_values: values kept per detector; when they are full the older half is forgotten.
        adwin_delta: ADWIN's bound on the chance of a false alarm.
        page_hinkley_slack: shifts up to about this size are tolerated for ever.
        page_hinkley_threshold: summed excess over the slack that raises an alarm.
        kswin_alpha: p-value of the Kolmogorov-Smirnov test that raises an alarm; it is tested at
            every value, so 0.001 already means a false alarm in 1,000 values.
        kswin_window: values compared by KSWIN, the last 3/10 of them with as many earlier ones.
    """

    settle: int = 100
    warm_up: int = 50
    max_values: int = 4_096
    adwin_delta: float = 0.002
    page_hinkley_slack: float = 0.5
    page_hinkley_threshold: float = 25.0
    kswin_alpha: float = 1e-5
    kswin_window: int = 100

    def __post_init__(self) -> None:
        for key in ("adwin_delta", "kswin_alpha"):
            if not 0.0 < getattr(self, key) < 1.0:
                raise ConfigError(f"drift.{key} must lie in (0, 1), got {getattr(self, key)}")
        for key in ("page_hinkley_slack", "page_hinkley_threshold"):
            if not getattr(self, key) > 0.0:
                raise ConfigError(f"drift.{key} must be positive, got {getattr(self, key)}")
        if self.settle < 0:
            raise ConfigError(f"drift.settle must not be negative, got {self.settle}")
        if self.warm_up < 2:
            raise ConfigError(f"drift.warm_up must be at least 2, got {self.warm_up}")
        if self.kswin_window < 20:
            raise ConfigError(f"drift.kswin_window must be at least 20, got {self.kswin_window}")
        if self.max_values < 4 * self.warm_up:
            raise ConfigError(
                f"drift.max_values must be at least 4 x warm_up, got {self.max_values}"
            )


class DriftDetector(Protocol):
    """Watches one stream."""

    def update(self, value: float, event_time_ms: int) -> DriftSignal | None:
        """Take the next value; return a signal when the stream is found to have changed."""

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""

    def load(self, state: State) -> None:
        """Become what `save` described; what was here before is gone."""


class StreamDetector:
    """One of the detectors on one stream.

    What the test itself remembers is never stored. A detector is what it becomes by seeing the kept
    values from a fresh start, so kept values are its state: they are bounded (`max_values`), they
    say when the change began, and `load` shows them to a fresh detector.
    """

    def __init__(
        self, name: DetectorName, stream: WatchedStream, config: DriftDetectorsConfig
    ) -> None:
        self._name = name
        self._stream = stream
        self._warm_up = config.warm_up
        # Never more than configured: who sets 0 wants to see everything.
        self._to_settle = min(
            config.settle, config.settle if stream.settle is None else stream.settle
        )
        self._make, self._max_values = _recipe(name, config)
        self._value_M = np.zeros(self._max_values)
        self._time_M = np.zeros(self._max_values, np.int64)
        self._restart(np.zeros(0), np.zeros(0, np.int64))

    @property
    def name(self) -> DetectorName:
        """Return which detector this is."""
        return self._name

    def update(self, value: float, event_time_ms: int) -> DriftSignal | None:
        """Take the next value; return a signal when the stream is found to have changed."""
        assert math.isfinite(value), f"{self._stream.name}: expected a finite value, got {value}"
        if self._to_settle:
            self._to_settle -= 1
            return None
        self._value_M[self._num_kept] = value
        self._time_M[self._num_kept] = event_time_ms
        self._num_kept += 1
        if self._show(self._num_kept - 1, value):
            return self._signal(event_time_ms)
        if self._num_kept == self._max_values:
            self._forget_before(self._max_values // 2)
        return None

    def save(self) -> State:
        """Return the kept values and their times, and how many are still to be passed over."""
        return {
            "values": self._value_M[: self._num_kept].copy(),
            "times_ms": self._time_M[: self._num_kept].copy(),
            "to_settle": self._to_settle,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._to_settle = state["to_settle"]
        self._restart(state["values"], state["times_ms"])

    def _signal(self, time_ms: int) -> DriftSignal | None:
        """Say what changed, and go on with the values after the change as the new reference."""
        value_M = self._value_M[: self._num_kept]
        change = change_point(value_M)
        before_M, after_M = value_M[:change], value_M[change:]
        before, after = float(before_M.mean()), float(after_M.mean())
        signal = DriftSignal(
            stream=self._stream.name,
            kind=self._stream.kind,
            detector=self._name,
            time_ms=time_ms,
            since_ms=int(self._time_M[change]),
            before=before,
            after=after,
            deviations=(after - before) / max(float(before_M.std()), self._floor(before)),
            points_before=len(before_M),
            points_after=len(after_M),
        )
        self._forget_before(change)
        return signal if self._stream.alarms(before, after) else None

    def _forget_before(self, index: int) -> None:
        kept = slice(index, self._num_kept)
        self._restart(self._value_M[kept].copy(), self._time_M[kept].copy())

    def _restart(self, value_M: NDArray[np.float64], time_M: NDArray[np.int64]) -> None:
        """Start afresh with these values; alarms they may raise now were dealt with before."""
        self._test = self._make()
        self._num_kept = len(value_M)
        self._value_M[: self._num_kept] = value_M
        self._time_M[: self._num_kept] = time_M
        self._centre, self._scale = 0.0, 1.0
        if self._num_kept >= self._warm_up:
            self._take_reference()
            self._test.show_all(self._standardised(self._value_M[: self._num_kept]))

    def _show(self, index: int, value: float) -> bool:
        """Show a value, which is kept at `index`, to the test; return whether it raises an alarm.

        The test sees nothing until the warm-up is complete, then all of it at once.
        """
        if index + 1 < self._warm_up:
            return False
        if index + 1 == self._warm_up:
            self._take_reference()
            self._test.show_all(self._standardised(self._value_M[:index]))
        off = (value - self._centre) / self._scale
        return self._test.show(min(max(off, -_CLIP), _CLIP))

    def _take_reference(self) -> None:
        reference_M = self._value_M[: self._warm_up]
        self._centre = float(reference_M.mean())
        self._scale = max(float(reference_M.std()), self._floor(self._centre))

    def _floor(self, mean: float) -> float:
        """Return the smallest standard deviation we believe in: a constant stream has none."""
        return max(1e-6 * max(1.0, abs(mean)), self._stream.least_deviation)

    def _standardised(self, value_M: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip((value_M - self._centre) / self._scale, -_CLIP, _CLIP)


def change_point(value_M: NDArray[np.float64]) -> int:
    """Return the index at which a second mean fits best: least squares over all splits.

    Both sides have at least one value. This is the maximum of the CUSUM statistic
    |S_k - k/M S_M| / sqrt(k (M - k) / M).

    >>> change_point(np.array([0.1, 0.0, 0.1, 0.9, 1.0]))
    3
    """
    M = len(value_M)
    assert M >= 2, "a change needs a before and an after"
    k = np.arange(1, M)
    excess = np.cumsum(value_M - value_M.mean())[:-1]
    return int(np.argmax(np.abs(excess) / np.sqrt(k * (M - k)))) + 1


class _Test(Protocol):
    def show(self, value: float) -> bool:
        """Take a standardised value; return whether it raises an alarm."""

    def show_all(self, value_M: NDArray[np.float64]) -> None:
        """Take values whose alarms nobody wants to know of."""


def _recipe(name: DetectorName, config: DriftDetectorsConfig) -> tuple[Callable[[], _Test], int]:
    """Return how to make a fresh test, and how many values it should be kept for."""
    match name:
        case "adwin":
            return (lambda: _Adwin(config.adwin_delta)), config.max_values
        case "page_hinkley":
            rule = PageHinkleyRule(
                min_instances=config.warm_up,
                delta=config.page_hinkley_slack,
                threshold=config.page_hinkley_threshold,
            )
            return (lambda: _PageHinkley(rule)), config.max_values
        case "kswin":
            # Its memory is its window: keeping more would only make a restart slow, and it is slow
            # (0.3 ms per value).
            window = config.kswin_window
            return (lambda: _Kswin(config)), max(5 * window, 4 * config.warm_up)
    raise ConfigError(f"drift.detectors: no such detector: {name!r}")


class _Adwin:
    """ADWIN on values cut at three standard deviations and moved into [0, 1].

    Its bound is derived for that range. With a wider cut ordinary values fill little of the range
    and the bound is never reached: a shift of one standard deviation is found after 100 values
    with this cut, not within 300 with a cut at ten.

    It looks for a change at each value rather than at every 32nd, which was made for streams of
    single examples: ours are means of many, few enough.
    """

    _CUT = 3.0

    def __init__(self, delta: float) -> None:
        self._bank = AdwinBank(1, AdwinRule(delta=delta, clock=1))

    def show(self, value: float) -> bool:
        cut = min(max(value, -self._CUT), self._CUT)
        return self._bank.show(0, (cut + self._CUT) / (2.0 * self._CUT))

    def show_all(self, value_M: NDArray[np.float64]) -> None:
        cut = self._CUT
        self._bank.run(0, (np.clip(value_M, -cut, cut) + cut) / (2.0 * cut))


class _PageHinkley:
    """Two-sided Page-Hinkley."""

    def __init__(self, rule: PageHinkleyRule) -> None:
        self._bank = PageHinkleyBank(1, rule)

    def show(self, value: float) -> bool:
        return self._bank.show(0, value)

    def show_all(self, value_M: NDArray[np.float64]) -> None:
        self._bank.run(0, value_M)


class _Kswin:
    """River's KSWIN; its seed is fixed, so that a restart sees the same draws."""

    def __init__(self, config: DriftDetectorsConfig) -> None:
        # Here, because river brings scikit-learn and SciPy with it: seconds of start-up that only
        # those who ask for this detector should pay.
        from river import drift

        window = config.kswin_window
        self._river: Any = drift.KSWIN(  # not annotated by river
            alpha=config.kswin_alpha, window_size=window, stat_size=3 * window // 10, seed=1
        )

    def show(self, value: float) -> bool:
        self._river.update(value)
        return bool(self._river.drift_detected)

    def show_all(self, value_M: NDArray[np.float64]) -> None:
        for value in value_M.tolist():
            self._river.update(value)
