"""Dropout: the share it drops, what is left, and that draws repeat."""

from __future__ import annotations

import pytest
import torch

from encoders.dropout import Dropout


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_share_is_dropped_and_the_mean_stays() -> None:
    out = Dropout(0.2, generator())(torch.ones(100, 1_000))
    assert float((out == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(out.mean()) == pytest.approx(1.0, abs=0.01)
    assert sorted(set(out.flatten().tolist())) == pytest.approx([0.0, 1.25])


def test_nothing_happens_at_rate_zero_or_when_not_training() -> None:
    x = torch.ones(3)
    assert Dropout(0.0, generator())(x) is x
    assert Dropout(0.5, generator()).eval()(x) is x


def test_draws_follow_the_generator_given_and_no_global_one() -> None:
    x = torch.ones(1_000)
    first, twin, other = (Dropout(0.5, generator(seed)) for seed in (1, 1, 2))
    state = torch.random.get_rng_state()
    assert torch.equal(first(x), twin(x))
    assert torch.equal(first(x), twin(x))
    assert not torch.equal(first(x), other(x))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_rate_zero_takes_nothing_from_the_generator() -> None:
    used = generator()
    Dropout(0.0, used)
    assert torch.equal(used.get_state(), generator().get_state())
