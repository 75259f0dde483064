"""What a captured request holds, field by field."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domain.errors import ConfigError, SchemaError
from domain.features import FeatureSchema, Field
from domain.requests import History, RankingRequest, UserView
from ranking.counters import CounterConfig, LabelCounters
from ranking.feature_encoder import EncoderConfig, FeatureEncoder
from ranking.field_layout import layout_of
from ranking.hashing import FieldHasher

MINUTE_MS = 60_000
SCHEMA = FeatureSchema(
    fields=(
        Field(name="country", entity="user", kind="categorical"),
        Field(name="age", entity="user", kind="numeric"),
        Field(name="tab", entity="context", kind="categorical", counted=True),
        Field(name="author", entity="item", kind="categorical", counted=True),
        Field(name="tags", entity="item", kind="multi", counted=True),
        Field(name="price", entity="item", kind="numeric"),
        Field(name="image", entity="item", kind="dense", size=2),
    ),
    counted_pairs=(("user", "tags"),),
)
CONFIG = EncoderConfig(history_length=3, max_values=2, last_outcomes=2)
TERMS = ("user", "item", "tab", "author", "tags", "user x tags")
WIDTH = 3  # one head: log-odds, log count, recent log-odds
SIGNALS = 2 + 1  # per item: log count, log age, one outcome

USER = UserView(
    user_id="u1",
    history=History(
        item_ids=("i7", "i8", "i9", "i8"),
        times_ms=np.array([1, 2, 3, 4]) * MINUTE_MS,
        outcomes=np.array([1, 0, 1, 1]),
    ),
    features={"country": "nz", "age": 30.0},
    last_impression_ms=5 * MINUTE_MS,
    session_position=2,
)
ITEM = {"author": "a1", "tags": ("x", "y", "z"), "price": -3.0, "image": (0.5, 0.25)}
REQUEST = RankingRequest(
    user=USER,
    item_ids=("i8", "i1"),
    item_features=(ITEM, {}),
    time_ms=10 * MINUTE_MS,
    context={"tab": "home"},
)


def encoder(schema: FeatureSchema = SCHEMA) -> FeatureEncoder:
    return FeatureEncoder(schema, layout_of(schema, CONFIG.max_values), CONFIG)


def capture(request: RankingRequest, counters: LabelCounters | None = None) -> dict[str, Any]:
    counters = counters or LabelCounters(CounterConfig(), 1)
    return dict(encoder().capture(request, counters).arrays)


def hashed(field: str, value: str) -> int:
    return FieldHasher(field)(value)


def test_capture_hashes_every_field_in_layout_order() -> None:
    arrays = capture(REQUEST)
    assert arrays["request_ids"].tolist() == [
        hashed("user", "u1"),
        hashed("country", "nz"),
        hashed("tab", "home"),
    ]
    assert arrays["item_ids"].tolist() == [
        [hashed("item", "i8"), hashed("author", "a1"), hashed("tags", "x"), hashed("tags", "y")],
        [hashed("item", "i1"), 0, 0, 0],
    ]


def test_capture_squashes_numbers_and_marks_missing_ones() -> None:
    arrays = capture(REQUEST)
    assert arrays["request_floats"][0] == pytest.approx(math.log(31))
    floats = arrays["item_floats"]
    assert floats[0, :3].tolist() == pytest.approx([-math.log(4), 0.5, 0.25])
    assert np.isnan(floats[1, :3]).all()


def test_capture_treats_numbers_that_are_not_finite_as_missing() -> None:
    odd = replace(REQUEST, item_features=({"price": math.inf, "image": (math.nan, 1.0)}, {}))
    assert np.isnan(capture(odd)["item_floats"][0, :2]).all()


def test_capture_signals_tell_what_the_user_did_last() -> None:
    signals = capture(REQUEST)["request_floats"][1:].tolist()
    angle = 2 * math.pi * 10 / (24 * 60)
    assert signals == pytest.approx(
        [
            math.log1p(5 * 60),  # since the last impression
            math.log1p(2),  # session position
            math.log1p(4),  # length of the history
            math.log1p(6 * 60),  # since its newest entry
            math.sin(angle),
            math.cos(angle),
            3 / 4,  # share of positives
            1.0,  # newest outcome
            1.0,  # the one before
        ],
        rel=1e-5,
    )


def test_capture_signals_are_missing_when_the_user_is_new() -> None:
    new = replace(REQUEST, user=UserView(user_id="new"))
    signals = capture(new)["request_floats"][1:]
    assert np.isnan(signals[[0, 3, 6]]).all()
    assert signals[[1, 2, 7, 8]].tolist() == [0.0] * 4


def test_capture_tells_when_this_user_met_this_item() -> None:
    met, unmet = capture(REQUEST)["item_floats"][:, 3 : 3 + SIGNALS]
    assert met.tolist() == pytest.approx([math.log1p(2), math.log1p(6 * 60), 1.0])
    assert unmet[0] == unmet[2] == 0.0
    assert np.isnan(unmet[1])


def test_capture_keeps_the_newest_entries_of_the_history() -> None:
    arrays = capture(REQUEST)
    assert arrays["history_ids"].tolist() == [hashed("item", each) for each in ("i8", "i9", "i8")]
    ages_ms = REQUEST.time_ms - arrays["history_times_ms"]
    assert ages_ms.tolist() == [480_000, 420_000, 360_000]
    assert arrays["history_outcomes"].tolist() == [0, 1, 1]


def observed(item: int, label: float, times: int = 1) -> LabelCounters:
    counters = LabelCounters(CounterConfig(), 1)
    made = encoder()
    captured = made.capture(REQUEST, counters)
    for _ in range(times):
        counters.observe(
            made.keys_of(captured, np.array([item])),
            np.array([[label]], np.float32),
            np.zeros(1, bool),
            REQUEST.time_ms,
        )
    return counters


def counts(arrays: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the log counts of both items by counted term."""
    columns = arrays["item_floats"][:, 3 + SIGNALS :].reshape(2, len(TERMS), WIDTH)
    return dict(zip(TERMS, np.expm1(columns[:, :, 1]).T, strict=True))


def test_counters_of_shared_values_are_shared_and_others_are_not() -> None:
    found = counts(capture(REQUEST, observed(item=0, label=1.0)))
    for term in ("user", "tab"):
        np.testing.assert_allclose(found[term], [1, 1], atol=1e-5)
    for term in ("item", "author", "tags", "user x tags"):
        np.testing.assert_allclose(found[term], [1, 0], atol=1e-5)


def test_counters_of_several_values_are_averaged_over_those_present() -> None:
    counters = observed(item=0, label=1.0, times=7)
    one_known = replace(REQUEST, item_features=({"tags": ("x", "new")}, {"tags": ("x",)}))
    found = counts(capture(one_known, counters))
    assert found["tags"][0] == pytest.approx(math.sqrt(8) - 1, rel=1e-4), "half the log count"
    assert found["tags"][1] == pytest.approx(7, rel=1e-4)


def test_capture_tells_how_active_user_and_item_were() -> None:
    activity = np.expm1(capture(REQUEST, observed(item=0, label=1.0, times=3))["activity"])
    assert activity.round(4).tolist() == [[3, 1, 3, 1], [3, 1, 0, 0]]


def test_same_value_in_different_fields_has_different_ids() -> None:
    assert hashed("author", "7") != hashed("tags", "7")
    assert hashed("author", "7") == hashed("author", "7")
    assert hashed("author", "") == 0


def test_hashes_are_the_same_on_every_machine() -> None:
    assert hashed("item", "i1") == 2080505198032238753


def test_capture_stays_small() -> None:
    one = replace(REQUEST, item_ids=("i8",), item_features=(ITEM,))
    size = sum(array.nbytes for array in capture(one).values())
    assert size < 400


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"author": 3.0}, "item.author: expected a string"),
        ({"tags": "x"}, "item.tags: expected a tuple"),
        ({"price": "cheap"}, "item.price: expected a number"),
        ({"image": (1.0,)}, "item.image: expected 2 numbers"),
    ],
)
def test_capture_names_the_field_when_a_feature_has_the_wrong_kind(
    features: dict[str, Any], message: str
) -> None:
    with pytest.raises(SchemaError, match=message):
        capture(replace(REQUEST, item_features=(features, {})))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"history_length": 0}, "history_length"),
        ({"max_values": 0}, "max_values"),
        ({"last_outcomes": -1}, "last_outcomes"),
    ],
)
def test_config_names_the_key_when_out_of_range(values: dict[str, int], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^ranking\.encoder\.{key} must"):
        EncoderConfig(**values)
