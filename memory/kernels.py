"""The loops of the error memory, compiled: pack signs, write and read.

Plain functions over arrays, one scalar operation after the other in a fixed order, so that a row's
result never depends on the rows beside it. Their slow twins are `hashing.sign_codes_numpy` and, in
the property tests, a list of everything written.

Shape legend: N = examples, D = hidden size, K = arrays, L = bits, M = L * K planes, B = 2**L
buckets, H = heads; the last axis of a bucket is (count, sum of labels, sum of base scores).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

MAX_BUCKET_COUNT = 2.0**18
"""A bucket is halved when it holds more (decayed) examples than this: a float32 sum then still
keeps 6 bits of each new example, and the estimate's own noise is below 0.1 %."""

DENSITY, COUNT, LOG_COUNT, POOLED = range(4)
"""How attention follows from a count: see `MemoryConfig.similarity`. "pooled" is "log_count" at a
temperature of 1, where exp(ln(1 + count)) needs neither."""


def compiled(kernel: Callable[..., None], *, in_any_order: bool = False) -> Any:
    """Compile on first call; keep the result on disk where a cache folder can be written.

    With `in_any_order` sums may be added up in another order, which is faster.
    """
    options: dict[str, Any] = {"fastmath": {"reassoc", "contract"}} if in_any_order else {}
    try:
        return numba.njit(kernel, nogil=True, cache=True, **options)
    except RuntimeError:  # "cannot cache function": a read-only installation without a home
        return numba.njit(kernel, nogil=True, **options)


def _centre(hidden_ND, centre_D, bounds, centred_ND, doubt_N):  # type: ignore[no-untyped-def]
    """Take the centre off each row, and say below which size its sums' signs are not certain.

    `bounds` are the doubt for each unit of length, the least doubt, and the length from which on
    nothing is certain: then the doubt is above all numbers.
    """
    per_length, least, longest = bounds
    for n in range(hidden_ND.shape[0]):
        square = np.float32(0)
        for d in range(hidden_ND.shape[1]):
            value = hidden_ND[n, d] - centre_D[d]
            centred_ND[n, d] = value
            square += value * value
        length = math.sqrt(square)
        doubt_N[n] = np.float32(per_length * length + least) if length < longest else np.nan


def _pack_signs(sums_MN, doubt_N, centred_ND, planes_DM, start, codes_KN):  # type: ignore[no-untyped-def]
    """Write bucket numbers of the signs of sums, from column `start` on; a first bit is highest.

    A sum no further from 0 than the row's doubt might have the other sign if it were added up in
    another order: such a one is added up anew, in the order of the coordinates.

    `sums_MN` and `doubt_N` are float32 seen as int32, which orders positive numbers alike: so all
    of the long loop is on integers of one size, which is ten times as fast.
    """
    num_arrays = codes_KN.shape[0]
    num_planes, num_rows = sums_MN.shape
    least_N = np.full(num_rows, np.int32(0x7FFFFFFF))
    codes_KN[:, start : start + num_rows] = 0
    for m in range(num_planes):
        codes_N = codes_KN[m % num_arrays, start : start + num_rows]
        sums_N = sums_MN[m]
        for n in range(num_rows):
            codes_N[n] = np.int32(codes_N[n] + codes_N[n] + np.int32(sums_N[n] > 0))
            least_N[n] = min(np.int32(sums_N[n] & np.int32(0x7FFFFFFF)), least_N[n])
    for n in range(num_rows):
        if least_N[n] <= doubt_N[n]:
            _decide(sums_MN[:, n], doubt_N[n], centred_ND[n], planes_DM, codes_KN[:, start + n])


def _decide_signs(sums_M, doubt, centred_D, planes_DM, codes_K):  # type: ignore[no-untyped-def]
    num_arrays = codes_K.shape[0]
    codes_K[:] = 0
    for m in range(sums_M.shape[0]):
        is_positive = sums_M[m] > 0
        if (sums_M[m] & np.int32(0x7FFFFFFF)) <= doubt:
            total = np.float32(0)
            for d in range(centred_D.shape[0]):
                total += centred_D[d] * planes_DM[d, m]
            is_positive = total > 0
        codes_K[m % num_arrays] = 2 * codes_K[m % num_arrays] + is_positive


def _add_up(hidden_ND, total_D):  # type: ignore[no-untyped-def]
    """Add all rows to a total, one after the other."""
    for n in range(hidden_ND.shape[0]):
        for d in range(hidden_ND.shape[1]):
            total_D[d] += hidden_ND[n, d]


def _write(  # type: ignore[no-untyped-def]
    codes_KN, base_NH, labels_NH, weight_N, counts_KBH3, sums_KBH3, changed_C
):
    """Add `weight` times (1, label, base score) to each example's K buckets; NaN labels are not.

    `counts_KBH3` and `sums_KBH3` are the same memory: where nothing decays, counts are integers.
    Weights are of the counts' type.
    """
    num_buckets = counts_KBH3.shape[1]
    for n in range(codes_KN.shape[1]):
        weight = weight_N[n]
        limit = weight * MAX_BUCKET_COUNT
        for k in range(codes_KN.shape[0]):
            code = codes_KN[k, n]
            changed_C[k * num_buckets + code] = True
            for h in range(labels_NH.shape[1]):
                if math.isnan(labels_NH[n, h]):
                    continue
                counts_KBH3[k, code, h, 0] += weight
                if labels_NH[n, h] > 0:
                    counts_KBH3[k, code, h, 1] += weight
                sums_KBH3[k, code, h, 2] += np.float32(weight) * base_NH[n, h]
                if counts_KBH3[k, code, h, 0] > limit:
                    # True division, then the counts' own type: integers lose their last bit.
                    counts_KBH3[k, code, h, 0] = counts_KBH3[k, code, h, 0] / 2
                    counts_KBH3[k, code, h, 1] = counts_KBH3[k, code, h, 1] / 2
                    sums_KBH3[k, code, h, 2] *= np.float32(0.5)


def _attention(kind, similarity, top, tau):  # type: ignore[no-untyped-def]
    return similarity if kind == POOLED else math.exp((similarity - top) / tau)


def _similarity(kind, count, written):  # type: ignore[no-untyped-def]
    if kind == POOLED:
        return 1.0 + count
    if kind == LOG_COUNT:
        return math.log1p(count)
    return count / written if kind == DENSITY else count


def _read(codes_KN, counts_KBH3, sums_KBH3, kind, settings, written_H, found_4NH):  # type: ignore[no-untyped-def]
    """Write trust, mean label, mean base score and support of each example.

    `settings` are what a new example weighs, min_count, prior_count and tau.
    """
    weight, min_count, prior_count, tau = settings
    num_arrays, num_rows = codes_KN.shape
    scale = 1.0 / weight
    for n in range(num_rows):
        for h in range(written_H.shape[0]):
            top = 0.0
            if kind != POOLED:
                for k in range(num_arrays):
                    count = counts_KBH3[k, codes_KN[k, n], h, 0] * scale
                    if count >= min_count:
                        top = max(top, _likeness(kind, count, written_H[h]))
            total, trust, label, base, support = 0.0, 0.0, 0.0, 0.0, 0.0
            for k in range(num_arrays):
                code = codes_KN[k, n]
                count = counts_KBH3[k, code, h, 0] * scale
                support += count
                if count < min_count:
                    continue
                attention = _weigh(kind, _likeness(kind, count, written_H[h]), top, tau)
                share = attention / (count + prior_count)
                total += attention
                trust += share * count
                label += share * (counts_KBH3[k, code, h, 1] * scale)
                base += share * (sums_KBH3[k, code, h, 2] * scale)
            total = total if total > 0 else 1.0
            found_4NH[0, n, h] = trust / total
            found_4NH[1, n, h] = label / total
            found_4NH[2, n, h] = base / total
            found_4NH[3, n, h] = support / num_arrays


_weigh = compiled(_attention)
_likeness = compiled(_similarity)
_decide = compiled(_decide_signs)
add_up = compiled(_add_up)
centre = compiled(_centre, in_any_order=True)
pack_signs = compiled(_pack_signs)
write = compiled(_write)
read = compiled(_read)
