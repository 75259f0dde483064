"""Dropout that draws from a generator of its own, so that a run can be repeated."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zeroes a share of its input while training and scales up the rest; else does nothing.

    Its seed is drawn from the generator given, but only if anything is ever dropped: weights made
    after it are then the same as without it. Draws on a GPU differ from those on the CPU.
    """

    def __init__(self, rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self._rate = rate
        self._seed = _draw(generator) if rate else 0
        self._generators: dict[torch.device, torch.Generator] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Return what is left of `x`."""
        if not (self.training and self._rate):
            return x
        keep = 1.0 - self._rate
        kept = torch.empty_like(x).bernoulli_(keep, generator=self._generator(x.device))
        return x * kept.div_(keep)

    def reseed(self, seed: int) -> None:
        """Draw from here on as a new one with this seed would."""
        self._seed = seed
        self._generators = {}

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


def reseed_dropout(network: nn.Module, seed: int) -> None:
    """Give every dropout of a network a seed drawn from this one.

    Whoever saves weights between epochs calls it at the start of each: the epoch then draws the
    same whether the run was interrupted before it or not.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, Dropout):
            module.reseed(_draw(generator))


def _draw(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))
