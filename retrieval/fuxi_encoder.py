"""FuXi-alpha: a stack of blocks that mix a history by position, by time and by meaning.

Formulas: FuXi-alpha (arXiv 2502.03036), as written down in models.md section 1.1, and checked by
the golden vectors of its section 10. Dropout is left out: a stream is learned in one pass.

Shape legend: B = users, T = events in the batch's longest history, N = container length (constant),
D = width, H = heads, E = d_v, K = d_qk. Histories are left-aligned and masked causally, so valid
positions never read padding and leaving away trailing padding changes nothing.
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

    Attributes:
        causal_TT: bool, True where column j is not later than row i.
        bucket_BTT: int64, bucket of t_{i+1} - t_j.
        offset_TT: int64, index (N - 1) + (j - i) into the positional weights.
    """

    causal_TT: Tensor
    bucket_BTT: Tensor
    offset_TT: Tensor


def rms_norm(x: Tensor) -> Tensor:
    """Return x / sqrt(mean(x^2) + eps) over the last axis, without gain."""
    return functional.rms_norm(x, (x.shape[-1],), eps=_NORM_EPS)


def time_bucket(seconds: Tensor) -> Tensor:
    """Return clamp(floor(ln(max(|dt|, 1)) / 0.301), 0, 128) as int64.

    The logarithm is natural although 0.301 is log10(2): that is how the authors' code has it.
    """
    logs = seconds.abs().clamp(min=1).to(torch.float64).log()
    return (logs / _BUCKET_WIDTH).floor().clamp(0, NUM_BUCKETS - 1).to(torch.int64)


def geometry(seconds_BS: Tensor, container: int) -> Geometry:
    """Build what blocks share.

    Args:
        seconds_BS: int64 (B, T + 1), event times; index `length` of a row holds the time of the
            request, which is what t_{i+1} of the newest event means.
        container: N of the encoder.
    """
    length = seconds_BS.shape[1] - 1
    position_T = torch.arange(length)
    gap_BTT = seconds_BS[:, 1:, None] - seconds_BS[:, None, :-1]
    return Geometry(
        causal_TT=position_T[None, :] <= position_T[:, None],
        bucket_BTT=time_bucket(gap_BTT),
        offset_TT=container - 1 + position_T[None, :] - position_T[:, None],
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

    def forward(self, x_BTD: Tensor, where: Geometry) -> Tensor:
        """Return float32 (B, T, D)."""
        gate_BTX, mixed_BTX = self._attend(x_BTD, where)
        attended_BTX = gate_BTX * rms_norm(mixed_BTX)
        y_BTD = x_BTD + functional.linear(attended_BTX, self.lin0_weight, self.lin0_bias)
        z_BTD = rms_norm(y_BTD)
        opened_BTF = functional.silu(functional.linear(z_BTD, self.lin1_weight))
        hidden_BTF = opened_BTF * functional.linear(z_BTD, self.lin3_weight)
        return y_BTD + functional.linear(hidden_BTF, self.lin2_weight)

    def _attend(self, x_BTD: Tensor, where: Geometry) -> tuple[Tensor, Tensor]:
        """Return the gate U and the three mixtures of V, each float32 (B, T, 3 H E)."""
        shape = self._shape
        batch, length, _ = x_BTD.shape
        projected_BTX = functional.silu(rms_norm(x_BTD) @ self.uvqk_DX)
        gate_BTX, v_BTX, q_BTX, k_BTX = torch.split(projected_BTX, self._split, dim=-1)
        q_BHTK = q_BTX.view(batch, length, shape.num_heads, shape.d_qk).transpose(1, 2)
        k_BHTK = k_BTX.view(batch, length, shape.num_heads, shape.d_qk).transpose(1, 2)
        v_BHTE = v_BTX.view(batch, length, shape.num_heads, shape.d_v).transpose(1, 2)
        meaning_BHTT = functional.silu(q_BHTK @ k_BHTK.transpose(2, 3)) / shape.container
        meaning_BHTT = meaning_BHTT * where.causal_TT
        time_BTT = self.time_weight[where.bucket_BTT] * where.causal_TT
        position_TT = self.position_weight[where.offset_TT] * where.causal_TT
        per_head = (batch, length, shape.num_heads, shape.d_v)
        mixed_BTHE3 = torch.cat(
            [
                (position_TT @ v_BTX).view(per_head),
                (time_BTT @ v_BTX).view(per_head),
                (meaning_BHTT @ v_BHTE).transpose(1, 2),
            ],
            dim=-1,
        )
        return gate_BTX, mixed_BTHE3.reshape(batch, length, -1)


class FuxiEncoder(nn.Module):
    """A history of item vectors to one vector per event; the newest one is the query."""

    def __init__(self, shape: FuxiShape, generator: torch.Generator) -> None:
        super().__init__()
        self._shape = shape
        std = math.sqrt(2.0 / (shape.container + shape.width))
        start_ND = torch.randn((shape.container, shape.width), generator=generator) * std
        self.position_ND = nn.Parameter(start_ND)
        self.blocks = nn.ModuleList(FuxiBlock(shape, generator) for _ in range(shape.num_blocks))

    def forward(self, items_BTD: Tensor, valid_BT: Tensor, seconds_BS: Tensor) -> Tensor:
        """Return float32 (B, T, D), zero at padding.

        Args:
            items_BTD: item vectors, oldest first, left-aligned.
            valid_BT: bool, False at padding.
            seconds_BS: int64 (B, T + 1), see `geometry`.
        """
        where = geometry(seconds_BS, self._shape.container)
        scaled_BTD = math.sqrt(self._shape.width) * items_BTD
        x_BTD = scaled_BTD + self.position_ND[: items_BTD.shape[1]]
        valid_BT1 = valid_BT.unsqueeze(-1)
        x_BTD = x_BTD * valid_BT1
        for block in self.blocks:
            x_BTD = block(x_BTD, where)
        return x_BTD * valid_BT1
