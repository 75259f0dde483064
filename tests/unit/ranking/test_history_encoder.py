"""What the ranker makes of a backbone: ages instead of times, and places where they are needed."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from domain.errors import ConfigError
from encoders.backbone import Backbone
from encoders.shape import Kind
from ranking.history_encoder import BackboneConfig, CandidateEncoder

LONGEST, WIDTH = 5, 8
KINDS = pytest.mark.parametrize("kind", get_args(Kind))


def encoder(kind: Kind) -> CandidateEncoder:
    config = BackboneConfig(kind=kind, width=WIDTH, heads=2, head_width=4, blocks=2)
    return CandidateEncoder(config, LONGEST, torch.Generator().manual_seed(1)).double()


def world() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return two histories, of 2 and 5 entries, lengths, ages in seconds, and three candidates."""
    generator = torch.Generator().manual_seed(4)
    history = torch.randn(2, LONGEST, WIDTH, generator=generator, dtype=torch.float64)
    ages = torch.tensor([[7.0, 3.0, 0.0, 0.0, 0.0], [90_000.0, 8_000.0, 700.0, 60.0, 5.0]])
    candidates = torch.randn(2, 3, WIDTH, generator=generator, dtype=torch.float64)
    return history, torch.tensor([2, 5]), ages.double(), candidates


@KINDS
def test_ages_are_times_before_the_request(kind: Kind) -> None:
    model, (history, lengths, ages, candidates) = encoder(kind), world()
    times = torch.cat([10.0**6 - ages, torch.full((2, 1), 10.0**6)], dim=1)
    if model.position_ND is not None:
        torch.nn.init.zeros_(model.position_ND)
    with torch.no_grad():
        state = model.backbone.encode(history, times.long(), lengths)
        expected = model.backbone.candidates(candidates, state)
        torch.testing.assert_close(model(history, lengths, ages, candidates), expected)


@KINDS
def test_ages_of_padding_do_not_matter(kind: Kind) -> None:
    model, (history, lengths, ages, candidates) = encoder(kind), world()
    other = ages.clone()
    other[0, 2:] = 1e6
    with torch.no_grad():
        before, after = (model(history, lengths, each, candidates) for each in (ages, other))
    torch.testing.assert_close(before, after, rtol=0, atol=0)


@KINDS
def test_order_of_entries_matters(kind: Kind) -> None:
    model, (history, lengths, ages, candidates) = encoder(kind), world()
    swapped = history.clone()
    swapped[1, 1], swapped[1, 3] = history[1, 3], history[1, 1]
    with torch.no_grad():
        before, after = (model(each, lengths, ages, candidates) for each in (history, swapped))
    torch.testing.assert_close(before[0], after[0])
    assert not torch.allclose(before[1], after[1])


def test_container_holds_the_history_and_one_candidate() -> None:
    (block,) = CandidateEncoder(BackboneConfig(), 20, torch.Generator()).backbone.blocks
    assert block.positions.weight.shape == (41,)


def test_only_sasrec_has_places_of_its_own() -> None:
    owners = [kind for kind in get_args(Kind) if encoder(kind).position_ND is not None]
    assert owners == ["sasrec"]
    assert all(isinstance(encoder(kind).backbone, Backbone) for kind in get_args(Kind))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"kind": "gru"}, "kind"),
        ({"time_function": "cosine"}, "time_function"),
        ({"blocks": -1}, "blocks"),
        ({"width": 0}, "width"),
        ({"heads": 0}, "heads"),
        ({"initial_std": 0.0}, "initial_std"),
    ],
)
def test_config_names_the_key_when_out_of_range(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.backbone\.{key} "):
        BackboneConfig(**values)
