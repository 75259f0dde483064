"""The loops of the error memory, compiled: hash, write and gather.

Plain functions over arrays, one scalar operation after the other in a fixed order, so that a row's
result never depends on the rows beside it. Their slow twins are `hashing.sign_codes_numpy` and, in
the property tests, a list of everything written.

Shape legend: N = examples, D = hidden size, K = arrays, L = bits, B = 2**L buckets, H = heads;
the last axis of a bucket is (count, sum of labels, sum of base scores).
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


def _compiled(kernel: Callable[..., None]) -> Any:
    """Compile on first call; keep the result on disk where a cache folder can be written."""
    try:
        return numba.njit(kernel, nogil=True, cache=True)
    except RuntimeError:  # "cannot cache function": a read-only installation without a home
        return numba.njit(kernel, nogil=True)


def _sign_codes(hidden_ND, centre_D, planes_DLK, codes_NK):  # type: ignore[no-untyped-def]
    """Write each row's K bucket numbers; bit l of array k is [planes[:, l, k] . (h - centre) > 0].

    Two rows and four coordinates at a time keep the partial sums in registers (three times as fast
    as the plain loop) and add in the order of the coordinates, as the twin does. Absent rows and
    coordinates are zero, which changes no sum.
    """
    num_rows, size = hidden_ND.shape
    _, num_bits, num_arrays = planes_DLK.shape
    width = num_bits * num_arrays
    padded = (size + 3) // 4 * 4
    planes_DM = np.zeros((padded, width), np.float32)
    planes_DM[:size] = planes_DLK.reshape(size, width)
    rows_2D = np.zeros((2, padded), np.float32)
    first_M = np.empty(width, np.float32)
    second_M = np.empty(width, np.float32)
    for n in range(0, num_rows, 2):
        last = min(n + 1, num_rows - 1)
        for d in range(size):
            rows_2D[0, d] = hidden_ND[n, d] - centre_D[d]
            rows_2D[1, d] = hidden_ND[last, d] - centre_D[d]
        first_M[:] = 0
        second_M[:] = 0
        for d in range(0, padded, 4):
            a0, a1, a2, a3 = rows_2D[0, d], rows_2D[0, d + 1], rows_2D[0, d + 2], rows_2D[0, d + 3]
            b0, b1, b2, b3 = rows_2D[1, d], rows_2D[1, d + 1], rows_2D[1, d + 2], rows_2D[1, d + 3]
            for m in range(width):
                p0, p1 = planes_DM[d, m], planes_DM[d + 1, m]
                p2, p3 = planes_DM[d + 2, m], planes_DM[d + 3, m]
                first_M[m] = (((first_M[m] + a0 * p0) + a1 * p1) + a2 * p2) + a3 * p3
                second_M[m] = (((second_M[m] + b0 * p0) + b1 * p1) + b2 * p2) + b3 * p3
        _pack(first_M, codes_NK[n])
        _pack(second_M, codes_NK[last])


def _pack_signs(sums_M, codes_K):  # type: ignore[no-untyped-def]
    """Make K integers of the signs, the first bit being the highest."""
    num_arrays = codes_K.shape[0]
    codes_K[:] = 0
    for start in range(0, sums_M.shape[0], num_arrays):
        for k in range(num_arrays):
            codes_K[k] = 2 * codes_K[k] + (sums_M[start + k] > 0)


def _write(codes_NK, base_NH, labels_NH, weight, buckets_KBH3):  # type: ignore[no-untyped-def]
    """Add `weight` times (1, label, base score) to each example's K buckets; NaN labels are not."""
    limit = np.float32(weight * MAX_BUCKET_COUNT)
    for n in range(codes_NK.shape[0]):
        for k in range(codes_NK.shape[1]):
            bucket_H3 = buckets_KBH3[k, codes_NK[n, k]]
            for h in range(labels_NH.shape[1]):
                if math.isnan(labels_NH[n, h]):
                    continue
                bucket_H3[h, 0] += weight
                bucket_H3[h, 1] += weight * labels_NH[n, h]
                bucket_H3[h, 2] += weight * base_NH[n, h]
                if bucket_H3[h, 0] > limit:
                    for i in range(3):
                        bucket_H3[h, i] *= np.float32(0.5)


def _gather(codes_NK, buckets_KBH3, found_3KNH):  # type: ignore[no-untyped-def]
    """Copy the K buckets of each example, one plane per value and array, for NumPy to go on."""
    for k in range(codes_NK.shape[1]):
        for n in range(codes_NK.shape[0]):
            bucket_H3 = buckets_KBH3[k, codes_NK[n, k]]
            for h in range(bucket_H3.shape[0]):
                for i in range(3):
                    found_3KNH[i, k, n, h] = bucket_H3[h, i]


_pack = _compiled(_pack_signs)
sign_codes = _compiled(_sign_codes)
write = _compiled(_write)
gather = _compiled(_gather)
