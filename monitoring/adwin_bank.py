"""ADWIN, compiled, for many streams at once; bit for bit what river computes.

River's detector is the oracle: the same values give the same alarms at the same places, and after
an alarm a stream starts afresh, as river's does. "Learning from time-changing data with adaptive
windowing" (Bifet and Gavalda, SDM 2007).

The window is a row of buckets of one value, a row of buckets of two, of four, and so on; where a
row has one bucket too many, its two oldest become one of the next row. Three things make it fast:

- Until its first alarm a window only grows, and what an alarm leaves of it is thrown away. So the
  number of values alone says which buckets there are: nothing is kept to be looked up, and the
  values between two looks for a change are taken in together.
- A bucket is kept at its own number in its row, modulo `_RING`: nothing is ever moved.
- A look for a change compares squares first, without division or root. Only where that leaves a
  doubt is every split compared as river does.

Shape legend: S = streams, N = values, R = rows of buckets (row r holds buckets of 2**r values),
K = splits of a window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.state import State
from monitoring.drift_kernels import compiled

_ROWS = 48
"""Rows of buckets: enough for 2**48 values without a change."""
_RING = 64
"""Places of a row: those that are still needed while a block of values is taken in."""
_LAST = _RING - 1
_BLOCK = 32
"""Values taken in together, at most."""
_MAX_BUCKETS = _RING - _BLOCK - 2


@dataclass(frozen=True, slots=True, kw_only=True)
class AdwinRule:
    """River's parameters of ADWIN, with river's defaults.

    Attributes:
        delta: bound on the chance of a false alarm.
        clock: a change is looked for at every so many values.
        max_buckets: buckets of one size before two of them are merged; 2 to 30.
        min_window_length: shortest part of the window that is compared.
        grace_period: values before a change is looked for at all.
    """

    delta: float = 0.002
    clock: int = 32
    max_buckets: int = 5
    min_window_length: int = 5
    grace_period: int = 10

    def __post_init__(self) -> None:
        assert 2 <= self.max_buckets <= _MAX_BUCKETS, f"max_buckets: {self.max_buckets}"


class AdwinBank:
    """ADWIN on S streams.

    >>> bank = AdwinBank(1, AdwinRule())
    >>> bank.run(0, np.repeat([0.0, 1.0], 500)).tolist()
    [511]
    """

    def __init__(self, num_streams: int, rule: AdwinRule) -> None:
        places = rule.max_buckets + 1
        self._rule = np.array(
            [rule.delta, rule.clock, rule.min_window_length, rule.grace_period, places], np.float64
        )
        # total of a bucket, and its variance times its width
        self._bucket_S2RM = np.zeros((num_streams, 2, _ROWS, _RING))
        # total, variance times width, width
        self._sum_S3 = np.zeros((num_streams, 3))
        # values until a change is looked for again, values in the window, whether the last was an
        # alarm
        self._count_S3 = np.zeros((num_streams, 3), np.int64)
        self._count_S3[:, 2] = 1  # so that the first value starts afresh
        # Room to work in: oldest bucket and number of buckets of each row, and two numbers by split
        self._shape_2R = np.zeros((2, _ROWS), np.int64)
        self._room_2K = np.zeros((2, max(_ROWS * places, _BLOCK)))
        self._one_1, self._alarm_1 = np.zeros(1), np.zeros(1, np.bool_)
        self._take_views()

    def _take_views(self) -> None:
        """Keep what the kernel is given of each stream: to make it costs as much as one value."""
        self._views = [
            (self._bucket_S2RM[s], self._sum_S3[s], self._count_S3[s])
            for s in range(len(self._sum_S3))
        ]

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
        self._run(stream, np.ascontiguousarray(value_N, np.float64), alarm_N)
        return np.flatnonzero(alarm_N)

    def show(self, stream: int, value: float) -> bool:
        """Show one value to one stream; return whether it raised an alarm."""
        self._one_1[0] = value
        self._run(stream, self._one_1, self._alarm_1)
        return bool(self._alarm_1[0])

    def _run(self, stream: int, value_N: NDArray[np.float64], alarm_N: NDArray[np.bool_]) -> None:
        bucket_2RM, sum_3, count_3 = self._views[stream]
        _adwin_one(
            value_N,
            self._rule,
            bucket_2RM,
            sum_3,
            count_3,
            self._shape_2R,
            self._room_2K,
            alarm_N,
        )

    def update(self, value_S: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Show one value to every stream, NaN for none; return which raised an alarm, bool (S,)."""
        alarm_S = np.zeros(len(value_S), np.bool_)
        _adwin_each(
            np.ascontiguousarray(value_S, np.float64),
            self._rule,
            self._bucket_S2RM,
            self._sum_S3,
            self._count_S3,
            self._shape_2R,
            self._room_2K,
            alarm_S,
        )
        return alarm_S

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            "buckets": self._bucket_S2RM.copy(),
            "sums": self._sum_S3.copy(),
            "counts": self._count_S3.copy(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._bucket_S2RM = state["buckets"].copy()
        self._sum_S3 = state["sums"].copy()
        self._count_S3 = state["counts"].copy()
        self._take_views()


def _take_in(value_N, num, places, bucket_2RM):  # type: ignore[no-untyped-def]
    """Put values behind the `num` that are there, and merge what that makes too many.

    A row that ever held `m` buckets has handed on the oldest (m - keep) // 2 pairs of them.
    """
    keep = places - 2
    for n in range(len(value_N)):
        bucket_2RM[0, 0, (num + n) & _LAST] = value_N[n]
    held, holds, row = num, num + len(value_N), 0
    # Sizes are powers of two, so that dividing by one and multiplying by its inverse are the same.
    inverse, weight = 1.0, 0.5
    while holds >= places:
        had_above = 0 if held < places else (held - keep) // 2
        above = (holds - keep) // 2
        if above == had_above:
            return
        for m in range(had_above, above):
            i, at = (2 * m) & _LAST, m & _LAST
            first, second = bucket_2RM[0, row, i], bucket_2RM[0, row, i + 1]
            apart = first * inverse - second * inverse
            between = weight * apart * apart
            bucket_2RM[0, row + 1, at] = first + second
            bucket_2RM[1, row + 1, at] = bucket_2RM[1, row, i] + bucket_2RM[1, row, i + 1] + between
        held, holds = had_above, above
        row += 1
        inverse *= 0.5
        weight += weight


def _sum_up(value_N, sums, room_2K):  # type: ignore[no-untyped-def]
    """Return total and variance times width with these values; the divisions go side by side."""
    total, variance, width = sums
    for n in range(len(value_N)):
        room_2K[0, n] = total
        total += value_N[n]
    for n in range(len(value_N)):
        before = width + n
        off = value_N[n] - room_2K[0, n] / before
        room_2K[1, n] = before * off * off / (before + 1.0)
    for n in range(len(value_N)):
        if n > 0 or width > 0.0:
            variance += room_2K[1, n]
    return total, variance


def _find_shape(num, places, shape_2R):  # type: ignore[no-untyped-def]
    """Say which buckets there are after `num` values; return how many rows."""
    keep, row = places - 2, 0
    while True:
        filled = num if num < keep else keep + (num - keep) % 2
        shape_2R[0, row], shape_2R[1, row] = num - filled, filled
        row += 1
        if num < places:
            return row
        num = (num - keep) // 2


def _may_differ(rule, strict, sums, rows, bucket_2RM, shape_2R, room_2K):  # type: ignore[no-untyped-def]
    """Return False when no split can have two means that differ too much.

    With x = u0 width - total n0, the means of a split are |x| / (n0 n1) apart, and river's bound is
    above sqrt(2 (1/a + 1/b) variance strict), a and b being n0 and n1 less what is too short.
    Squared and without fractions that is a product on either side. A millionth is left for rounding
    in the products, a trillionth of the largest sum for that in the sums.
    """
    total, variance, width = sums
    places, n0, u0, largest = 0, 0.0, 0.0, abs(total)
    size = 2.0 ** (rows - 1)
    for row in range(rows - 1, -1, -1):
        for m in range(shape_2R[0, row], shape_2R[0, row] + shape_2R[1, row]):
            n0 += size
            u0 += bucket_2RM[0, row, m & _LAST]
            largest = max(largest, abs(u0))
            room_2K[0, places], room_2K[1, places] = n0, u0
            places += 1
        size *= 0.5
    short = rule[2] - 1.0
    rounding = 2e-12 * width * largest
    bound = 2.0 * (variance / width) * strict * (width - 2.0 * short) * (1.0 - 1e-6)
    doubts = 0
    for k in range(places - 1):  # behind the newest value there is no split
        n0 = room_2K[0, k]
        n1 = width - n0
        x = abs(room_2K[1, k] * width - total * n0) + rounding
        a, b, both = n0 - short, n1 - short, n0 * n1
        doubts += (x * x * a * b >= bound * both * both) & (a >= 1.0) & (b >= 1.0)
    return doubts > 0


def _differs(rule, strict, sums, rows, bucket_2RM, shape_2R):  # type: ignore[no-untyped-def]
    """Return whether some split of the window has two means that differ too much, as river does."""
    total, variance, width = sums
    shortest = rule[2]
    variance /= width
    n0, n1 = 0.0, width
    u0, u1 = 0.0, total
    size = 2.0**rows
    for row in range(rows - 1, -1, -1):
        size *= 0.5
        for m in range(shape_2R[1, row]):
            value = bucket_2RM[0, row, (shape_2R[0, row] + m) & _LAST]
            n0 += size
            n1 -= size
            u0 += value
            u1 -= value
            if row == 0 and m == shape_2R[1, 0] - 1:
                return False
            if n1 >= shortest and n0 >= shortest:
                m_recip = 1.0 / (n0 - shortest + 1.0) + 1.0 / (n1 - shortest + 1.0)
                cut = math.sqrt(2.0 * m_recip * variance * strict) + 2.0 / 3.0 * strict * m_recip
                if abs(u0 / n0 - u1 / n1) > cut:
                    return True
    return False


def _drop_oldest(sums, top, bucket_2RM, shape_2R):  # type: ignore[no-untyped-def]
    """Take the oldest bucket out of the window; return the new sums."""
    total, variance, width = sums
    at, size = shape_2R[0, top] & _LAST, 2.0**top
    gone = bucket_2RM[0, top, at]
    width -= size
    total -= gone
    apart = gone / size - total / width
    variance -= bucket_2RM[1, top, at] + size * width * apart * apart / (size + width)
    shape_2R[0, top] += 1
    shape_2R[1, top] -= 1
    return total, variance, width


def _strictness(rule, width):  # type: ignore[no-untyped-def]
    """Return the part of river's bound that is the same for every split; river computes it at each.

    It grows with the window.
    """
    return math.log(2.0 * math.log(width) / rule[0])


def _look(rule, sums, rows, bucket_2RM, shape_2R, room_2K):  # type: ignore[no-untyped-def]
    """Take buckets out of the window until it is all of a kind; return the sums, and whether."""
    changed = False
    while True:
        strict = _strict(rule, sums[2])
        if not _doubt(rule, strict, sums, rows, bucket_2RM, shape_2R, room_2K):
            return sums, changed
        if not _differ(rule, strict, sums, rows, bucket_2RM, shape_2R):
            return sums, changed
        changed = True
        sums = _drop(sums, rows - 1, bucket_2RM, shape_2R)
        while rows > 1 and shape_2R[1, rows - 1] == 0:
            rows -= 1


def _show_all(value_N, rule, bucket_2RM, sum_3, count_3, shape_2R, room_2K, alarm_N):  # type: ignore[no-untyped-def]
    """Show values in blocks that end where a change is looked for; say which raised an alarm."""
    clock, grace, places = int(rule[1]), rule[3], int(rule[4])
    sums = (sum_3[0], sum_3[1], sum_3[2])
    left, num, afresh = count_3[0], count_3[1], count_3[2] != 0
    begin = 0
    least_strict, twice = 0.0, 0
    while begin < len(value_N):
        if afresh:
            sums, left, num, afresh = (0.0, 0.0, 0.0), clock, 0, False
        end = min(len(value_N), begin + min(left, _BLOCK))
        block_N = value_N[begin:end]
        _take(block_N, num, places, bucket_2RM)
        total, variance = _sum(block_N, sums, room_2K)
        num += end - begin
        left -= end - begin
        sums = (total, variance, float(num))
        if left <= 0:
            left = clock
            if num > grace:
                # Two logarithms cost as much as a fifth of a look: those of a smaller window will
                # do, as they only make the first look stricter.
                if not twice // 2 <= num < twice:
                    least_strict, twice = _strict(rule, sums[2]), 2 * num
                rows = _shape(num, places, shape_2R)
                if _doubt(rule, least_strict, sums, rows, bucket_2RM, shape_2R, room_2K):
                    sums, afresh = _look_for_change(rule, sums, rows, bucket_2RM, shape_2R, room_2K)
        alarm_N[end - 1] = afresh
        begin = end
    sum_3[0], sum_3[1], sum_3[2] = sums
    count_3[0], count_3[1], count_3[2] = left, num, afresh


def _show_each(value_S, rule, bucket_S2RM, sum_S3, count_S3, shape_2R, room_2K, alarm_S):  # type: ignore[no-untyped-def]
    for s in range(len(value_S)):
        if not math.isnan(value_S[s]):
            _adwin_one(
                value_S[s : s + 1],
                rule,
                bucket_S2RM[s],
                sum_S3[s],
                count_S3[s],
                shape_2R,
                room_2K,
                alarm_S[s : s + 1],
            )


# Calls with so many arrays cost as much as the work of some of these.
_take = compiled(_take_in, inline=True)
_sum = compiled(_sum_up, inline=True)
_shape = compiled(_find_shape, inline=True)
_doubt = compiled(_may_differ, inline=True)
_strict = compiled(_strictness)
_differ = compiled(_differs)
_drop = compiled(_drop_oldest)
_look_for_change = compiled(_look)
_adwin_one = compiled(_show_all)
_adwin_each = compiled(_show_each)
