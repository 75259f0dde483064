"""Conditions as bitmaps: the same rows as asking every item, however the columns came about."""

from __future__ import annotations

import numpy as np
import pytest

from domain.events import Features
from domain.features import FeatureSchema, Field
from domain.filters import ItemCondition
from domain.state import state_hash
from retrieval.item_columns import ItemColumns
from retrieval.text_column import TextColumn

SCHEMA = FeatureSchema(
    fields=(
        Field(name="colour", entity="item", kind="categorical"),
        Field(name="tags", entity="item", kind="multi"),
        Field(name="price", entity="item", kind="numeric"),
        Field(name="look", entity="item", kind="dense", size=1),
    )
)
CONDITIONS = [
    ItemCondition(negated=negated, **test)
    for negated in (False, True)
    for test in (
        {"feature": "colour", "one_of": frozenset({"red"})},
        {"feature": "colour", "one_of": frozenset({"blue", "never seen"})},
        {"feature": "tags", "one_of": frozenset({"t1", "t3"})},
        {"feature": "price", "at_least": 2.0, "at_most": 5.0},
        {"feature": "price", "at_least": 5.0},
        {"feature": "price", "at_most": -1.0},
        {"feature": "price", "one_of": frozenset({"2.0"})},
        {"feature": "colour", "at_least": 0.0},
        {"feature": "look", "at_least": 0.0},
        {"feature": "not declared", "one_of": frozenset({"red"})},
    )
]


def some_features(rng: np.random.Generator) -> Features:
    features: Features = {
        "colour": str(rng.choice(["red", "blue", "green"])),
        "tags": tuple(f"t{k}" for k in np.flatnonzero(rng.random(5) < 0.3)),
        "price": float(rng.integers(-2, 8)),
        "look": (1.0,),
    }
    return {name: value for name, value in features.items() if rng.random() < 0.8}


def agree(columns: ItemColumns, features: list[Features]) -> None:
    for condition in CONDITIONS:
        expected = [condition.met_by(one) for one in features]
        assert columns.meeting(condition).tolist() == expected, condition


@pytest.mark.parametrize("seed", range(3))
def test_bitmaps_say_what_asking_every_item_says_while_items_change(seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns, features = ItemColumns(SCHEMA), []
    agree(columns, features)
    for _ in range(40):
        step = rng.integers(4)
        if step == 0 or not features:
            features += [{} for _ in range(int(rng.integers(1, 40)))]
            columns.grow(len(features))
        elif step == 1:
            rows = rng.permutation(len(features))[:5]
            columns.reset(rows)
            for row in rows.tolist():
                features[row] = {}
        else:
            for row in rng.integers(len(features), size=20).tolist():
                features[row] = some_features(rng)
                columns.describe(row, features[row])
        agree(columns, features)
    restored = ItemColumns(SCHEMA)
    restored.load(columns.save())
    agree(restored, features)
    assert state_hash(restored.save()) == state_hash(columns.save())


def test_columns_described_in_another_order_save_the_same() -> None:
    there, back = ItemColumns(SCHEMA), ItemColumns(SCHEMA)
    features = [some_features(np.random.default_rng(k)) for k in range(20)]
    for columns, rows in ((there, range(20)), (back, reversed(range(20)))):
        columns.grow(20)
        for row in rows:
            columns.describe(row, {"colour": "to be replaced"})
            columns.describe(row, features[row])
    assert state_hash(there.save()) == state_hash(back.save())


def test_delta_makes_a_twin_equal_and_holds_only_what_changed() -> None:
    rng = np.random.default_rng(0)
    columns, twin = ItemColumns(SCHEMA), ItemColumns(SCHEMA)
    columns.grow(30)
    for row in range(30):
        columns.describe(row, some_features(rng))
    twin.load(columns.save())
    columns.take_delta()
    assert all(twin.meeting(one).shape == (30,) for one in CONDITIONS)
    columns.grow(33)
    for row in (4, 31, 32):
        columns.describe(row, some_features(rng))
    columns.reset(np.array([7]))
    delta = columns.take_delta()
    assert delta["rows"].tolist() == [4, 7, 31, 32]
    twin.apply_delta(delta, 33)
    assert state_hash(twin.save()) == state_hash(columns.save())
    for condition in CONDITIONS:
        np.testing.assert_array_equal(twin.meeting(condition), columns.meeting(condition))
    assert columns.take_delta()["rows"].tolist() == []


def test_texts_that_nobody_has_any_more_are_forgotten() -> None:
    column = TextColumn()
    column.grow(10)
    for step in range(5_000):
        column.set(step % 10, (f"title {step}", "shared"))
    assert column.num_codes < 400
    assert column.having({"shared"})[:10].all()
    assert not column.having({"title 7"}).any()
    assert column.having({"title 4997"})[:10].tolist() == [k == 7 for k in range(10)]


def test_many_conditions_are_forgotten_and_answered_all_the_same() -> None:
    columns = ItemColumns(SCHEMA)
    columns.grow(200)
    for row in range(200):
        columns.describe(row, {"colour": f"c{row}"})
    for _ in range(2):
        for row in range(200):
            condition = ItemCondition(feature="colour", one_of=frozenset({f"c{row}"}))
            assert np.flatnonzero(columns.meeting(condition)).tolist() == [row]
