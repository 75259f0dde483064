"""Counting baselines in worlds whose answer can be said aloud."""

from __future__ import annotations

import math

import pytest

from domain.errors import ConfigError
from domain.features import FeatureSchema, Field
from domain.requests import RankingRequest, UserView
from replay.baselines import CounterBaseline

SCHEMA = FeatureSchema(
    fields=(
        Field(name="tab", entity="context", kind="categorical"),
        Field(name="author", entity="item", kind="categorical"),
        Field(name="country", entity="user", kind="categorical"),
        Field(name="tags", entity="item", kind="multi"),
    )
)


def request(user: str, *items: str, tab: str = "home") -> RankingRequest:
    return RankingRequest(
        user=UserView(user_id=user, features={"country": f"of-{user}"}),
        item_ids=items,
        item_features=tuple({"author": f"of-{item}"} for item in items),
        time_ms=1,
        context={"tab": tab} if tab else {},
    )


def logit(rate: float) -> float:
    return math.log(rate / (1 - rate))


def predict(baseline: CounterBaseline, asked: RankingRequest) -> list[float]:
    found: list[float] = baseline.predict(baseline.values(asked)).tolist()
    return found


def observe(baseline: CounterBaseline, asked: RankingRequest, index: int, label: float) -> None:
    baseline.observe(baseline.values(asked)[index], label)


def test_counter_baseline_knows_nothing_before_the_first_label() -> None:
    baseline = CounterBaseline("item", ("item",), SCHEMA)
    assert predict(baseline, request("u", "a", "b")) == [0.5, 0.5]


def test_counter_baseline_smooths_an_items_rate_towards_the_global_one() -> None:
    baseline = CounterBaseline("item", ("item",), SCHEMA, prior_strength=4.0)
    for item, label in (("a", 1.0), ("a", 1.0), ("b", 0.0), ("b", 0.0)):
        observe(baseline, request("u", item), 0, label)
    overall = 3 / 6
    expected = [(2 + 4 * overall) / 6, (0 + 4 * overall) / 6, overall]
    assert predict(baseline, request("u", "a", "b", "new")) == pytest.approx(expected)


def test_counter_baseline_adds_the_log_odds_of_its_keys() -> None:
    baseline = CounterBaseline("both", ("item", "tab"), SCHEMA, prior_strength=2.0)
    observe(baseline, request("u", "a", tab="home"), 0, 1.0)
    observe(baseline, request("u", "b", tab="home"), 0, 0.0)
    observe(baseline, request("u", "b", tab="feed"), 0, 0.0)
    overall = logit(2 / 5)
    item_a, home = logit((1 + 2 * 0.4) / 3), logit((1 + 2 * 0.4) / 4)
    expected = overall + (item_a - overall) + (home - overall)
    (probability,) = predict(baseline, request("v", "a", tab="home"))
    assert logit(probability) == pytest.approx(expected)


@pytest.mark.parametrize("key", ["user", "item", "author", "country", "tab"])
def test_counter_baseline_reads_every_kind_of_key(key: str) -> None:
    baseline = CounterBaseline(key, (key,), SCHEMA)
    observe(baseline, request("u", "z", "a"), 1, 1.0)
    seen = predict(baseline, request("u", "a"))[0]
    other = predict(baseline, request("v", "b", tab="feed"))[0]
    assert seen > other


def test_counter_baseline_does_not_count_what_is_not_known() -> None:
    baseline = CounterBaseline("tab", ("tab",), SCHEMA)
    observe(baseline, request("u", "a", tab=""), 0, 1.0)
    assert predict(baseline, request("u", "a", tab="")) == pytest.approx([2 / 3])


def test_counter_baseline_refuses_keys_it_cannot_count() -> None:
    for keys, reason in (
        (("mood",), r"^baseline\.keys: 'mood' is neither"),
        (("tags",), r"^baseline\.keys: 'tags' is neither"),
        ((), r"^baseline\.keys must name"),
    ):
        with pytest.raises(ConfigError, match=reason):
            CounterBaseline("x", keys, SCHEMA)
    with pytest.raises(ConfigError, match=r"^baseline\.prior_strength must be positive"):
        CounterBaseline("x", ("item",), SCHEMA, prior_strength=0.0)
