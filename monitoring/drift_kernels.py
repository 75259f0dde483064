"""Page-Hinkley, compiled, for many streams at once; bit for bit what river computes.

River's detector is the oracle: the same values give the same alarms at the same places, and after
an alarm a stream starts afresh, as river's does. "Continuous inspection schemes" (Page, Biometrika
1954).

Shape legend: S = streams, N = values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from domain.state import State


def compiled(kernel: Callable[..., Any], *, inline: bool = False) -> Any:
    """Compile on first call; keep the result on disk where a cache folder can be written.

    With `inline` it becomes part of each kernel that calls it.

    A division by zero gives infinity or NaN, as in NumPy: looking at every divisor first would keep
    divisions from going side by side.
    """
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "inline": "always" if inline else "never",
    }
    try:
        return numba.njit(kernel, cache=True, **options)
    except RuntimeError:  # "cannot cache function": a read-only installation without a home
        return numba.njit(kernel, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageHinkleyRule:
    """River's parameters of the two-sided Page-Hinkley test, with river's defaults.

    Attributes:
        min_instances: values before an alarm is possible.
        delta: shifts up to about this size are tolerated.
        threshold: summed excess that raises an alarm.
        alpha: weight of the sum so far against a new value.
    """

    min_instances: int = 30
    delta: float = 0.005
    threshold: float = 50.0
    alpha: float = 1.0 - 0.0001


class PageHinkleyBank:
    """The two-sided Page-Hinkley test on S streams.

    >>> bank = PageHinkleyBank(1, PageHinkleyRule(threshold=10.0))
    >>> bank.run(0, np.repeat([0.0, 1.0], 50)).tolist()
    [61]
    """

    def __init__(self, num_streams: int, rule: PageHinkleyRule) -> None:
        self._rule = np.array(
            [rule.min_instances, rule.delta, rule.threshold, rule.alpha], np.float64
        )
        # values, mean, sum up, its least, sum down, its greatest, whether the last was an alarm
        self._sum_S7 = np.zeros((num_streams, 7))
        self._sum_S7[:, 6] = 1.0  # so that the first value starts afresh
        self._one_1, self._alarm_1 = np.zeros(1), np.zeros(1, np.bool_)

    def run(self, stream: int, value_N: NDArray[np.float64]) -> NDArray[np.int64]:
        """Show values to one stream; return the indices that raised an alarm, int64."""
        alarm_N = np.zeros(len(value_N), np.bool_)
        _page_hinkley_one(
            np.ascontiguousarray(value_N, np.float64), self._rule, self._sum_S7[stream], alarm_N
        )
        return np.flatnonzero(alarm_N)

    def show(self, stream: int, value: float) -> bool:
        """Show one value to one stream; return whether it raised an alarm."""
        self._one_1[0] = value
        _page_hinkley_one(self._one_1, self._rule, self._sum_S7[stream], self._alarm_1)
        return bool(self._alarm_1[0])

    def update(self, value_S: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Show one value to every stream, NaN for none; return which raised an alarm, bool (S,)."""
        alarm_S = np.zeros(len(value_S), np.bool_)
        value_S = np.ascontiguousarray(value_S, np.float64)
        _page_hinkley_each(value_S, self._rule, self._sum_S7, alarm_S)
        return alarm_S

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {"sums": self._sum_S7.copy()}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._sum_S7 = state["sums"].copy()


def _show_all(value_N, rule, sum_7, alarm_N):  # type: ignore[no-untyped-def]
    """Show values; say which raised an alarm. All that changes is in names, not in an array."""
    least, slack, threshold, alpha = rule[0], rule[1], rule[2], rule[3]
    seen, mean, up, lowest = sum_7[0], sum_7[1], sum_7[2], sum_7[3]
    down, highest, afresh = sum_7[4], sum_7[5], sum_7[6] != 0.0
    for n in range(len(value_N)):
        if afresh:
            seen = mean = up = down = 0.0
            lowest, highest = math.inf, -1.0  # river's start of the greatest sum down
        seen += 1.0
        mean += (1.0 / seen) * (value_N[n] - mean)
        off = value_N[n] - mean
        up = alpha * up + off - slack
        down = alpha * down + off + slack
        lowest = min(lowest, up)
        highest = max(highest, down)
        afresh = seen >= least and (up - lowest > threshold or highest - down > threshold)
        alarm_N[n] = afresh
    sum_7[0], sum_7[1], sum_7[2], sum_7[3] = seen, mean, up, lowest
    sum_7[4], sum_7[5], sum_7[6] = down, highest, 1.0 if afresh else 0.0


def _show_each(value_S, rule, sum_S7, alarm_S):  # type: ignore[no-untyped-def]
    for s in range(len(value_S)):
        if not math.isnan(value_S[s]):
            _page_hinkley_one(value_S[s : s + 1], rule, sum_S7[s], alarm_S[s : s + 1])


_page_hinkley_one = compiled(_show_all)
_page_hinkley_each = compiled(_show_each)
