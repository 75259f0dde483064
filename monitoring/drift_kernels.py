"""ADWIN and Page-Hinkley, compiled, for many streams at once; bit for bit what river computes.

River's detectors are the oracle: the same values give the same alarms at the same places, and after
an alarm a stream starts afresh, as river's do. "Learning from time-changing data with adaptive
windowing" (Bifet and Gavalda, SDM 2007); "Continuous inspection schemes" (Page, Biometrika 1954).

Shape legend: S = streams, N = values, R = rows of buckets (row r holds buckets of 2**r values),
M = places in a row.
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

_ROWS = 48
"""Rows of buckets: enough for 2**48 values without a change."""


def _compiled(kernel: Callable[..., Any]) -> Any:
    """Compile on first call; keep the result on disk where a cache folder can be written."""
    try:
        return numba.njit(kernel, nogil=True, cache=True)
    except RuntimeError:  # "cannot cache function": a read-only installation without a home
        return numba.njit(kernel, nogil=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdwinRule:
    """River's parameters of ADWIN, with river's defaults.

    Attributes:
        delta: bound on the chance of a false alarm.
        clock: a change is looked for at every so many values.
        max_buckets: buckets of one size before two of them are merged.
        min_window_length: shortest part of the window that is compared.
        grace_period: values before a change is looked for at all.
    """

    delta: float = 0.002
    clock: int = 32
    max_buckets: int = 5
    min_window_length: int = 5
    grace_period: int = 10


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


class AdwinBank:
    """ADWIN on S streams.

    >>> bank = AdwinBank(1, AdwinRule())
    >>> bank.run(0, np.repeat([0.0, 1.0], 500)).tolist()
    [511]
    """

    def __init__(self, num_streams: int, rule: AdwinRule) -> None:
        places = rule.max_buckets + 1
        self._rule = np.array(
            [rule.delta, rule.clock, rule.min_window_length, rule.grace_period], np.float64
        )
        self._bucket_SRM2 = np.zeros((num_streams, _ROWS, places, 2))
        self._filled_SR = np.zeros((num_streams, _ROWS), np.int64)
        # total, variance times width, width
        self._sum_S3 = np.zeros((num_streams, 3))
        # values until a change is looked for again, rows in use, whether the last was an alarm
        self._count_S3 = np.zeros((num_streams, 3), np.int64)
        self._count_S3[:, 2] = 1  # so that the first value starts afresh

    @property
    def widths(self) -> NDArray[np.int64]:
        """Return how many values each stream's window holds, int64 (S,)."""
        return self._sum_S3[:, 2].astype(np.int64)

    @property
    def totals(self) -> NDArray[np.float64]:
        """Return the sum of each stream's window, float64 (S,)."""
        return self._sum_S3[:, 0].copy()

    def run(self, stream: int, value_N: NDArray[np.float64]) -> NDArray[np.int64]:
        """Show values to one stream; return the indices that raised an alarm, int64."""
        alarm_N = np.zeros(len(value_N), np.bool_)
        _adwin_one(
            np.ascontiguousarray(value_N, np.float64),
            self._rule,
            self._bucket_SRM2[stream],
            self._filled_SR[stream],
            self._sum_S3[stream],
            self._count_S3[stream],
            alarm_N,
        )
        return np.flatnonzero(alarm_N)

    def show(self, stream: int, value: float) -> bool:
        """Show one value to one stream; return whether it raised an alarm."""
        return bool(
            _show_adwin(
                value,
                self._rule,
                self._bucket_SRM2[stream],
                self._filled_SR[stream],
                self._sum_S3[stream],
                self._count_S3[stream],
            )
        )

    def update(self, value_S: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Show one value to every stream, NaN for none; return which raised an alarm, bool (S,)."""
        alarm_S = np.zeros(len(value_S), np.bool_)
        _adwin_each(
            value_S,
            self._rule,
            self._bucket_SRM2,
            self._filled_SR,
            self._sum_S3,
            self._count_S3,
            alarm_S,
        )
        return alarm_S

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            "buckets": self._bucket_SRM2.copy(),
            "filled": self._filled_SR.copy(),
            "sums": self._sum_S3.copy(),
            "counts": self._count_S3.copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._bucket_SRM2 = state["buckets"].copy()
        self._filled_SR = state["filled"].copy()
        self._sum_S3 = state["sums"].copy()
        self._count_S3 = state["counts"].copy()


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

    def run(self, stream: int, value_N: NDArray[np.float64]) -> NDArray[np.int64]:
        """Show values to one stream; return the indices that raised an alarm, int64."""
        alarm_N = np.zeros(len(value_N), np.bool_)
        _page_hinkley_one(
            np.ascontiguousarray(value_N, np.float64), self._rule, self._sum_S7[stream], alarm_N
        )
        return np.flatnonzero(alarm_N)

    def show(self, stream: int, value: float) -> bool:
        """Show one value to one stream; return whether it raised an alarm."""
        return bool(_show_page_hinkley(value, self._rule, self._sum_S7[stream]))

    def update(self, value_S: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Show one value to every stream, NaN for none; return which raised an alarm, bool (S,)."""
        alarm_S = np.zeros(len(value_S), np.bool_)
        _page_hinkley_each(value_S, self._rule, self._sum_S7, alarm_S)
        return alarm_S

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {"sums": self._sum_S7.copy()}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._sum_S7 = state["sums"].copy()


def _adwin_insert(value, bucket_RM2, filled_R, sum_3, count_3):  # type: ignore[no-untyped-def]
    """Add a value to the window and merge buckets where a row has one too many."""
    place = filled_R[0]
    bucket_RM2[0, place, 0] = value
    bucket_RM2[0, place, 1] = 0.0
    filled_R[0] = place + 1
    before = sum_3[2]
    sum_3[2] = before + 1.0
    if before > 0.0:
        off = value - sum_3[0] / before
        sum_3[1] += before * off * off / (before + 1.0)
    sum_3[0] += value
    places = bucket_RM2.shape[1]
    row, size = 0, 1.0
    while filled_R[row] == places:
        first, second = bucket_RM2[row, 0, 0], bucket_RM2[row, 1, 0]
        apart = first / size - second / size
        between = size * size * apart * apart / (size + size)
        place = filled_R[row + 1]
        bucket_RM2[row + 1, place, 0] = first + second
        bucket_RM2[row + 1, place, 1] = bucket_RM2[row, 0, 1] + bucket_RM2[row, 1, 1] + between
        filled_R[row + 1] = place + 1
        for m in range(places - 2):
            bucket_RM2[row, m, 0] = bucket_RM2[row, m + 2, 0]
            bucket_RM2[row, m, 1] = bucket_RM2[row, m + 2, 1]
        filled_R[row] = places - 2
        row += 1
        size += size
    count_3[1] = max(count_3[1], row + 1)


def _adwin_drop_oldest(top, bucket_RM2, filled_R, sum_3):  # type: ignore[no-untyped-def]
    """Take the oldest bucket out of the window."""
    size = 2.0**top
    total = bucket_RM2[top, 0, 0]
    sum_3[2] -= size
    sum_3[0] -= total
    width = sum_3[2]
    apart = total / size - sum_3[0] / width
    sum_3[1] -= bucket_RM2[top, 0, 1] + size * width * apart * apart / (size + width)
    filled_R[top] -= 1
    for m in range(filled_R[top]):
        bucket_RM2[top, m, 0] = bucket_RM2[top, m + 1, 0]
        bucket_RM2[top, m, 1] = bucket_RM2[top, m + 1, 1]


def _adwin_differs(rule, top, bucket_RM2, filled_R, sum_3):  # type: ignore[no-untyped-def]
    """Return whether some split of the window has two means that differ too much."""
    delta, shortest = rule[0], rule[2]
    width = sum_3[2]
    # The same for every split; river computes it at each.
    strict = math.log(2.0 * math.log(width) / delta)
    variance = sum_3[1] / width
    n0, n1 = 0.0, width
    u0, u1 = 0.0, sum_3[0]
    size = 2.0 ** (top + 1)
    for row in range(top, -1, -1):
        size *= 0.5
        for m in range(filled_R[row]):
            n0 += size
            n1 -= size
            u0 += bucket_RM2[row, m, 0]
            u1 -= bucket_RM2[row, m, 0]
            if row == 0 and m == filled_R[0] - 1:
                return False
            if n1 >= shortest and n0 >= shortest:
                m_recip = 1.0 / (n0 - shortest + 1.0) + 1.0 / (n1 - shortest + 1.0)
                cut = math.sqrt(2.0 * m_recip * variance * strict) + 2.0 / 3.0 * strict * m_recip
                if abs(u0 / n0 - u1 / n1) > cut:
                    return True
    return False


def _adwin_show(value, rule, bucket_RM2, filled_R, sum_3, count_3):  # type: ignore[no-untyped-def]
    """Show one value; return whether it raises an alarm."""
    if count_3[2] != 0:
        filled_R[:] = 0
        sum_3[:] = 0.0
        count_3[0], count_3[1], count_3[2] = int(rule[1]), 1, 0
    _insert(value, bucket_RM2, filled_R, sum_3, count_3)
    count_3[0] -= 1
    if count_3[0] > 0:
        return False
    count_3[0] = int(rule[1])
    if sum_3[2] <= rule[3]:
        return False
    while _differs(rule, count_3[1] - 1, bucket_RM2, filled_R, sum_3):
        count_3[2] = 1
        _drop_oldest(count_3[1] - 1, bucket_RM2, filled_R, sum_3)
        while count_3[1] > 1 and filled_R[count_3[1] - 1] == 0:
            count_3[1] -= 1
    return count_3[2] != 0


def _adwin_show_all(value_N, rule, bucket_RM2, filled_R, sum_3, count_3, alarm_N):  # type: ignore[no-untyped-def]
    for n in range(len(value_N)):
        alarm_N[n] = _show_adwin(value_N[n], rule, bucket_RM2, filled_R, sum_3, count_3)


def _adwin_show_each(value_S, rule, bucket_SRM2, filled_SR, sum_S3, count_S3, alarm_S):  # type: ignore[no-untyped-def]
    for s in range(len(value_S)):
        if not math.isnan(value_S[s]):
            alarm_S[s] = _show_adwin(
                value_S[s], rule, bucket_SRM2[s], filled_SR[s], sum_S3[s], count_S3[s]
            )


def _page_hinkley_show(value, rule, sum_7):  # type: ignore[no-untyped-def]
    """Show one value; return whether it raises an alarm."""
    if sum_7[6] != 0.0:
        sum_7[:] = 0.0
        sum_7[3] = math.inf
        sum_7[5] = -1.0  # river's start of the greatest sum down
    sum_7[0] += 1.0
    sum_7[1] += (1.0 / sum_7[0]) * (value - sum_7[1])
    off = value - sum_7[1]
    sum_7[2] = rule[3] * sum_7[2] + off - rule[1]
    sum_7[4] = rule[3] * sum_7[4] + off + rule[1]
    sum_7[3] = min(sum_7[3], sum_7[2])
    sum_7[5] = max(sum_7[5], sum_7[4])
    if sum_7[0] < rule[0]:
        return False
    changed = sum_7[2] - sum_7[3] > rule[2] or sum_7[5] - sum_7[4] > rule[2]
    sum_7[6] = 1.0 if changed else 0.0
    return changed


def _page_hinkley_show_all(value_N, rule, sum_7, alarm_N):  # type: ignore[no-untyped-def]
    for n in range(len(value_N)):
        alarm_N[n] = _show_page_hinkley(value_N[n], rule, sum_7)


def _page_hinkley_show_each(value_S, rule, sum_S7, alarm_S):  # type: ignore[no-untyped-def]
    for s in range(len(value_S)):
        if not math.isnan(value_S[s]):
            alarm_S[s] = _show_page_hinkley(value_S[s], rule, sum_S7[s])


_insert = _compiled(_adwin_insert)
_drop_oldest = _compiled(_adwin_drop_oldest)
_differs = _compiled(_adwin_differs)
_show_adwin = _compiled(_adwin_show)
_adwin_one = _compiled(_adwin_show_all)
_adwin_each = _compiled(_adwin_show_each)
_show_page_hinkley = _compiled(_page_hinkley_show)
_page_hinkley_one = _compiled(_page_hinkley_show_all)
_page_hinkley_each = _compiled(_page_hinkley_show_each)
