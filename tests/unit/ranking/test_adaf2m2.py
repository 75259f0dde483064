"""The state-aware adapter and the masked copies of AdaF2M2."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from domain.errors import ConfigError
from ranking.adaf2m2 import (
    AdaF2M2Config,
    StateAwareAdapter,
    count_signals,
    masked_copies,
    norm_signals,
)

MASKS = AdaF2M2Config(masked_forwards=3)


def fields_and_defaults() -> tuple[torch.Tensor, torch.Tensor]:
    """Four examples of two fields: example m is filled with m + 1, defaults with -1."""
    fields = torch.arange(1.0, 5.0)[:, None, None].expand(4, 2, 3)
    return fields, torch.full((2, 3), -1.0)


@pytest.mark.parametrize(("scale", "weight"), [("sigmoid", 0.5), ("double_sigmoid", 1.0)])
def test_adapter_starts_with_equal_weights(scale: str, weight: float) -> None:
    adapter = StateAwareAdapter(5, 3, scale)  # type: ignore[arg-type]
    torch.testing.assert_close(adapter(torch.randn(7, 5)), torch.full((7, 3), weight))


def test_adapter_weighs_fields_by_state() -> None:
    adapter = StateAwareAdapter(1, 2, "sigmoid")
    with torch.no_grad():
        adapter.linear.weight[:] = torch.tensor([[5.0], [-5.0]])
    known, unknown = adapter(torch.tensor([[1.0], [-1.0]]))
    assert known[0] > 0.99 > 0.01 > known[1]
    assert unknown[1] > 0.99 > 0.01 > unknown[0]


def test_norm_signals_are_bounded_and_block_gradients() -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e20, 0.0]], requires_grad=True)
    signals = norm_signals(rows)
    assert not signals.requires_grad
    assert signals.abs().max() <= 1.0
    root = math.sqrt(5.0)
    expected = [math.log(5.0) / math.log(1e7), root / (1 + root), 25 / 26]
    assert signals[1].tolist() == pytest.approx(expected)
    assert (signals[1] > signals[0]).all()
    assert (signals[2] > signals[1]).all()


def test_count_signals_are_bounded_and_grow() -> None:
    counts = torch.tensor([[0.0, 1.0, 10.0, 1e4, 1e12]]).log1p()
    signals = count_signals(counts)[0]
    assert signals[0] == -1.0
    assert signals[-1] == 1.0
    assert (signals.diff() > 0).all()


def test_masked_copies_stand_beside_their_example() -> None:
    fields, defaults = fields_and_defaults()
    copies = masked_copies(fields, defaults, MASKS, torch.Generator().manual_seed(0))
    assert copies.shape == (12, 2, 3)
    owner = torch.arange(1.0, 5.0).repeat_interleave(3)
    for row, value in zip(copies, owner, strict=True):
        assert set(row.unique().tolist()) <= {-1.0, float(value)}


def test_masked_copies_replace_whole_fields_by_their_default() -> None:
    fields, defaults = fields_and_defaults()
    copies = masked_copies(fields, defaults, MASKS, torch.Generator().manual_seed(0))
    whole = (copies == -1.0).all(dim=2) | (copies != -1.0).all(dim=2)
    assert whole.all()
    assert (copies == -1.0).any()
    assert (copies != -1.0).any()


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_mask_rate_is_kept(rate: float) -> None:
    config = replace(MASKS, mask_rate_min=rate, mask_rate_max=rate)
    fields = torch.ones(4_000, 2, 1)
    copies = masked_copies(fields, torch.zeros(2, 1), config, torch.Generator().manual_seed(0))
    assert float((copies == 0.0).float().mean()) == pytest.approx(rate, abs=0.02)


def test_masks_differ_between_examples_only_when_asked() -> None:
    fields = torch.ones(200, 4, 1)
    for per_example in (True, False):
        config = replace(MASKS, mask_per_example=per_example)
        copies = masked_copies(fields, torch.zeros(4, 1), config, torch.Generator().manual_seed(0))
        same = (copies.reshape(200, 3, 4) == copies.reshape(200, 3, 4)[:1]).all()
        assert bool(same) is not per_example


def test_defaults_learn_from_masked_copies() -> None:
    fields, defaults = fields_and_defaults()
    defaults.requires_grad_()
    masked_copies(fields, defaults, MASKS, torch.Generator().manual_seed(0)).sum().backward()
    assert defaults.grad is not None
    assert defaults.grad.abs().sum() > 0


def test_masks_repeat_with_the_seed() -> None:
    fields, defaults = fields_and_defaults()
    first, second, other = (
        masked_copies(fields, defaults, MASKS, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"scale": "tanh"}, "scale"),
        ({"id_gradient": True}, "id_gradient"),
        ({"masked_forwards": -1}, "masked_forwards"),
        ({"masked_weight": -0.1}, "masked_weight"),
        ({"mask_rate_min": 0.6}, "mask_rate_min"),
        ({"mask_rate_max": 1.1}, "mask_rate_min"),
    ],
)
def test_config_names_the_key_when_out_of_range(values: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.adaf2m2\.{key} "):
        AdaF2M2Config(**values)  # type: ignore[arg-type]
