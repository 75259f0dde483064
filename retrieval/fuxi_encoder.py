"""FuXi-alpha: a stack of blocks that mix a history by position, by time and by meaning.

Formulas: FuXi-alpha (arXiv 2502.03036), as its authors' code computes them; the golden vectors of
the tests agree with that code. Dropout is left out: a stream is learned in one pass.

Shape legend: B = users, T = events in the batch's longest history, S = positions that are computed
(all T, or the newest alone), N = container length (constant), D = width, H = heads, E = d_v, K =
d_qk. Histories are left-aligned and masked causally, so valid positions never read padding and
leaving away trailing padding changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_BUCKETS = 129
_BUCKET_WIDTH = 0.301
_NORM_EPS = 1e-6
_INIT_STD = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class FuxiShape:
    """Sizes of an encoder.

    Attributes:
        container: N, the longest history plus one slot for the time of the request.
        ffn_multiple: hidden width of the second stage divided by D.
    """

    width: int
    container: int
    num_blocks: int = 2
    num_heads: int = 1
    d_qk: int = 32
    d_v: int = 32
    ffn_multiple: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """What all blocks share about a batch: who may attend to whom, and how far apart they are.

    What does not differ between users has a first axis of 1.

    Attributes:
        causal_BST: bool, True where column j is not later than row i.
        bucket_BST: int64, bucket of t_{i+1} - t_j.
        offset_BST: int64, index (N - 1) + (j - i) into the positional weights.
    """

    causal_BST: Tensor
    bucket_BST: Tensor
    offset_BST: Tensor

    def at(self, position_B: Tensor) -> Geometry:
        """Return the rows of one position per user, S = 1."""
        return Geometry(
            _at(self.causal_BST.expand_as(self.bucket_BST), position_B),
            _at(self.bucket_BST, position_B),
            _at(self.offset_BST.expand_as(self.bucket_BST), position_B),
        )


def _at(x_BTX: Tensor, position_B: Tensor) -> Tensor:
    """Return one position per user, (B, 1, X)."""
    return x_BTX[torch.arange(len(position_B)), position_B].unsqueeze(1)


def rms_norm(x: Tensor) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) over the last axis, without gain."""
    return functional.rms_norm(x, (x.shape[-1],), eps=_NORM_EPS)


def time_bucket(seconds: Tensor) -> Tensor:
    """Return clamp(floor(ln(max(|dt|, 1)) / 0.301), 0, 128) as int64.

    The logarithm is natural although 0.301 is log10(2): that is how the authors' code has it.
    """
    logs = seconds.abs().clamp(min=1).to(torch.float64).log()
    return (logs / _BUCKET_WIDTH).floor().clamp(0, NUM_BUCKETS - 1).to(torch.int64)


def geometry(seconds_BU: Tensor, container: int) -> Geometry:
    """Build what blocks share, for all positions.

    Args:
        seconds_BU: int64 (B, T + 1), event times; index `length` of a row holds the time of the
            request, which is what t_{i+1} of the newest event means.
        container: N of the encoder.
    """
    length = seconds_BU.shape[1] - 1
    position_T = torch.arange(length)
    gap_BTT = seconds_BU[:, 1:, None] - seconds_BU[:, None, :-1]
    behind_TT = position_T[None, :] - position_T[:, None]
    return Geometry(
        causal_BST=(behind_TT <= 0).unsqueeze(0),
        bucket_BST=time_bucket(gap_BTT),
        offset_BST=(container - 1 + behind_TT).unsqueeze(0),
    )


class FuxiBlock(nn.Module):
    """One block: attention through three separate maps, then the two-stage feed-forward part."""

    def __init__(self, shape: FuxiShape, generator: torch.Generator) -> None:
        super().__init__()
        self._shape = shape
        mixed = shape.num_heads * shape.d_v
        asked = shape.num_heads * shape.d_qk
        self._split = [3 * mixed, mixed, asked, asked]
        hidden = shape.ffn_multiple * shape.width

        def normal(*size: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(size, generator=generator) * _INIT_STD)

        def xavier(*size: int) -> nn.Parameter:
            weight = nn.init.xavier_uniform_(torch.empty(size), generator=generator)
            return nn.Parameter(weight)

        self.uvqk_DX = normal(shape.width, sum(self._split))
        self.time_weight = normal(NUM_BUCKETS)
        self.position_weight = normal(2 * shape.container - 1)
        self.lin0_weight = xavier(shape.width, 3 * mixed)
        self.lin0_bias = nn.Parameter(torch.zeros(shape.width))
        self.lin1_weight = xavier(hidden, shape.width)
        self.lin3_weight = xavier(hidden, shape.width)
        self.lin2_weight = xavier(shape.width, hidden)

    def forward(self, x_BTD: Tensor, where: Geometry, newest_B: Tensor | None = None) -> Tensor:
        """Return float32 (B, S, D): all positions, or only one per user when `newest_B` is given.

        A last block that computes the newest position alone does a fraction of the work, and
        gives the same numbers: no position reads what another one becomes within the block.
        """
        projected_BTX = functional.silu(rms_norm(x_BTD) @ self.uvqk_DX)
        gate_BSX, v_BTX, q_BSX, k_BTX = torch.split(projected_BTX, self._split, dim=-1)
        x_BSD = x_BTD
        if newest_B is not None:
            where = where.at(newest_B)
            x_BSD, gate_BSX, q_BSX = (_at(x, newest_B) for x in (x_BTD, gate_BSX, q_BSX))
        attended_BSX = gate_BSX * rms_norm(self._mix(q_BSX, k_BTX, v_BTX, where))
        y_BSD = x_BSD + functional.linear(attended_BSX, self.lin0_weight, self.lin0_bias)
        z_BSD = rms_norm(y_BSD)
        opened_BSF = functional.silu(functional.linear(z_BSD, self.lin1_weight))
        hidden_BSF = opened_BSF * functional.linear(z_BSD, self.lin3_weight)
        return y_BSD + functional.linear(hidden_BSF, self.lin2_weight)

    def _mix(self, q_BSX: Tensor, k_BTX: Tensor, v_BTX: Tensor, where: Geometry) -> Tensor:
        """Return the three mixtures of V side by side, head by head, float32 (B, S, 3 H E)."""
        shape = self._shape
        q_BHSK = self._heads(q_BSX, shape.d_qk)
        k_BHTK = self._heads(k_BTX, shape.d_qk)
        meaning_BHST = functional.silu(q_BHSK @ k_BHTK.transpose(2, 3)) / shape.container
        meaning_BHST = meaning_BHST * where.causal_BST.unsqueeze(1)
        time_BST = self.time_weight[where.bucket_BST] * where.causal_BST
        position_BST = self.position_weight[where.offset_BST] * where.causal_BST
        by_meaning_BHSE = meaning_BHST @ self._heads(v_BTX, shape.d_v)
        per_head = (*q_BSX.shape[:2], shape.num_heads, shape.d_v)
        mixed_BSH3E = torch.cat(
            [
                (position_BST @ v_BTX).view(per_head),
                (time_BST @ v_BTX).view(per_head),
                by_meaning_BHSE.transpose(1, 2),
            ],
            dim=-1,
        )
        return mixed_BSH3E.flatten(start_dim=2)

    def _heads(self, x_BTX: Tensor, width: int) -> Tensor:
        """Return (B, H, T, width)."""
        split_BTHK = x_BTX.reshape(*x_BTX.shape[:2], self._shape.num_heads, width)
        return split_BTHK.transpose(1, 2)


class FuxiEncoder(nn.Module):
    """A history of item vectors to one query vector."""

    def __init__(self, shape: FuxiShape, generator: torch.Generator) -> None:
        super().__init__()
        self._shape = shape
        std = math.sqrt(2.0 / (shape.container + shape.width))
        start_ND = torch.randn((shape.container, shape.width), generator=generator) * std
        self.position_ND = nn.Parameter(start_ND)
        self.blocks = nn.ModuleList(FuxiBlock(shape, generator) for _ in range(shape.num_blocks))

    def forward(self, items_BTD: Tensor, valid_BT: Tensor, seconds_BU: Tensor) -> Tensor:
        """Return the newest event's output, float32 (B, D); zero for an empty history.

        Args:
            items_BTD: item vectors, oldest first, left-aligned; T >= 1.
            valid_BT: bool, False at padding.
            seconds_BU: int64 (B, T + 1), see `geometry`.
        """
        where = geometry(seconds_BU, self._shape.container)
        length_B = valid_BT.sum(dim=1)
        newest_B = (length_B - 1).clamp(min=0)
        scaled_BTD = math.sqrt(self._shape.width) * items_BTD
        x_BTD = scaled_BTD + self.position_ND[: items_BTD.shape[1]]
        x_BTD = x_BTD * valid_BT.unsqueeze(-1)
        *first, last = self.blocks
        for block in first:
            x_BTD = block(x_BTD, where)
        query_BD: Tensor = last(x_BTD, where, newest_B).squeeze(1)
        return query_BD * (length_B > 0).unsqueeze(1)
