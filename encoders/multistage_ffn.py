"""The multi-stage feed-forward network that ends a FuXi block.

Ye et al., "FuXi-alpha: Scaling Recommendation Model with Feature Interaction Enhanced Transformer"
(arXiv 2502.03036), as its authors' code computes it: y = x + Lin0(Dropout(a)), then
y + Lin2(SiLU(Lin1 z) * Lin3 z) with z = Dropout(RMSNorm(y)). Only Lin0 has a bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.dropout import Dropout
from encoders.norms import rms_norm
from encoders.shape import BackboneShape
from encoders.weights import xavier_uniform, zeros


class MultiStageFfn(nn.Module):
    """Brings what attention found back to the block's width, and mixes features with SwiGLU."""

    def __init__(self, inputs: int, shape: BackboneShape, generator: torch.Generator) -> None:
        super().__init__()
        hidden = shape.ffn_multiple * shape.width
        self.lin0_weight = xavier_uniform(shape.width, inputs, generator)
        self.lin0_bias = zeros(shape.width)
        self.lin1_weight = xavier_uniform(hidden, shape.width, generator)
        self.lin3_weight = xavier_uniform(hidden, shape.width, generator)
        self.lin2_weight = xavier_uniform(shape.width, hidden, generator)
        self.dropout_attended = Dropout(shape.dropout, generator)
        self.dropout_mixed = Dropout(shape.dropout, generator)

    def forward(self, x_BSD: Tensor, attended_BSX: Tensor) -> Tensor:
        """Return (B, S, D) from the block's input and what attention made of it."""
        attended_BSX = self.dropout_attended(attended_BSX)
        y_BSD = x_BSD + functional.linear(attended_BSX, self.lin0_weight, self.lin0_bias)
        z_BSD = self.dropout_mixed(rms_norm(y_BSD))
        opened_BSF = functional.silu(functional.linear(z_BSD, self.lin1_weight))
        hidden_BSF = opened_BSF * functional.linear(z_BSD, self.lin3_weight)
        return y_BSD + functional.linear(hidden_BSF, self.lin2_weight)
