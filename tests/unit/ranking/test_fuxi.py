"""FuXi for candidates equals one sequence per candidate, and nobody sees what they may not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from domain.errors import ConfigError
from ranking.fuxi import FuxiConfig, FuxiEncoder, time_bucket

HISTORY_LENGTH = 6
CONFIG = FuxiConfig(width=8, heads=2, head_width=4, blocks=2, ffn_multiplier=2)


def encoder(config: FuxiConfig = CONFIG) -> FuxiEncoder:
    made = FuxiEncoder(config, HISTORY_LENGTH, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in made.parameters():
            # Published initial values are so small that mistakes would hide in rounding.
            parameter.mul_(10.0 if parameter.dim() == 1 else 3.0)
    return made


def naive(
    model: FuxiEncoder, history_TD: Tensor, ages_s_T: Tensor, candidates_CD: Tensor
) -> Tensor:
    """Append each candidate alone to the history, encode the whole sequence, take its last row."""
    rows = []
    times = torch.cat([-ages_s_T, ages_s_T.new_zeros(1)])
    following = torch.cat([times[1:], times[-1:]])
    buckets = time_bucket(following[:, None] - times[None, :])
    for candidate in candidates_CD:
        x = torch.cat([history_TD, candidate[None]])[None]
        for block in model.blocks:
            x = block(x, buckets[None])
        rows.append(x[0, -1])
    return torch.stack(rows)


def world(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return histories of 0, 1, 4 and 6 entries, their lengths, ages and five candidates each."""
    generator = torch.Generator().manual_seed(seed)
    history = torch.randn(4, HISTORY_LENGTH, 8, generator=generator)
    ages = torch.rand(4, HISTORY_LENGTH, generator=generator).mul(12).exp()
    ages = ages.sort(dim=1, descending=True).values
    lengths = torch.tensor([0, 1, 4, 6])
    padding = torch.arange(HISTORY_LENGTH)[None] >= lengths[:, None]
    return (
        history.masked_fill(padding[..., None], 7.0),
        lengths,
        ages.masked_fill(padding, 0.0),
        torch.randn(4, 5, 8, generator=generator),
    )


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_candidates_equal_one_sequence_per_candidate(blocks: int) -> None:
    """In double precision, so that rounding cannot hide (or be taken for) a mistake."""
    model = encoder(FuxiConfig(width=8, heads=2, head_width=4, blocks=blocks)).double()
    history, lengths, ages, candidates = world()
    history, ages, candidates = history.double(), ages.double(), candidates.double()
    with torch.no_grad():
        fast = model(history, lengths, ages, candidates)
        for b, length in enumerate(lengths.tolist()):
            slow = naive(model, history[b, :length], ages[b, :length], candidates[b])
            torch.testing.assert_close(fast[b], slow, atol=1e-10, rtol=1e-10)


def test_candidates_do_not_see_each_other() -> None:
    model = encoder()
    history, lengths, ages, candidates = world()
    with torch.no_grad():
        before = model(history, lengths, ages, candidates)
        changed = candidates.clone()
        changed[:, 1:] += 100.0
        after = model(history, lengths, ages, changed)
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 1], after[:, 1])


def test_padding_is_never_read() -> None:
    model = encoder()
    history, lengths, ages, candidates = world()
    padding = torch.arange(HISTORY_LENGTH)[None] >= lengths[:, None]
    with torch.no_grad():
        before = model(history, lengths, ages, candidates)
        other = model(
            history.masked_fill(padding[..., None], -1e3),
            lengths,
            ages.masked_fill(padding, 1e6),
            candidates,
        )
    torch.testing.assert_close(before, other)


def test_every_real_entry_matters_to_the_candidates() -> None:
    model = encoder()
    history, lengths, ages, candidates = world()
    with torch.no_grad():
        before = model(history, lengths, ages, candidates)
        for place in range(4):
            changed = history.clone()
            changed[2, place] += 1.0
            after = model(changed, lengths, ages, candidates)
            assert not torch.allclose(before[2], after[2])
            torch.testing.assert_close(before[3], after[3])


def test_ages_matter_beyond_their_order() -> None:
    model = encoder()
    history, lengths, ages, candidates = world()
    with torch.no_grad():
        before = model(history, lengths, ages, candidates)
        after = model(history, lengths, ages * 10, candidates)
    assert not torch.allclose(before[3], after[3])


def test_block_rows_do_not_depend_on_later_rows() -> None:
    block = encoder().blocks[0]
    history, _, ages, _ = world()
    buckets = time_bucket(ages[:, None, :] - ages[:, :, None])
    with torch.no_grad():
        before = block(history, buckets)
        changed = history.clone()
        changed[:, 4:] *= -2.0
        after = block(changed, buckets)
    torch.testing.assert_close(before[:, :4], after[:, :4])


def test_gradients_reach_every_parameter() -> None:
    model = encoder()
    history, lengths, ages, candidates = world()
    model(history, lengths, ages, candidates).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"blocks": -1}, "blocks"),
        ({"width": 0}, "width"),
        ({"heads": 0}, "heads"),
        ({"initial_std": 0.0}, "initial_std"),
    ],
)
def test_config_names_the_key_when_out_of_range(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.fuxi\.{key} "):
        FuxiConfig(**values)
