"""Features as numbers: values, weights, squashing, and what is missing."""

from __future__ import annotations

import math

import numpy as np
import torch

from domain.features import FeatureSchema, Field
from retrieval.content_tower import ContentTower
from retrieval.feature_coder import FeatureCoder
from retrieval.id_rows import UNKNOWN
from retrieval.row_table import RowTableConfig

SCHEMA = FeatureSchema(
    fields=(
        Field(name="kind", entity="item", kind="categorical"),
        Field(name="tags", entity="item", kind="multi"),
        Field(name="length", entity="item", kind="numeric"),
        Field(name="look", entity="item", kind="dense", size=2),
        Field(name="age", entity="user", kind="numeric"),
    )
)


def coder(max_values: int = 100) -> FeatureCoder:
    return FeatureCoder(SCHEMA, "item", max_multi_values=3, max_values=max_values)


def test_each_field_has_its_place() -> None:
    features = {"kind": "film", "tags": ("a", "b"), "length": -9.0, "look": (0.5, 2.0)}
    coded = coder().code([features], admit=True)
    assert coded.values_RW.tolist() == [[0, 1, 2, UNKNOWN]]
    assert coded.weights_RW.tolist() == [[1.0, 0.5, 0.5, 0.0]]
    np.testing.assert_allclose(coded.numbers_RP, [[-math.log(10.0), 0.5, 2.0]], rtol=1e-6)


def test_missing_and_not_finite_features_contribute_nothing() -> None:
    features = [{}, {"length": math.nan, "look": (math.inf, 1.0)}]
    coded = coder().code(features, admit=True)
    assert (coded.values_RW == UNKNOWN).all()
    assert not coded.weights_RW.any()
    assert coded.numbers_RP.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_absurd_dense_values_are_cut() -> None:
    coded = coder().code([{"look": (1e38, -1e38)}], admit=True)
    assert coded.numbers_RP[0, 1:].tolist() == [10_000.0, -10_000.0]


def test_values_never_seen_are_admitted_only_when_asked() -> None:
    made = coder()
    assert made.code([{"kind": "film"}], admit=False).values_RW[0, 0] == UNKNOWN
    assert made.num_values == 0
    assert made.code([{"kind": "film"}], admit=True).values_RW[0, 0] == 0


def test_values_beyond_the_limit_contribute_nothing() -> None:
    made = coder(max_values=1)
    coded = made.code([{"kind": "film"}, {"kind": "song"}, {"kind": "film"}], admit=True)
    assert coded.values_RW[:, 0].tolist() == [0, UNKNOWN, 0]


def test_same_text_in_two_fields_is_two_values() -> None:
    coded = coder().code([{"kind": "a", "tags": ("a",)}], admit=True)
    assert coded.values_RW[0, 0] != coded.values_RW[0, 1]


def test_content_is_the_weighted_sum_written_by_hand() -> None:
    made = coder()
    table = RowTableConfig(width=2, init_std=1.0, learning_rate=0.1, initial_square=0.0)
    tower = ContentTower(table, made.num_numbers, torch.Generator().manual_seed(0))
    coded = made.code([{"kind": "film", "tags": ("a", "b"), "length": 3.0}, {}], admit=True)
    tower.values.grow(made.num_values)
    got = tower(coded, learning=False).detach()
    value_VD = tower.values.read()
    assert tower.projection_PD is not None
    by_hand = value_VD[0] + (value_VD[1] + value_VD[2]) / 2
    by_hand = by_hand + math.log(4.0) * tower.projection_PD[0].detach()
    np.testing.assert_allclose(got[0].numpy(), by_hand.numpy(), rtol=1e-5)
    assert got[1].tolist() == [0.0, 0.0]
