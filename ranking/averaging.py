"""Scoring with the running mean of the weights: what learning circles around, without its noise.

With a constant learning rate the newest weights never settle, they wander around where the stream
pulls them. Their mean over the recent past stands closer to it (Polyak and Juditsky 1992; as an
exponential mean Tarvainen and Valpola 2017). Learning goes on from the newest weights; only scores
are made with the mean.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from domain.errors import ConfigError
from domain.state import State
from domain.state_reading import StateReader

Network = TypeVar("Network", bound=nn.Module)

_LONGEST_SHARE = 0.1
"""The mean reaches back at most this share of all examples learned: early weights were far off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragingConfig:
    """How far back the mean reaches."""

    half_life_examples: float = 9_000.0
    """Examples after which earlier weights count half in the mean; 0 scores with the newest."""

    def __post_init__(self) -> None:
        if not self.half_life_examples >= 0.0:
            raise ConfigError(
                "ranking.averaging.half_life_examples must not be negative, got "
                f"{self.half_life_examples}"
            )


class AveragedWeights(Generic[Network]):
    """A network that scores, its weights the running mean of those of the network that learns."""

    def __init__(self, learning: Network, config: AveragingConfig) -> None:
        self._learning = learning
        self._half_life = config.half_life_examples
        self._speed = 1.0
        self._examples = 0
        self.network = copy.deepcopy(learning) if self._half_life else learning
        """Scores; the learning network itself when nothing is averaged."""

    @property
    def is_off(self) -> bool:
        """Return whether scores are made with the newest weights."""
        return self.network is self._learning

    def scale_learning_rate(self, factor: float) -> None:
        """Follow the learning network this many times as fast from now on."""
        self._speed = factor

    def update(self, num_examples: int) -> None:
        """Take the newest weights into the mean, after a step that learned this many examples."""
        if self.is_off:
            return
        self._examples += num_examples
        reach = min(self._half_life / math.log(2) / self._speed, _LONGEST_SHARE * self._examples)
        share = 1.0 - math.exp(-num_examples / reach)
        with torch.no_grad():
            for mean, newest in zip(
                self.network.parameters(), self._learning.parameters(), strict=True
            ):
                mean.lerp_(newest, share)

    def save(self) -> State:
        """Return the mean by parameter name, none when it is off, and the examples behind it."""
        weights = {} if self.is_off else self.take_delta()
        return {"weights": weights, "examples": self._examples}

    def load(self, state: State) -> None:
        """Become what `save` described; the learning network is loaded apart, before."""
        self._examples = int(state["examples"])
        if not self.is_off:
            self.apply_delta(state["weights"])

    def take_delta(self) -> State:
        """Return all weights by parameter name: they are small, and every step moves them all."""
        return {
            name: parameter.detach().cpu().numpy().copy()
            for name, parameter in self.network.named_parameters()
        }

    def read_delta(self, reader: StateReader) -> dict[str, NDArray[np.float32]]:
        """Check what `take_delta` returned.

        Raises:
            SnapshotError: it is of a network of another shape.
        """
        return {
            name: reader.array(name, np.float32, tuple(parameter.shape))
            for name, parameter in self.network.named_parameters()
        }

    def apply_delta(self, weights: dict[str, NDArray[np.float32]]) -> None:
        """Take weights over."""
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                parameter.copy_(torch.from_numpy(weights[name]))
