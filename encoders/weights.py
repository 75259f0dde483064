"""New weights of the usual kinds, drawn from a generator that is named."""

from __future__ import annotations

import torch
from torch import nn


def xavier_uniform(outputs: int, inputs: int, generator: torch.Generator) -> nn.Parameter:
    """Return a weight (outputs, inputs), uniform within sqrt(6 / (outputs + inputs))."""
    weight = torch.empty(outputs, inputs)
    return nn.Parameter(nn.init.xavier_uniform_(weight, generator=generator))


def xavier_normal(outputs: int, inputs: int, generator: torch.Generator) -> nn.Parameter:
    """Return a weight (outputs, inputs), normal with variance 2 / (outputs + inputs)."""
    weight = torch.empty(outputs, inputs)
    return nn.Parameter(nn.init.xavier_normal_(weight, generator=generator))


def normal(size: tuple[int, ...], std: float, generator: torch.Generator) -> nn.Parameter:
    """Return a normally distributed weight."""
    return nn.Parameter(torch.empty(size).normal_(0.0, std, generator=generator))


def zeros(size: int) -> nn.Parameter:
    """Return a weight, as a rule a bias, that starts at nothing."""
    return nn.Parameter(torch.zeros(size))
