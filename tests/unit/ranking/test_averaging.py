"""The mean of the weights: against the sum written out, at the start, switched off, saved."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from domain.errors import ConfigError
from domain.state_reading import StateReader
from ranking.averaging import AveragedWeights, AveragingConfig


def _network(value: float = 0.0) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def _weight(network: nn.Module) -> float:
    return float(next(network.parameters()).detach())


def test_mean_is_the_fading_sum_written_out() -> None:
    learning = _network()
    averaged = AveragedWeights(learning, AveragingConfig(half_life_examples=100.0))
    mean = 0.0
    for step in range(1, 60):
        nn.init.constant_(learning.weight, float(step))
        averaged.update(50)
        reach = min(100.0 / math.log(2), 0.1 * 50 * step)
        mean += (1 - math.exp(-50 / reach)) * (step - mean)
    assert _weight(averaged.network) == pytest.approx(mean, rel=1e-5)
    # Long after the start, 100 examples are two steps: the mean lags by the weights of those.
    assert _weight(averaged.network) == pytest.approx(59 - 2.41, abs=0.02)


def test_early_mean_follows_at_once() -> None:
    learning = _network(1.0)
    averaged = AveragedWeights(learning, AveragingConfig())
    nn.init.constant_(learning.weight, 2.0)
    averaged.update(10)
    assert _weight(averaged.network) == pytest.approx(2.0, abs=1e-3)


def test_faster_learning_is_followed_faster() -> None:
    means = []
    for factor in (1.0, 4.0):
        learning = _network(0.0)
        averaged = AveragedWeights(learning, AveragingConfig(half_life_examples=1_000.0))
        averaged.update(1_000_000)
        averaged.scale_learning_rate(factor)
        nn.init.constant_(learning.weight, 1.0)
        averaged.update(250)
        means.append(_weight(averaged.network))
    assert means == pytest.approx([1 - 0.5**0.25, 0.5], abs=1e-4)


def test_without_a_half_life_the_newest_weights_score() -> None:
    learning = _network(1.0)
    averaged = AveragedWeights(learning, AveragingConfig(half_life_examples=0.0))
    averaged.update(10)
    assert averaged.is_off
    assert averaged.network is learning


def test_saved_mean_goes_on_as_if_nothing_had_happened() -> None:
    nets = [_network(1.0), _network(1.0)]
    first, second = (AveragedWeights(net, AveragingConfig(half_life_examples=40.0)) for net in nets)
    for value in (3.0, 5.0):
        nn.init.constant_(nets[0].weight, value)
        first.update(10)
    second.load(first.save())
    for net, averaged in zip(nets, (first, second), strict=True):
        nn.init.constant_(net.weight, 9.0)
        averaged.update(10)
    assert _weight(first.network) == _weight(second.network)


def test_delta_carries_the_mean_and_not_the_newest_weights() -> None:
    nets = [_network(1.0), _network(0.0)]
    first, second = (AveragedWeights(net, AveragingConfig()) for net in nets)
    first.update(1_000)
    nn.init.constant_(nets[0].weight, 7.0)
    first.update(1)
    delta = StateReader(first.take_delta(), "dense")
    second.apply_delta(second.read_delta(delta))
    assert 1.0 < _weight(first.network) < 7.0
    np.testing.assert_array_equal(
        *(next(each.network.parameters()).detach().numpy() for each in (first, second))
    )
    assert torch.equal(nets[1].weight.detach(), torch.zeros(1, 1))


def test_config_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"^ranking\.averaging\.half_life_examples must not be"):
        AveragingConfig(half_life_examples=-1.0)
