"""DCNv2's cross network: explicit products of inputs, one degree more with each layer.

Wang et al., "DCN V2: Improved Deep and Cross Network and Practical Lessons for Web-scale Learning
to Rank Systems" (WWW 2021), equation 1, full matrices, in the parallel form: what it makes of the
inputs stands beside what the feed-forward layers make of them.

Shape legend: M examples, X inputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from encoders.weights import xavier_uniform, zeros


class CrossNetwork(nn.Module):
    """x_{l+1} = x_l + x_0 * (W_l x_l + b_l), with x_0 the inputs."""

    def __init__(self, width: int, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.ParameterList(
            xavier_uniform(width, width, generator) for _ in range(layers)
        )
        self.biases = nn.ParameterList(zeros(width) for _ in range(layers))

    def forward(self, inputs_MX: Tensor) -> Tensor:
        """Return (M, X)."""
        x_MX = inputs_MX
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x_MX = x_MX + inputs_MX * linear(x_MX, weight, bias)
        return x_MX
