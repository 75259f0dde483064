"""FuXi-beta's functions of a time gap, against their formulas written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import nn

from encoders.shape import TimeFunctionName
from encoders.time_function import time_function

GAPS = [-30.0, 0.0, 1.0, 60.0, 86_400.0]


def plain(values: dict[str, float]) -> dict[str, Callable[[float], float]]:
    """Return each function of one gap with plain numbers for weights."""
    a, b, c, d = (values.get(name, 0.0) for name in "abcd")
    log_b = values.get("log_b", 0.0)
    return {
        "pow": lambda gap: a * (max(gap, 0.0) + 1.0) ** -b,
        "exp": lambda gap: a * math.exp(-math.exp(b) * max(gap, 0.0)),
        "linear": lambda gap: a * gap + b,
        "log": lambda gap: a * math.log(1.0 + math.exp(log_b) * max(gap, 0.0)) + c,
        "sin": lambda gap: c * math.sin(a * gap + b) + d,
        "zero": lambda gap: 0.0,
    }


@pytest.mark.parametrize("name", ["pow", "exp", "linear", "log", "sin", "zero"])
def test_function_is_its_formula(name: TimeFunctionName) -> None:
    function = time_function(name, torch.Generator().manual_seed(2)).double()
    values = {key: float(value) for key, value in function.state_dict().items()}
    expected = [plain(values)[name](gap) for gap in GAPS]
    assert function(torch.tensor(GAPS).double()).tolist() == pytest.approx(expected)


def test_mixed_is_the_mean_of_its_five_parts() -> None:
    function = time_function("mixed", torch.Generator().manual_seed(2))
    parts = [part(torch.tensor(GAPS)) for part in function.parts]  # type: ignore[union-attr]
    assert len(parts) == 5
    torch.testing.assert_close(function(torch.tensor(GAPS)), sum(parts) / 5)


def test_network_acts_on_each_gap_alone() -> None:
    function = time_function("nn", torch.Generator().manual_seed(2))
    gaps = torch.tensor(GAPS)
    alone = torch.stack([function(gap) for gap in gaps])
    torch.testing.assert_close(function(gaps.reshape(1, 5, 1)).flatten(), alone)
    assert len(set(alone.tolist())) == 5


@pytest.mark.parametrize("name", get_args(TimeFunctionName))
def test_first_weights_follow_the_generator(name: TimeFunctionName) -> None:
    first, twin, other = (
        nn.utils.parameters_to_vector(
            [torch.zeros(1), *time_function(name, torch.Generator().manual_seed(seed)).parameters()]
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, twin)
    assert torch.equal(first, other) is (name == "zero")


@pytest.mark.parametrize(
    ("name", "key", "low", "high"),
    [
        ("pow", "a", -0.2, 0.2),
        ("pow", "b", 0.4, 0.8),
        ("exp", "a", -0.2, 0.2),
        ("exp", "b", -2.0, 0.0),
        ("linear", "a", -0.01, 0.01),
        ("linear", "b", -0.2, 0.2),
        ("log", "a", -0.01, 0.01),
        ("log", "log_b", math.log(0.5), 0.0),
        ("log", "c", -0.05, 0.05),
        ("sin", "a", -0.02, 0.02),
        ("sin", "b", -math.pi, math.pi),
        ("sin", "c", -2.0, 2.0),
    ],
)
def test_first_weights_fill_their_range(
    name: TimeFunctionName, key: str, low: float, high: float
) -> None:
    drawn = [
        float(time_function(name, torch.Generator().manual_seed(seed)).state_dict()[key])
        for seed in range(60)
    ]
    middle, span = (low + high) / 2, high - low
    assert low <= min(drawn) < middle - span / 4
    assert middle + span / 4 < max(drawn) <= high
