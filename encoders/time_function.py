"""FuXi-beta's weight of a time gap: a function of a few learned numbers instead of a table.

"FuXi-beta: Towards a Lightweight and Fast Large-Scale Generative Recommendation Model" (arXiv
2508.10615), as its authors' code computes it. With r = max(gap, 0) in seconds:

    pow      a (r + 1)^(-b)
    exp      a exp(-e^b r)
    linear   a gap + b
    log      a ln(1 + b r) + c; b is kept positive by learning its logarithm
    sin      c sin(a gap + b) + d
    mixed    the mean of those five
    nn       Linear(1, 5), sine, Linear(5, 5), SiLU, Linear(5, 1), on the gap as it is
    zero     nothing
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.shape import TimeFunctionName

_HIDDEN = 5


class TimeFunction(nn.Module, ABC):
    """A learned function of time gaps, element by element."""

    @abstractmethod
    def weigh(self, gap_s: Tensor) -> Tensor:
        """Return the weight of each gap; same shape."""

    def forward(self, gap_s: Tensor) -> Tensor:
        """Return the weight of each gap in seconds, of the weights' own precision."""
        return self.weigh(gap_s)


class Power(TimeFunction):
    """a (r + 1)^(-b)."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.a = _uniform(-0.2, 0.2, generator)
        self.b = _uniform(0.4, 0.8, generator)

    def weigh(self, gap_s: Tensor) -> Tensor:
        """Return the weight of each gap."""
        return self.a * (gap_s.clamp(min=0) + 1).pow(-self.b)


class Exponential(TimeFunction):
    """a exp(-e^b r)."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.a = _uniform(-0.2, 0.2, generator)
        self.b = _uniform(-2.0, 0.0, generator)

    def weigh(self, gap_s: Tensor) -> Tensor:
        """Return the weight of each gap."""
        return self.a * torch.exp(-self.b.exp() * gap_s.clamp(min=0))


class Linear(TimeFunction):
    """a gap + b."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.a = _uniform(-0.01, 0.01, generator)
        self.b = _uniform(-0.2, 0.2, generator)

    def weigh(self, gap_s: Tensor) -> Tensor:
        """Return the weight of each gap."""
        return self.a * gap_s + self.b


class Logarithm(TimeFunction):
    """a ln(1 + b r) + c."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.a = _uniform(-0.01, 0.01, generator)
        self.log_b = nn.Parameter(_uniform(0.5, 1.0, generator).detach().log())
        self.c = _uniform(-0.05, 0.05, generator)

    def weigh(self, gap_s: Tensor) -> Tensor:
        """Return the weight of each gap."""
        return self.a * torch.log1p(self.log_b.exp() * gap_s.clamp(min=0)) + self.c


class Sine(TimeFunction):
    """c sin(a gap + b) + d."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.a = _uniform(-0.02, 0.02, generator)
        self.b = _uniform(-math.pi, math.pi, generator)
        self.c = _uniform(-2.0, 2.0, generator)
        self.d = nn.Parameter(torch.zeros(()))

    def weigh(self, gap_s: Tensor) -> Tensor:
        """Return the weight of each gap."""
        return self.c * torch.sin(self.a * gap_s + self.b) + self.d


class Mixed(TimeFunction):
    """The mean of the five others."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        kinds = (Power, Exponential, Linear, Logarithm, Sine)
        self.parts = nn.ModuleList(kind(generator) for kind in kinds)

    def weigh(self, gap_s: Tensor) -> Tensor:
        """Return the weight of each gap."""
        return torch.stack([part(gap_s) for part in self.parts]).mean(dim=0)


class SmallNetwork(TimeFunction):
    """Three linear layers on the gap as it is; weights start as torch's own would."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        sizes = ((_HIDDEN, 1), (_HIDDEN, _HIDDEN), (1, _HIDDEN))
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for outputs, inputs in sizes:
            bound = 1.0 / math.sqrt(inputs)
            self.weights.append(_uniform(-bound, bound, generator, (outputs, inputs)))
            self.biases.append(_uniform(-bound, bound, generator, (outputs,)))

    def weigh(self, gap_s: Tensor) -> Tensor:
        """Return the weight of each gap."""
        first, second, third = zip(self.weights, self.biases, strict=True)
        hidden = torch.sin(functional.linear(gap_s.unsqueeze(-1), *first))
        hidden = functional.silu(functional.linear(hidden, *second))
        return functional.linear(hidden, *third).squeeze(-1)


class Zero(TimeFunction):
    """Nothing: the time of an event is of no account."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()

    def weigh(self, gap_s: Tensor) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(gap_s)


_FUNCTIONS: dict[TimeFunctionName, type[TimeFunction]] = {
    "pow": Power,
    "exp": Exponential,
    "linear": Linear,
    "log": Logarithm,
    "sin": Sine,
    "mixed": Mixed,
    "nn": SmallNetwork,
    "zero": Zero,
}


def time_function(name: TimeFunctionName, generator: torch.Generator) -> TimeFunction:
    """Make a function by its name."""
    return _FUNCTIONS[name](generator)


def _uniform(
    low: float, high: float, generator: torch.Generator, size: tuple[int, ...] = ()
) -> nn.Parameter:
    return nn.Parameter(torch.empty(size).uniform_(low, high, generator=generator))
