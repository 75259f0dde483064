"""Counting baselines in worlds whose answer can be said aloud."""

from __future__ import annotations

import math

import numpy as np
import pytest

from domain.errors import ConfigError
from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.features import FeatureSchema, Field
from domain.requests import History, RankingRequest, UserView
from replay.baselines import CounterBaseline, RecentPopularity

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


def test_counter_baseline_knows_nothing_before_the_first_label() -> None:
    baseline = CounterBaseline("item", ("item",), SCHEMA)
    assert baseline.predict(request("u", "a", "b")).tolist() == [0.5, 0.5]


def test_counter_baseline_smooths_an_items_rate_towards_the_global_one() -> None:
    baseline = CounterBaseline("item", ("item",), SCHEMA, prior_strength=4.0)
    for item, label in (("a", 1.0), ("a", 1.0), ("b", 0.0), ("b", 0.0)):
        baseline.observe(request("u", item), 0, label)
    overall = 3 / 6
    expected = [(2 + 4 * overall) / 6, (0 + 4 * overall) / 6, overall]
    assert baseline.predict(request("u", "a", "b", "new")) == pytest.approx(expected)


def test_counter_baseline_adds_the_log_odds_of_its_keys() -> None:
    baseline = CounterBaseline("both", ("item", "tab"), SCHEMA, prior_strength=2.0)
    baseline.observe(request("u", "a", tab="home"), 0, 1.0)
    baseline.observe(request("u", "b", tab="home"), 0, 0.0)
    baseline.observe(request("u", "b", tab="feed"), 0, 0.0)
    overall = logit(2 / 5)
    item_a, home = logit((1 + 2 * 0.4) / 3), logit((1 + 2 * 0.4) / 4)
    expected = overall + (item_a - overall) + (home - overall)
    (probability,) = baseline.predict(request("v", "a", tab="home"))
    assert logit(probability) == pytest.approx(expected)


@pytest.mark.parametrize("key", ["user", "item", "author", "country", "tab"])
def test_counter_baseline_reads_every_kind_of_key(key: str) -> None:
    baseline = CounterBaseline(key, (key,), SCHEMA)
    baseline.observe(request("u", "z", "a"), 1, 1.0)
    seen = baseline.predict(request("u", "a"))[0]
    other = baseline.predict(request("v", "b", tab="feed"))[0]
    assert seen > other


def test_counter_baseline_does_not_count_what_is_not_known() -> None:
    baseline = CounterBaseline("tab", ("tab",), SCHEMA)
    baseline.observe(request("u", "a", tab=""), 0, 1.0)
    assert baseline.predict(request("u", "a", tab="")) == pytest.approx([2 / 3])


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


def took(item: str, time_ms: int = 0, history: tuple[str, ...] = ("z",)) -> PositiveAction:
    view = UserView(user_id="u", history=History(item_ids=history))
    return PositiveAction(user=view, item_id=item, time_ms=time_ms)


def ranks(popularity: RecentPopularity, *actions: PositiveAction) -> list[int]:
    return popularity.target_ranks(actions).tolist()


def test_recent_popularity_forgets_half_every_half_life() -> None:
    popularity = RecentPopularity(half_life_ms=100)
    popularity.learn([took("old", 0), took("old", 0), took("old", 0)])
    popularity.learn([took("new", 200)])
    assert ranks(popularity, took("new"), took("old")) == [1, 2]
    slow = RecentPopularity(half_life_ms=200)
    slow.learn([took("old", 0), took("old", 0), took("old", 0), took("new", 200)])
    assert ranks(slow, took("old"), took("new")) == [1, 2]


def test_recent_popularity_leaves_out_what_the_user_has_had() -> None:
    popularity = RecentPopularity(half_life_ms=100)
    popularity.learn([took("a")] * 3 + [took("b")] * 2 + [took("c")])
    assert ranks(popularity, took("c"), took("c", history=("a", "a", "gone"))) == [3, 2]
    assert ranks(popularity, took("a", history=("a",))) == [1]


def test_recent_popularity_marks_misses_and_users_without_history() -> None:
    popularity = RecentPopularity(half_life_ms=100)
    popularity.learn([took("a")])
    assert ranks(popularity, took("never seen"), took("a", history=())) == [-1, 0]


def test_recent_popularity_follows_the_catalog() -> None:
    popularity = RecentPopularity(half_life_ms=100)
    popularity.learn([took("a"), took("a"), took("b")])
    popularity.observe_item(ItemUpdate(event_id="1", time_ms=1, item_id="a", available=False))
    popularity.observe_item(ItemUpdate(event_id="2", time_ms=1, item_id="cold"))
    assert popularity.top(5) == ("b", "cold")
    assert ranks(popularity, took("a"), took("b", history=("a",)), took("cold")) == [-1, 1, 2]


def test_recent_popularity_agrees_with_plain_decay_over_many_half_lives() -> None:
    rng = np.random.default_rng(3)
    half_life_ms, now = 10.0, 0
    popularity = RecentPopularity(half_life_ms)
    plain: dict[str, float] = {}
    for _ in range(3_000):
        step = int(rng.integers(30))
        now += step
        plain = {item: weight * 0.5 ** (step / half_life_ms) for item, weight in plain.items()}
        item = f"i{rng.integers(2_000)}"
        plain[item] = plain.get(item, 0.0) + 1.0
        popularity.learn([took(item, now)])
    expected = sorted(plain, key=lambda item: -plain[item])[:20]
    assert list(popularity.top(20)) == expected


def test_recent_popularity_survives_a_long_silence() -> None:
    popularity = RecentPopularity(half_life_ms=1)
    popularity.learn([took("a", 0), took("a", 0), took("b", 10**12)])
    assert popularity.top(2) == ("b", "a")


def test_recent_popularity_refuses_a_half_life_that_is_none() -> None:
    with pytest.raises(ConfigError, match=r"^baseline\.half_life_ms must be positive, got 0"):
        RecentPopularity(0)
