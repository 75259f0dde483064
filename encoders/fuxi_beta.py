"""FuXi-beta's block: FuXi-alpha without asking for content, and with a function for the time.

"FuXi-beta: Towards a Lightweight and Fast Large-Scale Generative Recommendation Model" (arXiv
2508.10615), as its authors' code computes it. Nothing here is done per pair of candidate and event:
what candidates take from a history is one vector per request.

Shape legend: B sequences, T events, S rows, C candidates, D width, H heads, E = d_v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from encoders.activations import silu
from encoders.block import Block, LayerState, Memory, Projected
from encoders.geometry import Ahead, Geometry
from encoders.heads import split_heads
from encoders.multistage_ffn import MultiStageFfn
from encoders.norms import rms_norm
from encoders.position_map import PositionMap
from encoders.shape import MAP_STD, BackboneShape
from encoders.time_function import time_function
from encoders.weights import normal


class FuxiBetaBlock(Block):
    """One block: two-channel mixing, then the multi-stage feed-forward network."""

    def __init__(self, shape: BackboneShape, generator: torch.Generator) -> None:
        super().__init__()
        mixed = shape.heads * shape.d_v
        self._heads = shape.heads
        self._split = [2 * mixed, mixed]
        self.uv_DX = normal((shape.width, 3 * mixed), shape.initial_std, generator)
        self.times = time_function(shape.time_function, generator)
        self.positions = PositionMap(shape.container, MAP_STD, generator)
        self.ffn = MultiStageFfn(2 * mixed, shape, generator)

    def project(self, x_BSD: Tensor) -> Projected:
        """Return gate and values."""
        gate_BSX, values_BSX = torch.split(silu(rms_norm(x_BSD) @ self.uv_DX), self._split, dim=-1)
        return Projected(gate_BSX, None, Memory(values_BSX, None))

    def memory(self, x_BTD: Tensor) -> Memory:
        """Return the values alone."""
        return Memory(silu(rms_norm(x_BTD) @ self.uv_DX[:, self._split[0] :]), None)

    def attend(
        self, x_BSD: Tensor, projected: Projected, memory: Memory, where: Geometry
    ) -> Tensor:
        """Return the block's output of some rows, (B, S, D)."""
        when_BST = self.times(where.gap.to(x_BSD.dtype)) * where.causal
        where_BST = self.positions(where) * where.causal
        channels_BSHE = [
            split_heads(map_BST @ memory.values_BTX, self._heads)
            for map_BST in (where_BST, when_BST)
        ]
        return self._end(x_BSD, projected, torch.cat(channels_BSHE, dim=-1))

    def shared(self, memory: Memory, look: Ahead) -> Tensor:
        """Return what position and time say of the history, (B, 2, H, E)."""
        when_BT = self.times(look.gap_BT.to(memory.values_BTX.dtype))
        maps_B2T = torch.stack((self.positions.ahead(look), when_BT), dim=1)
        return split_heads(maps_B2T @ memory.values_BTX, self._heads)

    def candidates(self, x_BCD: Tensor, layer: LayerState) -> Tensor:
        """Return (B, C, D): each candidate attends to the history and to itself."""
        projected = self.project(x_BCD)
        own_v_BCHE = split_heads(projected.own.values_BTX, self._heads)
        own_time = self.times(x_BCD.new_zeros(()))
        shared_B2HE = layer.common
        channels_BCHE = (
            shared_B2HE[:, :1] + self.positions.own() * own_v_BCHE,
            shared_B2HE[:, 1:] + own_time * own_v_BCHE,
        )
        return self._end(x_BCD, projected, torch.cat(channels_BCHE, dim=-1))

    def _end(self, x_BSD: Tensor, projected: Projected, mixed_BSHX: Tensor) -> Tensor:
        attended_BSX = projected.gate * rms_norm(mixed_BSHX.flatten(start_dim=-2))
        out_BSD: Tensor = self.ffn(x_BSD, attended_BSX)
        return out_BSD
