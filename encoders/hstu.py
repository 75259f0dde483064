"""HSTU's block: one attention map, in which content, time and place are added before the SiLU.

Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential Transducers for
Generative Recommendations" (arXiv 2402.17152), as its authors' research code computes it: no
softmax, division by the container's length, a gate instead of a feed-forward network.

Shape legend: B sequences, T events, S rows, C candidates, D width, N container length, H heads,
K = d_qk, E = d_v.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from encoders.activations import silu, silu_share
from encoders.block import Block, LayerState, Memory, Projected
from encoders.dropout import Dropout
from encoders.geometry import Ahead, Geometry
from encoders.heads import split_heads
from encoders.norms import layer_norm
from encoders.position_map import PositionMap
from encoders.shape import MAP_STD, BackboneShape
from encoders.time_table import TimeTable
from encoders.weights import normal, xavier_uniform, zeros


class HstuBlock(Block):
    """One block: pointwise attention, gated, and one linear layer."""

    def __init__(self, shape: BackboneShape, generator: torch.Generator) -> None:
        super().__init__()
        mixed, asked = shape.heads * shape.d_v, shape.heads * shape.d_qk
        self._heads, self._container = shape.heads, shape.container
        self._split = [mixed, mixed, asked, asked]
        self.uvqk_DX = normal((shape.width, sum(self._split)), shape.initial_std, generator)
        self.times = TimeTable(MAP_STD, generator)
        self.positions = PositionMap(shape.container, MAP_STD, generator)
        self.out_weight = xavier_uniform(shape.width, mixed, generator)
        self.out_bias = zeros(shape.width)
        self.dropout = Dropout(shape.dropout, generator)

    def project(self, x_BSD: Tensor) -> Projected:
        """Return gate, query, values and keys."""
        parts = torch.split(silu(layer_norm(x_BSD) @ self.uvqk_DX), self._split, dim=-1)
        gate_BSX, values_BSX, query_BSX, keys_BSX = parts
        return Projected(gate_BSX, query_BSX, Memory(values_BSX, keys_BSX))

    def attend(
        self, x_BSD: Tensor, projected: Projected, memory: Memory, where: Geometry
    ) -> Tensor:
        """Return the block's output of some rows, (B, S, D)."""
        q_BSHK, k_BTHK, v_BTHE = (
            split_heads(x, self._heads) for x in (projected.query, memory.keys, memory.values_BTX)
        )
        bias_BST = self.times(where) + self.positions(where)
        asked_BHST = q_BSHK.transpose(1, 2) @ k_BTHK.permute(0, 2, 3, 1) + bias_BST.unsqueeze(1)
        map_BHST = silu_share(asked_BHST, self._container) * where.causal.unsqueeze(1)
        mixed_BSHE = (map_BHST @ v_BTHE.transpose(1, 2)).transpose(1, 2)
        return self._end(x_BSD, projected, mixed_BSHE)

    def shared(self, memory: Memory, look: Ahead) -> Tensor:
        """Return what is added for each event, (B, T); at padding there is nothing to mix."""
        return self.times.ahead(look) + self.positions.ahead(look)

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
        asked_BHCT = q_BCHK.transpose(1, 2) @ k_BTHK.permute(0, 2, 3, 1)
        map_BHCT = silu_share(asked_BHCT + layer.common[:, None, None, :], self._container)
        own_bias = self.times.own() + self.positions.own()
        own_BCH1 = silu_share(
            (q_BCHK * own_k_BCHK).sum(-1, keepdim=True) + own_bias, self._container
        )
        mixed_BCHE = (map_BHCT @ v_BTHE.transpose(1, 2)).transpose(1, 2)
        return self._end(x_BCD, projected, mixed_BCHE + own_BCH1 * own_v_BCHE)

    def _end(self, x_BSD: Tensor, projected: Projected, mixed_BSHE: Tensor) -> Tensor:
        gated_BSX = projected.gate * layer_norm(mixed_BSHE.flatten(start_dim=-2))
        return x_BSD + functional.linear(self.dropout(gated_BSX), self.out_weight, self.out_bias)
