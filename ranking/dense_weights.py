"""The network's dense weights and their Adam state, as plain arrays when asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from domain.state import State


class DenseWeights:
    """Adam over all parameters of a network; everything saved lies on the CPU."""

    def __init__(self, network: nn.Module, learning_rate: float) -> None:
        self._network = network
        self._learning_rate = learning_rate
        self._scale = 1.0
        self._adam = self._new_adam()

    def gradients_are_finite(self) -> bool:
        """Return whether no gradient holds NaN or infinity."""
        # A sum is finite only if every term is; overflow of the sum itself would need gradients
        # that no step could use either.
        return all(bool(torch.isfinite(gradient.sum())) for gradient in self.gradients())

    def gradients(self) -> list[Tensor]:
        """Return the gradients themselves, to be changed in place."""
        return [p.grad for p in self._network.parameters() if p.grad is not None]

    def step(self) -> None:
        """Take one step along the gradients, and forget them."""
        self._adam.step()
        self.forget_gradients()

    def forget_gradients(self) -> None:
        """Drop the gradients without a step."""
        self._adam.zero_grad(set_to_none=True)

    def scale_learning_rate(self, factor: float) -> None:
        """Take steps of this many times the configured size from now on."""
        self._scale = factor
        for group in self._adam.param_groups:
            group["lr"] = self._learning_rate * factor

    def save(self) -> State:
        """Return weights, moments and step counts by parameter name."""
        saved: State = {}
        for name, parameter in self._network.named_parameters():
            entry = {"weight": parameter.detach().cpu().numpy().copy()}
            for key, value in self._adam.state.get(parameter, {}).items():
                entry[key] = value.detach().cpu().numpy().copy()
            saved[name] = entry
        return saved

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._adam = self._new_adam()
        with torch.no_grad():
            for name, parameter in self._network.named_parameters():
                entry = dict(state[name])
                parameter.copy_(torch.from_numpy(entry.pop("weight")))
                if entry:
                    self._adam.state[parameter] = {
                        key: torch.tensor(value, device=parameter.device)
                        for key, value in entry.items()
                    }

    def _new_adam(self) -> torch.optim.Adam:
        rate = self._learning_rate * self._scale
        return torch.optim.Adam(self._network.parameters(), lr=rate, fused=True)
