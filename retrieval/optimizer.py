"""One gradient step over everything that learns, or none at all when a number is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from domain.errors import NonFiniteLossError
from domain.state import State
from retrieval.scorer import Scorer

# As in the trainer FuXi-alpha was published with.
_BETAS = (0.9, 0.98)


class ScorerOptimizer:
    """Adam for dense weights, the tables' own Adagrad for rows."""

    def __init__(self, scorer: Scorer, *, dense_rate: float, prior_rate: float) -> None:
        self._scorer = scorer
        self._named = dict(_named_parameters(scorer))
        weights = list(scorer.weights.parameters())
        dense = list(scorer.dense.parameters())
        self._rates = (prior_rate, dense_rate)
        self._adam = torch.optim.Adam(
            [{"params": weights, "lr": prior_rate}, {"params": dense, "lr": dense_rate}],
            betas=_BETAS,
        )

    def scale_learning_rate(self, factor: float) -> None:
        """Take steps of this many times the configured size from now on, tables included."""
        for group, rate in zip(self._adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        for table in self._scorer.tables:
            table.scale_learning_rate(factor)

    def step(self, loss: Tensor) -> float:
        """Move all weights by the gradient of `loss`, and return its value.

        Raises:
            NonFiniteLossError: loss or a gradient is NaN or infinite; no weight was touched.
        """
        value = float(loss.detach())
        try:
            self._backward(loss, value)
        except NonFiniteLossError:
            for table in self._scorer.tables:
                table.forget()
            raise
        self._adam.step()
        for table in self._scorer.tables:
            table.step()
        return value

    def _backward(self, loss: Tensor, value: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteLossError(f"retrieval: expected a finite loss, got {value}")
        self._adam.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        for name, gradient in self._gradients():
            # A sum of finite numbers that overflows would not have made a sane step either.
            if not math.isfinite(float(gradient.sum())):
                raise NonFiniteLossError(f"retrieval: the gradient of {name} is not finite")

    def _gradients(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self._named.items():
            if parameter.grad is not None:
                yield name, parameter.grad
        for table in self._scorer.tables:
            for gradient in table.gradients():
                yield "a table", gradient

    def save(self) -> State:
        """Return Adam's moments by parameter name; a parameter that never moved has none."""
        moments: State = {}
        for name, parameter in self._named.items():
            held: dict[str, Any] = self._adam.state.get(parameter, {})
            if held:
                moments[name] = {
                    "step": float(held["step"]),
                    "mean": held["exp_avg"].numpy().copy(),
                    "square": held["exp_avg_sq"].numpy().copy(),
                }
        return moments

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._adam.state.clear()
        for name, moments in state.items():
            self._adam.state[self._named[name]] = {
                "step": torch.tensor(moments["step"], dtype=torch.float32),
                "exp_avg": torch.from_numpy(np.array(moments["mean"])),
                "exp_avg_sq": torch.from_numpy(np.array(moments["square"])),
            }


def _named_parameters(scorer: Scorer) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in scorer.weights.named_parameters():
        yield f"prior.{name}", parameter
    for name, parameter in scorer.dense.named_parameters():
        yield f"tower.{name}", parameter
