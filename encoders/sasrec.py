"""SASRec's block, in the variant that HSTU's authors measure against.

Kang and McAuley, "Self-Attentive Sequential Recommendation" (arXiv 1808.09781), as the research
code of HSTU (arXiv 2402.17152) has it: softmax attention whose query alone is normalised, the
residual through that normalised query, layer norms without gain and with an epsilon of 1e-8, and a
feed-forward network with ReLU. It is the one block here that knows nothing of time or place: the
order of events comes from what is added to tokens before it. Weights start Xavier-normal, biases at
zero.

Shape legend: B sequences, T events, S rows, C candidates, D width, H heads, K = d_qk, E = d_v.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import linear, relu

from encoders.block import Block, LayerState, Memory, Projected
from encoders.dropout import Dropout
from encoders.geometry import Ahead, Geometry
from encoders.heads import split_heads
from encoders.norms import layer_norm
from encoders.shape import BackboneShape
from encoders.weights import xavier_normal, zeros

_EPSILON = 1e-8


class SasrecBlock(Block):
    """One block: multi-head softmax attention, then two linear layers with a ReLU between."""

    reads_time = False
    reads_order = False

    def __init__(self, shape: BackboneShape, generator: torch.Generator) -> None:
        super().__init__()
        mixed, asked = shape.heads * shape.d_v, shape.heads * shape.d_qk
        hidden = shape.ffn_multiple * shape.width
        self._heads, self._scale = shape.heads, 1.0 / math.sqrt(shape.d_qk)
        self._split = [asked, asked, mixed]
        # One matrix of queries, keys and values, as torch's own attention starts it.
        self.qkv_weight = xavier_normal(sum(self._split), shape.width, generator)
        self.qkv_bias = zeros(sum(self._split))
        self.out_weight = xavier_normal(shape.width, mixed, generator)
        self.out_bias = zeros(shape.width)
        self.lin1_weight = xavier_normal(hidden, shape.width, generator)
        self.lin1_bias = zeros(hidden)
        self.lin2_weight = xavier_normal(shape.width, hidden, generator)
        self.lin2_bias = zeros(shape.width)
        self.dropout_map = Dropout(shape.dropout, generator)
        self.dropout_hidden = Dropout(shape.dropout, generator)
        self.dropout_out = Dropout(shape.dropout, generator)

    def project(self, x_BSD: Tensor) -> Projected:
        """Return the query of the normalised input, keys and values of the input as it is."""
        asked = self._split[0]
        normed_BSD = layer_norm(x_BSD, _EPSILON)
        query_BSX = linear(normed_BSD, self.qkv_weight[:asked], self.qkv_bias[:asked])
        return Projected(None, query_BSX, self.memory(x_BSD))

    def memory(self, x_BTD: Tensor) -> Memory:
        """Return keys and values."""
        asked = self._split[0]
        both_BTX = linear(x_BTD, self.qkv_weight[asked:], self.qkv_bias[asked:])
        keys_BTX, values_BTX = torch.split(both_BTX, self._split[1:], dim=-1)
        return Memory(values_BTX, keys_BTX)

    def attend(
        self, x_BSD: Tensor, projected: Projected, memory: Memory, where: Geometry
    ) -> Tensor:
        """Return the block's output of some rows, (B, S, D)."""
        q_BSHK, k_BTHK, v_BTHE = (
            split_heads(x, self._heads) for x in (projected.query, memory.keys, memory.values_BTX)
        )
        asked_BHST = q_BSHK.transpose(1, 2) @ k_BTHK.permute(0, 2, 3, 1) * self._scale
        asked_BHST = asked_BHST.masked_fill(~where.causal.unsqueeze(1), -math.inf)
        map_BHST = self.dropout_map(asked_BHST.softmax(dim=-1))
        return self._end(x_BSD, (map_BHST @ v_BTHE.transpose(1, 2)).transpose(1, 2))

    def shared(self, memory: Memory, look: Ahead) -> Tensor:
        """Return what is added for each event, (B, T): nothing, or minus infinity at padding."""
        nothing_BT = memory.values_BTX.new_zeros(look.valid_BT.shape)
        return nothing_BT.masked_fill(~look.valid_BT, -math.inf)

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
        asked_BHCT = q_BCHK.transpose(1, 2) @ k_BTHK.permute(0, 2, 3, 1) * self._scale
        asked_BHCT = asked_BHCT + layer.common[:, None, None, :]
        own_BHC1 = ((q_BCHK * own_k_BCHK).sum(-1, keepdim=True) * self._scale).transpose(1, 2)
        # The candidate's word for itself competes with the history's, so it is in the softmax.
        map_BHCU = self.dropout_map(torch.cat((asked_BHCT, own_BHC1), dim=-1).softmax(dim=-1))
        mixed_BHCE = map_BHCU[..., :-1] @ v_BTHE.transpose(1, 2)
        mixed_BHCE = mixed_BHCE + map_BHCU[..., -1:] * own_v_BCHE.transpose(1, 2)
        return self._end(x_BCD, mixed_BHCE.transpose(1, 2))

    def _end(self, x_BSD: Tensor, mixed_BSHE: Tensor) -> Tensor:
        attended_BSD = linear(mixed_BSHE.flatten(start_dim=-2), self.out_weight, self.out_bias)
        z_BSD = layer_norm(layer_norm(x_BSD, _EPSILON) + attended_BSD, _EPSILON)
        hidden_BSF = self.dropout_hidden(relu(linear(z_BSD, self.lin1_weight, self.lin1_bias)))
        out_BSD: Tensor = self.dropout_out(linear(hidden_BSF, self.lin2_weight, self.lin2_bias))
        return z_BSD + out_BSD
