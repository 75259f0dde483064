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

from encoders.activations import silu, silu_share
from encoders.block import Block, LayerState, Memory, Projected
from encoders.fused_attention import Maps, attention, use_fused
from encoders.geometry import Ahead, Geometry
from encoders.heads import split_heads
from encoders.multistage_ffn import MultiStageFfn
from encoders.norms import rms_norm
from encoders.position_map import PositionMap
from encoders.shape import MAP_STD, BackboneShape
from encoders.time_table import TimeTable
from encoders.weights import normal


class FuxiAlphaBlock(Block):
    """One block: three-channel attention, then the multi-stage feed-forward network."""

    def __init__(self, shape: BackboneShape, generator: torch.Generator) -> None:
        super().__init__()
        mixed, asked = shape.heads * shape.d_v, shape.heads * shape.d_qk
        self._heads, self._container = shape.heads, shape.container
        self._attention = shape.attention
        self._split = [3 * mixed, mixed, asked, asked]
        self.uvqk_DX = normal((shape.width, sum(self._split)), shape.initial_std, generator)
        self.times = TimeTable(MAP_STD, generator)
        self.positions = PositionMap(shape.container, MAP_STD, generator)
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
        q_BSHK, k_BTHK, v_BTHE = (
            split_heads(x, self._heads) for x in (projected.query, memory.keys, memory.values_BTX)
        )
        if where.is_whole and use_fused(self._attention, q_BSHK, v_BTHE, where.time_BT):
            weights = Maps(self.times.weight, self.positions.weight, self._container)
            fused_BSHX = attention(q_BSHK, k_BTHK, v_BTHE, weights, (where.next_BS, where.time_BT))
            return self._end(x_BSD, projected, fused_BSHX)
        what_BHST = silu_share(q_BSHK.transpose(1, 2) @ k_BTHK.permute(0, 2, 3, 1), self._container)
        what_BHST = what_BHST * where.causal.unsqueeze(1)
        when_BST = self.times(where) * where.causal
        where_BST = self.positions(where) * where.causal
        channels_BSHE = (
            split_heads(where_BST @ memory.values_BTX, self._heads),
            split_heads(when_BST @ memory.values_BTX, self._heads),
            (what_BHST @ v_BTHE.transpose(1, 2)).transpose(1, 2),
        )
        return self._end(x_BSD, projected, torch.cat(channels_BSHE, dim=-1))

    def shared(self, memory: Memory, look: Ahead) -> Tensor:
        """Return what position and time say of the history, (B, 2, H, E).

        All candidates of a request share time and place, so two of the three channels are one
        vector per request.
        """
        v_BTHE = split_heads(memory.values_BTX, self._heads)
        maps_B2T = torch.stack((self.positions.ahead(look), self.times.ahead(look)), dim=1)
        return torch.einsum("bst,bthe->bshe", maps_B2T, v_BTHE)

    def candidates(self, x_BCD: Tensor, layer: LayerState) -> Tensor:
        """Return (B, C, D): each candidate attends to the history and to itself."""
        projected = self.project(x_BCD)
        q_BCHK, own_k_BCHK, own_v_BCHE, k_BTHK, v_BTHE = (
            split_heads(x, self._heads)
            for x in (
                projected.query,
                projected.own.keys,
                projected.own.values_BTX,
                layer.memory.keys,
                layer.memory.values_BTX,
            )
        )
        what_BHCT = silu_share(torch.einsum("bchk,bthk->bhct", q_BCHK, k_BTHK), self._container)
        own_BCH1 = silu_share((q_BCHK * own_k_BCHK).sum(-1, keepdim=True), self._container)
        shared_B2HE = layer.common
        channels_BCHE = (
            shared_B2HE[:, :1] + self.positions.own() * own_v_BCHE,
            shared_B2HE[:, 1:] + self.times.own() * own_v_BCHE,
            torch.einsum("bhct,bthe->bche", what_BHCT, v_BTHE) + own_BCH1 * own_v_BCHE,
        )
        return self._end(x_BCD, projected, torch.cat(channels_BCHE, dim=-1))

    def _end(self, x_BSD: Tensor, projected: Projected, mixed_BSHX: Tensor) -> Tensor:
        attended_BSX = projected.gate * rms_norm(mixed_BSHX.flatten(start_dim=-2))
        out_BSD: Tensor = self.ffn(x_BSD, attended_BSX)
        return out_BSD
