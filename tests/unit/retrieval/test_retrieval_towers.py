"""Towers: what a query may depend on, cold items, and users nothing is known of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from domain.errors import ConfigError
from domain.features import FeatureSchema, Field
from domain.requests import UserView
from retrieval.id_rows import IdRows
from retrieval.item_tower import ItemTower
from retrieval.query_tower import QueryTower
from retrieval.tower_config import TowerConfig
from retrieval.user_batch import UserBatch, encode_users

SCHEMA = FeatureSchema(
    fields=(
        Field(name="kind", entity="item", kind="categorical"),
        Field(name="country", entity="user", kind="categorical"),
    )
)
ITEMS = [f"i{k}" for k in range(6)]


def config(encoder: str = "fuxi") -> TowerConfig:
    return TowerConfig(width=4, encoder=encoder, max_history=3)  # type: ignore[arg-type]


@pytest.fixture
def ids() -> IdRows:
    made = IdRows()
    for item_id in ITEMS:
        made.admit(item_id)
    return made


def encode(ids: IdRows, users: Sequence[UserView], time_ms: int = 10**6) -> UserBatch:
    return encode_users(users, [time_ms] * len(users), ids, max_history=3, num_recent=2)


def queries(encoder: str, batch: UserBatch, users: Sequence[UserView]) -> torch.Tensor:
    tower = QueryTower(SCHEMA, config(encoder), torch.Generator().manual_seed(0))
    tower.admit([{"country": "fr"}])
    vectors_ND = torch.sin(torch.arange(24.0)).view(6, 4)
    items_BTD = vectors_ND[torch.from_numpy(np.maximum(batch.history_BT, 0))]
    return tower(batch, [user.features for user in users], items_BTD).detach()


def test_history_keeps_the_newest_positive_known_items(ids: IdRows, view) -> None:
    user = view("u", ["i0", "i1", "gone", "i2", "i3", "i4"], outcomes=[1, 1, 1, 0, 2, 3])
    batch = encode(ids, [user])
    assert batch.history_BT.tolist() == [[0, 1, 4]]
    assert batch.seconds_BU.tolist() == [[0, 60, 300, 1_000]]
    assert batch.recent_BK.tolist() == [[4, 1]]
    assert batch.used_row.tolist() == [0, 1, 2, 3, 4]


def test_shorter_histories_are_padded_at_the_end_with_the_request_time(ids: IdRows, view) -> None:
    batch = encode(ids, [view("u", ["i5"]), view("v", ["i1", "i2"]), view("w")])
    assert batch.history_BT.tolist() == [[5, -1], [1, 2], [-1, -1]]
    assert batch.seconds_BU[0].tolist() == [0, 1_000, 1_000]
    assert batch.recent_BK.tolist() == [[5, -1], [2, 1], [-1, -1]]


@pytest.mark.parametrize("encoder", ["fuxi", "mean"])
def test_query_of_a_user_nothing_is_known_of_is_zero(ids: IdRows, view, encoder: str) -> None:
    users = [view("new"), view("old", ["i1", "i2"])]
    query_BD = queries(encoder, encode(ids, users), users)
    assert query_BD[0].tolist() == [0.0] * 4
    assert query_BD[1].abs().sum() > 0
    alone = queries(encoder, encode(ids, users[:1]), users[:1])
    assert alone.tolist() == [[0.0] * 4]


@pytest.mark.parametrize("encoder", ["fuxi", "mean"])
def test_query_does_not_depend_on_the_rest_of_the_batch(ids: IdRows, view, encoder: str) -> None:
    users = [view("u", ["i1"]), view("v", ["i2", "i3", "i4"]), view("w", ["i5", "i0"])]
    together = queries(encoder, encode(ids, users), users)
    for b, user in enumerate(users):
        alone = queries(encoder, encode(ids, [user]), [user])
        np.testing.assert_allclose(alone[0].numpy(), together[b].numpy(), atol=1e-6)


def test_user_features_move_the_query_and_unknown_values_do_not(ids: IdRows, view) -> None:
    plain, french, martian = (
        view("u", ["i1"], features=features)
        for features in ({}, {"country": "fr"}, {"country": "mars"})
    )
    users = [plain, french, martian]
    query_BD = queries("fuxi", encode(ids, users), users)
    assert (query_BD[0] != query_BD[1]).any()
    assert torch.equal(query_BD[0], query_BD[2])


def test_fuxi_reads_the_order_and_the_time_of_the_request(ids: IdRows, view) -> None:
    user, other = view("u", ["i1", "i2"]), view("u", ["i2", "i1"])
    now = queries("fuxi", encode(ids, [user]), [user])
    later = queries("fuxi", encode(ids, [user], time_ms=10**9), [user])
    swapped = queries("fuxi", encode(ids, [other]), [other])
    assert (now != later).any()
    assert (now - swapped).abs().max() > 1e-3


def test_mean_is_the_mean_of_the_item_vectors(ids: IdRows, view) -> None:
    user = view("u", ["i1", "i2"])
    vectors_ND = torch.sin(torch.arange(24.0)).view(6, 4)
    query_BD = queries("mean", encode(ids, [user]), [user])
    np.testing.assert_allclose(query_BD[0], (vectors_ND[1] + vectors_ND[2]) / 2, atol=1e-6)


def test_items_of_one_kind_share_the_part_of_their_vector_that_is_content() -> None:
    tower = ItemTower(SCHEMA, config(), torch.Generator().manual_seed(0))
    tower.grow(3)
    for row, kind in enumerate(["film", "film", "song"]):
        tower.describe(row, {"kind": kind})
    content_RD = (tower.embed(None).vectors_RD - tower.ids.read()).detach()
    assert torch.allclose(content_RD[0], content_RD[1], atol=1e-7)
    assert not torch.allclose(content_RD[0], content_RD[2], atol=1e-3)


def test_chosen_rows_embed_as_all_rows_do() -> None:
    tower = ItemTower(SCHEMA, config(), torch.Generator().manual_seed(0))
    tower.grow(4)
    tower.describe(2, {"kind": "film"})
    everything, chosen = tower.embed(None), tower.embed(np.array([2, 0]))
    assert torch.equal(chosen.vectors_RD, everything.vectors_RD[[2, 0]])
    assert torch.equal(chosen.bias_R, everything.bias_R[[2, 0]])


def test_item_described_anew_forgets_its_old_features() -> None:
    tower = ItemTower(SCHEMA, config(), torch.Generator().manual_seed(0))
    tower.grow(1)
    tower.describe(0, {"kind": "film"})
    tower.describe(0, {})
    assert torch.equal(tower.embed(None).vectors_RD, tower.ids.read())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "rnn"}, "retrieval.tower.encoder must be"),
        ({"width": 0}, "retrieval.tower.width must be positive, got 0"),
        ({"width": 10, "num_heads": 3}, "retrieval.tower.num_heads must divide width 10, got 3"),
        ({"id_init_std": -1.0}, "retrieval.tower.id_init_std must not be negative, got -1.0"),
    ],
)
def test_tower_config_names_the_key_that_is_wrong(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TowerConfig(**settings)  # type: ignore[arg-type]
