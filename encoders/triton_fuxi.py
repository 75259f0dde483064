"""FuXi-alpha's attention as Triton kernels: three maps and their products with V in one pass.

The maps (what, when, where; see `encoders/fuxi_alpha.py`) are made tile by tile where they are
used, forward and backward, so nothing of size B x H x T x T is ever in memory. Importing this
module imports Triton, which is not installed everywhere: `encoders/fused_attention.py` is the way
in. No atomic additions: the same input gives the same bits.

Shape legend: B sequences, T events, H heads, K = d_qk, E = d_v, N container length;
M, J rows and columns of a tile.
"""

# Triton tells nothing of its types:
# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from encoders.time_bucket import NUM_BUCKETS, time_bucket

_NO_TIME = 2**63 - 1
_MAX_WIDTH = 128
_BUCKET_WIDTH = tl.constexpr(0.301)
_LAST_BUCKET = tl.constexpr(NUM_BUCKETS - 1)
_HISTOGRAM = tl.constexpr(256)
"""NUM_BUCKETS, rounded up to a power of two."""


@cache
def bucket_starts(device: torch.device) -> Tensor:
    """Return the smallest whole gap of each bucket and, last, one that no gap reaches; (130,).

    Float32 logarithms on a GPU would put gaps at an edge one bucket away from where float64 puts
    them; with these, kernels put them right.
    """
    starts = []
    for bucket in range(NUM_BUCKETS):
        low, high = 0, 2**62
        while low < high:
            middle = (low + high) // 2
            if int(time_bucket(torch.tensor(middle))) >= bucket:
                high = middle
            else:
                low = middle + 1
        starts.append(low)
    return torch.tensor([*starts, _NO_TIME], device=device)


@triton.jit
def _buckets(next_M, time_J, starts):  # type: ignore[no-untyped-def]
    """Return the bucket of each gap, exactly as `time_bucket` has it."""
    gap_MJ = tl.maximum(tl.abs(next_M[:, None] - time_J[None, :]), 1)
    about_MJ = (tl.log(gap_MJ.to(tl.float32)) / _BUCKET_WIDTH).to(tl.int32)
    about_MJ = tl.minimum(about_MJ, _LAST_BUCKET)
    low_MJ = tl.load(starts + about_MJ)
    high_MJ = tl.load(starts + about_MJ + 1)
    return about_MJ - (gap_MJ < low_MJ).to(tl.int32) + (gap_MJ >= high_MJ).to(tl.int32)


@triton.jit
def _rows(x, at, stride, size, last, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return rows `at` of a matrix, zeros where there is none and beyond its `last` column."""
    column = tl.arange(0, WIDTH)
    there = (at[:, None] < size) & (column[None, :] < last)
    return tl.load(x + at[:, None] * stride + column[None, :], mask=there, other=0.0)


@triton.jit
def _put(x, at, stride, size, last, value, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    column = tl.arange(0, WIDTH)
    there = (at[:, None] < size) & (column[None, :] < last)
    tl.store(x + at[:, None] * stride + column[None, :], value, mask=there)


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    q, k, v, time_weight, place_weight, next_times, times, starts, out,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    heads, length, container, qk_width, v_width,
    M: tl.constexpr, J: tl.constexpr, K: tl.constexpr, E: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    sequence, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    row_M = tl.program_id(0) * M + tl.arange(0, M)
    next_M = tl.load(next_times + sequence * length + row_M, mask=row_M < length, other=0)
    q_MK = _rows(q + sequence * q_b + head * q_h, row_M, q_t, length, qk_width, K)
    where_ME = tl.zeros((M, E), tl.float32)
    when_ME = tl.zeros((M, E), tl.float32)
    what_ME = tl.zeros((M, E), tl.float32)
    for first in range(0, tl.minimum((tl.program_id(0) + 1) * M, length), J):
        column_J = first + tl.arange(0, J)
        is_open_MJ = (column_J[None, :] <= row_M[:, None]) & (row_M[:, None] < length)
        k_JK = _rows(k + sequence * k_b + head * k_h, column_J, k_t, length, qk_width, K)
        v_JE = _rows(v + sequence * v_b + head * v_h, column_J, v_t, length, v_width, E)
        time_J = tl.load(times + sequence * length + column_J, mask=column_J < length, other=0)
        score_MJ = tl.dot(q_MK, tl.trans(k_JK), input_precision=PRECISION)
        what_MJ = tl.where(is_open_MJ, score_MJ * tl.sigmoid(score_MJ) / container, 0.0)
        bucket_MJ = _buckets(next_M, time_J, starts)
        when_MJ = tl.load(time_weight + bucket_MJ, mask=is_open_MJ, other=0.0)
        place_MJ = container - 1 + column_J[None, :] - row_M[:, None]
        where_MJ = tl.load(place_weight + place_MJ, mask=is_open_MJ, other=0.0)
        where_ME += tl.dot(where_MJ.to(v_JE.dtype), v_JE, input_precision=PRECISION)
        when_ME += tl.dot(when_MJ.to(v_JE.dtype), v_JE, input_precision=PRECISION)
        what_ME += tl.dot(what_MJ.to(v_JE.dtype), v_JE, input_precision=PRECISION)
    # out is (B, T, H, 3, E), whole.
    start = out + (sequence * length * heads + head) * 3 * v_width
    stride = heads * 3 * v_width
    _put(start, row_M, stride, length, v_width, where_ME, E)
    _put(start + v_width, row_M, stride, length, v_width, when_ME, E)
    _put(start + 2 * v_width, row_M, stride, length, v_width, what_ME, E)


@triton.jit
def _backward_columns(  # type: ignore[no-untyped-def]
    q, k, v, time_weight, place_weight, next_times, times, starts, out_grad, k_grad, v_grad,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    heads, length, container, qk_width, v_width,
    M: tl.constexpr, J: tl.constexpr, K: tl.constexpr, E: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of K and V, a tile of columns per program."""
    sequence, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    column_J = tl.program_id(0) * J + tl.arange(0, J)
    k_JK = _rows(k + sequence * k_b + head * k_h, column_J, k_t, length, qk_width, K)
    v_JE = _rows(v + sequence * v_b + head * v_h, column_J, v_t, length, v_width, E)
    time_J = tl.load(times + sequence * length + column_J, mask=column_J < length, other=0)
    start = out_grad + (sequence * length * heads + head) * 3 * v_width
    stride = heads * 3 * v_width
    k_grad_JK = tl.zeros((J, K), tl.float32)
    v_grad_JE = tl.zeros((J, E), tl.float32)
    for first in range(tl.program_id(0) * J // M * M, length, M):
        row_M = first + tl.arange(0, M)
        is_open_MJ = (column_J[None, :] <= row_M[:, None]) & (row_M[:, None] < length)
        next_M = tl.load(next_times + sequence * length + row_M, mask=row_M < length, other=0)
        q_MK = _rows(q + sequence * q_b + head * q_h, row_M, q_t, length, qk_width, K)
        of_where_ME = _rows(start, row_M, stride, length, v_width, E)
        of_when_ME = _rows(start + v_width, row_M, stride, length, v_width, E)
        of_what_ME = _rows(start + 2 * v_width, row_M, stride, length, v_width, E)
        score_MJ = tl.dot(q_MK, tl.trans(k_JK), input_precision=PRECISION)
        share_MJ = tl.sigmoid(score_MJ)
        what_MJ = tl.where(is_open_MJ, score_MJ * share_MJ / container, 0.0)
        bucket_MJ = _buckets(next_M, time_J, starts)
        when_MJ = tl.load(time_weight + bucket_MJ, mask=is_open_MJ, other=0.0)
        place_MJ = container - 1 + column_J[None, :] - row_M[:, None]
        where_MJ = tl.load(place_weight + place_MJ, mask=is_open_MJ, other=0.0)
        kind = v_JE.dtype
        v_grad_JE += tl.dot(tl.trans(where_MJ.to(kind)), of_where_ME, input_precision=PRECISION)
        v_grad_JE += tl.dot(tl.trans(when_MJ.to(kind)), of_when_ME, input_precision=PRECISION)
        v_grad_JE += tl.dot(tl.trans(what_MJ.to(kind)), of_what_ME, input_precision=PRECISION)
        of_map_MJ = tl.dot(of_what_ME, tl.trans(v_JE), input_precision=PRECISION) / container
        slope_MJ = share_MJ * (1.0 + score_MJ * (1.0 - share_MJ))
        of_score_MJ = tl.where(is_open_MJ, of_map_MJ * slope_MJ, 0.0)
        k_grad_JK += tl.dot(tl.trans(of_score_MJ.to(kind)), q_MK, input_precision=PRECISION)
    at = sequence * length * heads + head
    _put(k_grad + at * qk_width, column_J, heads * qk_width, length, qk_width, k_grad_JK, K)
    _put(v_grad + at * v_width, column_J, heads * v_width, length, v_width, v_grad_JE, E)


@triton.jit
def _backward_rows(  # type: ignore[no-untyped-def]
    q, k, v, next_times, times, starts, out_grad, q_grad, time_grad,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h,
    heads, length, container, qk_width, v_width,
    M: tl.constexpr, J: tl.constexpr, K: tl.constexpr, E: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of Q and, summed over the tile's rows, of the time weights."""
    sequence, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    row_M = tl.program_id(0) * M + tl.arange(0, M)
    next_M = tl.load(next_times + sequence * length + row_M, mask=row_M < length, other=0)
    q_MK = _rows(q + sequence * q_b + head * q_h, row_M, q_t, length, qk_width, K)
    start = out_grad + (sequence * length * heads + head) * 3 * v_width
    stride = heads * 3 * v_width
    of_when_ME = _rows(start + v_width, row_M, stride, length, v_width, E)
    of_what_ME = _rows(start + 2 * v_width, row_M, stride, length, v_width, E)
    q_grad_MK = tl.zeros((M, K), tl.float32)
    bucket_X = tl.arange(0, _HISTOGRAM)
    time_grad_X = tl.zeros((_HISTOGRAM,), tl.float32)
    for first in range(0, tl.minimum((tl.program_id(0) + 1) * M, length), J):
        column_J = first + tl.arange(0, J)
        is_open_MJ = (column_J[None, :] <= row_M[:, None]) & (row_M[:, None] < length)
        k_JK = _rows(k + sequence * k_b + head * k_h, column_J, k_t, length, qk_width, K)
        v_JE = _rows(v + sequence * v_b + head * v_h, column_J, v_t, length, v_width, E)
        time_J = tl.load(times + sequence * length + column_J, mask=column_J < length, other=0)
        score_MJ = tl.dot(q_MK, tl.trans(k_JK), input_precision=PRECISION)
        share_MJ = tl.sigmoid(score_MJ)
        of_map_MJ = tl.dot(of_what_ME, tl.trans(v_JE), input_precision=PRECISION) / container
        slope_MJ = share_MJ * (1.0 + score_MJ * (1.0 - share_MJ))
        of_score_MJ = tl.where(is_open_MJ, of_map_MJ * slope_MJ, 0.0)
        q_grad_MK += tl.dot(of_score_MJ.to(k_JK.dtype), k_JK, input_precision=PRECISION)
        of_when_MJ = tl.dot(of_when_ME, tl.trans(v_JE), input_precision=PRECISION)
        bucket_MJ = _buckets(next_M, time_J, starts)
        # Times grow along a sequence, so a tile has few different buckets.
        smallest = tl.min(tl.where(is_open_MJ, bucket_MJ, _LAST_BUCKET))
        largest = tl.max(tl.where(is_open_MJ, bucket_MJ, 0))
        for bucket in range(smallest, largest + 1):
            is_it_MJ = is_open_MJ & (bucket_MJ == bucket)
            found = tl.sum(tl.where(is_it_MJ, of_when_MJ, 0.0))
            time_grad_X += tl.where(bucket_X == bucket, found, 0.0)
    at = sequence * length * heads + head
    _put(q_grad + at * qk_width, row_M, heads * qk_width, length, qk_width, q_grad_MK, K)
    tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    is_bucket_X = bucket_X <= _LAST_BUCKET
    tl.store(time_grad + tile * (_LAST_BUCKET + 1) + bucket_X, time_grad_X, mask=is_bucket_X)


class _Sizes(NamedTuple):
    """What the kernels are started with."""

    grid: tuple[int, int]
    strides: tuple[int, ...]
    numbers: tuple[int, ...]
    tiles: dict[str, Any]


def _sizes(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHE: Tensor, container: int) -> _Sizes:
    B, T, H, K = q_BTHK.shape
    E = v_BTHE.shape[-1]
    widths = [max(16, triton.next_power_of_2(width)) for width in (K, E)]
    tile = 16 if q_BTHK.device.type == "cpu" else 64 if max(widths) <= 64 else 32
    strides = tuple(size for x in (q_BTHK, k_BTHK, v_BTHE) for size in x.stride()[:3])
    is_tf32 = torch.backends.cuda.matmul.allow_tf32 and q_BTHK.dtype == torch.float32
    return _Sizes(
        grid=(triton.cdiv(T, tile), B * H),
        strides=strides,
        numbers=(H, T, container, K, E),
        tiles={
            "M": tile,
            "J": tile,
            "K": widths[0],
            "E": widths[1],
            "PRECISION": "tf32" if is_tf32 else "ieee",
        },
    )


def fits(q_BTHK: Tensor, v_BTHE: Tensor, time_BT: Tensor) -> bool:
    """Return whether the kernels can do it: whole seconds, heads not too wide, known dtypes."""
    return (
        not time_BT.is_floating_point()
        and max(q_BTHK.shape[-1], v_BTHE.shape[-1]) <= _MAX_WIDTH
        and q_BTHK.dtype == v_BTHE.dtype
        and q_BTHK.dtype in (torch.float32, torch.bfloat16)
    )


class FusedAttention(torch.autograd.Function):
    """Three channels of FuXi-alpha's attention; see `fused_attention.attention`."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BTHK: Tensor,
        k_BTHK: Tensor,
        v_BTHE: Tensor,
        time_weight: Tensor,
        place_weight: Tensor,
        next_BT: Tensor,
        time_BT: Tensor,
        container: int,
    ) -> Tensor:
        """Return (B, T, H, 3 E): where, when, what."""
        q_BTHK, k_BTHK, v_BTHE = (_even(x) for x in (q_BTHK, k_BTHK, v_BTHE))
        next_BT, time_BT = (x.to(torch.int64).contiguous() for x in (next_BT, time_BT))
        B, T, H, _ = q_BTHK.shape
        E = v_BTHE.shape[-1]
        out_BTHX = torch.empty(B, T, H, 3 * E, dtype=v_BTHE.dtype, device=v_BTHE.device)
        sizes = _sizes(q_BTHK, k_BTHK, v_BTHE, container)
        _forward[sizes.grid](
            q_BTHK, k_BTHK, v_BTHE, time_weight, place_weight, next_BT, time_BT,
            bucket_starts(v_BTHE.device), out_BTHX,
            *sizes.strides, *sizes.numbers, **sizes.tiles,
        )  # fmt: skip
        ctx.save_for_backward(q_BTHK, k_BTHK, v_BTHE, time_weight, place_weight, next_BT, time_BT)
        ctx.container = container
        return out_BTHX

    @staticmethod
    def backward(ctx: Any, out_grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of q, k, v and both weight vectors."""
        q_BTHK, k_BTHK, v_BTHE, time_weight, place_weight, next_BT, time_BT = ctx.saved_tensors
        out_grad = out_grad.contiguous()
        sizes = _sizes(q_BTHK, k_BTHK, v_BTHE, ctx.container)
        q_grad, k_grad, v_grad = (
            torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q_BTHK, k_BTHK, v_BTHE)
        )
        num_tiles = sizes.grid[0] * sizes.grid[1]
        time_grad = torch.empty(num_tiles, NUM_BUCKETS, device=v_BTHE.device)
        starts = bucket_starts(v_BTHE.device)
        _backward_columns[sizes.grid](
            q_BTHK, k_BTHK, v_BTHE, time_weight, place_weight, next_BT, time_BT, starts,
            out_grad, k_grad, v_grad, *sizes.strides, *sizes.numbers, **sizes.tiles,
        )  # fmt: skip
        _backward_rows[sizes.grid](
            q_BTHK, k_BTHK, v_BTHE, next_BT, time_BT, starts,
            out_grad, q_grad, time_grad, *sizes.strides, *sizes.numbers, **sizes.tiles,
        )  # fmt: skip
        place_grad = _place_gradient(out_grad, v_BTHE, place_weight, ctx.container)
        time_grad_X = time_grad.sum(dim=0).to(time_weight.dtype)
        return q_grad, k_grad, v_grad, time_grad_X, place_grad, None, None, None


def _even(x: Tensor) -> Tensor:
    """Return it with neighbours in the last axis next to each other."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _place_gradient(
    out_grad: Tensor, v_BTHE: Tensor, place_weight: Tensor, container: int
) -> Tensor:
    """Return the gradient of the weights per distance.

    They are shared by sequences and heads, so one matrix product sums over both; it is T x T.
    """
    E, T = v_BTHE.shape[-1], v_BTHE.shape[1]
    of_map_TT = torch.einsum("bihe,bjhe->ij", out_grad[..., :E], v_BTHE).float().tril()
    place_T = torch.arange(T, device=v_BTHE.device)
    offset_TT = container - 1 + place_T[None, :] - place_T[:, None]
    grad = torch.zeros(place_weight.shape, dtype=torch.float32, device=place_weight.device)
    grad.index_add_(0, offset_TT.flatten(), of_map_TT.flatten())
    return grad.to(place_weight.dtype)
