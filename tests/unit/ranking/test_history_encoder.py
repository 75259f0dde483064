"""What the ranker makes of a backbone: its sizes, places where needed, another time of request."""

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
    """Return two histories, of 2 and 5 entries, lengths, times in seconds, three candidates."""
    generator = torch.Generator().manual_seed(4)
    history = torch.randn(2, LONGEST, WIDTH, generator=generator, dtype=torch.float64)
    times = [[93.0, 97.5, 1e5, 1e5, 1e5, 1e5], [1e4, 9.2e4, 9.93e4, 99_940.0, 99_995.0, 1e5]]
    candidates = torch.randn(2, 3, WIDTH, generator=generator, dtype=torch.float64)
    return history, torch.tensor([2, 5]), torch.tensor(times).double(), candidates


@KINDS
def test_history_moves_to_another_time_of_request(kind: Kind) -> None:
    model, (history, lengths, times, candidates) = encoder(kind), world()
    later = times.scatter(1, lengths[:, None], 2e5)
    with torch.no_grad():
        state = model.moved(model.encode(history, lengths, times), 2e5)
        expected = model(history, lengths, later, candidates)
        torch.testing.assert_close(model.candidates(candidates, state), expected)


@KINDS
def test_order_of_entries_matters(kind: Kind) -> None:
    model, (history, lengths, times, candidates) = encoder(kind), world()
    swapped = history.clone()
    swapped[1, 1], swapped[1, 3] = history[1, 3], history[1, 1]
    with torch.no_grad():
        before, after = (model(each, lengths, times, candidates) for each in (history, swapped))
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
