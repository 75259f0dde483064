"""FuXi-alpha's block: attention by what, by when and by where, side by side and without softmax.

Ye et al., "FuXi-alpha: Scaling Recommendation Model with Feature Interaction Enhanced Transformer"
(arXiv 2502.03036), as its authors' code computes it. What: SiLU of query times key, divided by the
container's length. When: a learned weight per bucket of the time from an event to the one after
the row that looks back. Where: a learned weight per distance. Each mixes the values on its own.

Shape legend: B sequences, T events, S rows, C candidates, D width, N container length, H heads,
K = d_qk, E = d_v.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu

from encoders.block import Block, LayerState, Memory, Projected
from encoders.geometry import Ahead, Geometry
from encoders.multistage_ffn import MultiStageFfn, normal
from encoders.norms import rms_norm
from encoders.shape import BackboneShape
from encoders.time_bucket import NUM_BUCKETS

_MAP_STD = 0.02


class FuxiAlphaBlock(Block):
    """One block: three-channel attention, then the multi-stage feed-forward network."""

    def __init__(self, shape: BackboneShape, generator: torch.Generator) -> None:
        super().__init__()
        mixed, asked = shape.heads * shape.d_v, shape.heads * shape.d_qk
        self._shape = shape
        self._split = [3 * mixed, mixed, asked, asked]
        self.uvqk_DX = normal(
            shape.width, sum(self._split), std=shape.initial_std, generator=generator
        )
        self.time_weight = normal(NUM_BUCKETS, std=_MAP_STD, generator=generator)
        self.position_weight = normal(2 * shape.container - 1, std=_MAP_STD, generator=generator)
        self.ffn = MultiStageFfn(3 * mixed, shape, generator)

    def project(self, x_BSD: Tensor) -> Projected:
        """Return gate, query, values and keys."""
        parts = torch.split(silu(rms_norm(x_BSD) @ self.uvqk_DX), self._split, dim=-1)
        gate_BSX, values_BSX, query_BSX, keys_BSX = parts
        return Projected(gate_BSX, query_BSX, Memory(values_BSX, keys_BSX))

    def memory(self, x_BTD: Tensor) -> Memory:
        """Return two of the four projections: candidates need nothing else of the history."""
        gate, mixed, asked, _ = self._split
        weights = torch.cat(
            (self.uvqk_DX[:, gate : gate + mixed], self.uvqk_DX[:, gate + mixed + asked :]), dim=1
        )
        values_BTX, keys_BTX = torch.split(silu(rms_norm(x_BTD) @ weights), [mixed, asked], dim=-1)
        return Memory(values_BTX, keys_BTX)

    def attend(
        self, x_BSD: Tensor, projected: Projected, memory: Memory, where: Geometry
    ) -> Tensor:
        """Return the block's output of some rows, (B, S, D)."""
        assert projected.query_BSX is not None
        assert memory.keys_BTX is not None
        q_BHSK = self._heads(projected.query_BSX, self._shape.d_qk).transpose(1, 2)
        k_BHTK = self._heads(memory.keys_BTX, self._shape.d_qk).transpose(1, 2)
        v_BTHE = self._heads(memory.values_BTX, self._shape.d_v)
        what_BHST = silu(q_BHSK @ k_BHTK.transpose(2, 3)) / self._shape.container
        what_BHST = what_BHST * where.causal.unsqueeze(1)
        when_BST = self.time_weight[where.bucket] * where.causal
        offset_BST = self._shape.container - 1 + where.behind_BST
        where_BST = self.position_weight[offset_BST] * where.causal
        channels_BSHE = (
            self._heads(where_BST @ memory.values_BTX, self._shape.d_v),
            self._heads(when_BST @ memory.values_BTX, self._shape.d_v),
            (what_BHST @ v_BTHE.transpose(1, 2)).transpose(1, 2),
        )
        return self._end(x_BSD, projected, torch.cat(channels_BSHE, dim=-1))

    def shared(self, memory: Memory, look: Ahead) -> Tensor:
        """Return what position and time say of the history, (B, 2, H, E).

        All candidates of a request share time and place, so two of the three channels are one
        vector per request.
        """
        v_BTHE = self._heads(memory.values_BTX, self._shape.d_v)
        place_BT = self.position_weight[self._shape.container - 1 - look.distance_BT]
        time_BT = self.time_weight[look.bucket]
        return torch.einsum("bst,bthe->bshe", torch.stack((place_BT, time_BT), 1), v_BTHE)

    def candidates(self, x_BCD: Tensor, layer: LayerState) -> Tensor:
        """Return (B, C, D): each candidate attends to the history and to itself."""
        projected = self.project(x_BCD)
        keys, own_keys = layer.memory.keys_BTX, projected.own.keys_BTX
        assert projected.query_BSX is not None
        assert layer.shared is not None
        assert keys is not None
        assert own_keys is not None
        q_BCHK = self._heads(projected.query_BSX, self._shape.d_qk)
        own_k_BCHK = self._heads(own_keys, self._shape.d_qk)
        own_v_BCHE = self._heads(projected.own.values_BTX, self._shape.d_v)
        k_BTHK = self._heads(keys, self._shape.d_qk)
        v_BTHE = self._heads(layer.memory.values_BTX, self._shape.d_v)
        N = self._shape.container
        what_BHCT = silu(torch.einsum("bchk,bthk->bhct", q_BCHK, k_BTHK)) / N
        own_BCH1 = silu((q_BCHK * own_k_BCHK).sum(-1, keepdim=True)) / N
        channels_BCHE = (
            layer.shared[:, :1] + self.position_weight[N - 1] * own_v_BCHE,
            layer.shared[:, 1:] + self.time_weight[0] * own_v_BCHE,
            torch.einsum("bhct,bthe->bche", what_BHCT, v_BTHE) + own_BCH1 * own_v_BCHE,
        )
        return self._end(x_BCD, projected, torch.cat(channels_BCHE, dim=-1))

    def _end(self, x_BSD: Tensor, projected: Projected, mixed_BSHX: Tensor) -> Tensor:
        assert projected.gate_BSX is not None
        attended_BSX = projected.gate_BSX * rms_norm(mixed_BSHX.flatten(start_dim=-2))
        out_BSD: Tensor = self.ffn(x_BSD, attended_BSX)
        return out_BSD

    def _heads(self, x_BTX: Tensor, width: int) -> Tensor:
        """Return (B, T, H, width)."""
        return x_BTX.reshape(*x_BTX.shape[:2], self._shape.heads, width)
