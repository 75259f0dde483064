"""What is wrapped around a backbone: first weights, tokens, and unit vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evaluation.config import MODELS
from evaluation.model import SequenceModel, truncated_normal
from evaluation.sequences import batch
from tests.unit.evaluation.sequence_worlds import sequences, tiny

WORLD = sequences([[7, 3, 9, 4, 5, 1, 2], [2, 8, 6, 1], [4, 4, 5, 6, 7]], candidates=9)


def model(name: str = "fuxi-alpha", **changes: object) -> SequenceModel:
    config = tiny(model=name, **changes)
    return SequenceModel(config, WORLD.num_rows, torch.Generator().manual_seed(4))


def asked(cut: int = 0, width: int | None = None) -> tuple[torch.Tensor, ...]:
    part = batch(WORLD, np.arange(3), cut=cut, longest=6, width=width)
    arrays = part.histories(), part.time_s_BT1, part.length_B
    return tuple(torch.from_numpy(array) for array in arrays)


def test_truncated_normal_stays_within_two_deviations() -> None:
    drawn = truncated_normal((400, 250), 0.02, torch.Generator().manual_seed(1))
    outside = (drawn.abs() > 0.04).float().mean().item()
    assert outside < 5e-5  # one in 230,000 has no draw inside
    # The deviation of a normal cut at two is 0.880 of the whole one's.
    assert drawn.std().item() == pytest.approx(0.02 * 0.880, rel=0.01)


@pytest.mark.parametrize(
    ("name", "deviation"), [("sasrec", 0.880 * math.sqrt(1 / 50)), ("hstu", math.sqrt(2 / 261))]
)
def test_places_begin_as_published(name: str, deviation: float) -> None:
    config = tiny(model=name, width=50, d_qk=50, d_v=50, history_length=200)
    made = SequenceModel(config, WORLD.num_rows, torch.Generator().manual_seed(1))
    assert made.place_ND.shape == (211, 50)
    assert made.place_ND.std().item() == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_padding_up_to_the_container_changes_nothing(name: str) -> None:
    made = model(name, blocks=2).eval()
    narrow, wide = made(*asked()), made(*asked(width=17))
    torch.testing.assert_close(wide[:, : narrow.shape[1]], narrow, atol=1e-6, rtol=1e-5)
    assert (wide[:, narrow.shape[1] :] == 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_newest_is_a_row_of_the_whole(name: str) -> None:
    made = model(name, blocks=2).eval()
    item_BT, time_BU, length_B = asked()
    rows = made(item_BT, time_BU, length_B)[torch.arange(3), length_B - 1]
    torch.testing.assert_close(made.newest(item_BT, time_BU, length_B), rows, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("name", MODELS)
def test_a_place_knows_what_was_and_when_the_next_event_is_but_not_which(name: str) -> None:
    made = model(name, blocks=2).eval()
    item_BT, time_BU, length_B = asked()
    before = made(item_BT, time_BU, length_B)
    other = item_BT.clone()
    other[0, 3:] = 8
    changed = (made(other, time_BU, length_B) - before).abs().sum(-1)
    assert (changed[0, :3] == 0).all()
    assert (changed[0, 3:6] > 0).all()


def test_tokens_are_scaled_item_vectors_plus_places() -> None:
    made = model().eval()
    tokens = made._tokens(torch.tensor([[3, 0]]))
    expected = made.item_VD[3] * math.sqrt(8) + made.place_ND[0]
    torch.testing.assert_close(tokens[0, 0], expected)
    assert (tokens[0, 1] == 0).all()


def test_dropout_acts_on_tokens_while_training_only() -> None:
    made = model(dropout=0.5).train()
    item_BT = torch.full((1, 6), 3)
    share = (made._tokens(item_BT) == 0).float().mean().item()
    assert 0.2 < share < 0.8
    assert (made.eval()._tokens(item_BT) != 0).all()


def test_parameters_are_as_many_as_published() -> None:
    config = tiny(width=50, d_qk=50, d_v=50, history_length=200, blocks=2)
    made = SequenceModel(config, 3_953, torch.Generator().manual_seed(1))
    # FuXi-alpha on MovieLens-1M: raw ids up to 3,952 and the padding.
    assert sum(x.numel() for x in made.parameters()) == 269_400
