"""The simulated world: its truth, its catalog and its users' answers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from domain.errors import InvalidRequestError
from replay.scenarios import SCENARIOS, Population, Scenario, TasteChange, Traffic
from replay.world import World

HOUR_MS = 3_600_000
SMALL = Population(num_users=60, num_items=80, num_categories=5, num_segments=3, style_size=4)
CALM = Scenario(id="calm", description="", duration_ms=10 * HOUR_MS, population=SMALL)
ABRUPT = replace(CALM, id="abrupt", changes=(TasteChange(at=0.5),))


def at(scenario: Scenario, share: float) -> int:
    return scenario.start_ms + round(share * scenario.duration_ms)


def slow_logit(world: World, user: int, item: int, time_ms: int, taste: int) -> float:
    """Add up the logit term by term, as the formula at the top of `replay.truth` reads."""
    truth, size = world.truth, world.scenario.population
    category = truth._category_KC[taste][truth.item_category[item]]
    turned = [
        sum(truth._wish_UD[user][a] * truth._turn_KDD[taste][a][b] for a in range(size.style_size))
        for b in range(size.style_size)
    ]
    style = sum(turned[b] * truth.style_ID[item][b] for b in range(size.style_size))
    passed = (time_ms - world.scenario.start_ms) / world.scenario.duration_ms
    waves = zip(truth._waves_IW[item], truth._phase_IW[item], strict=True)
    popularity = sum(math.sin(2 * math.pi * passed * speed + phase) for speed, phase in waves)
    return float(
        size.base_logit
        + size.category_scale * truth._liking_UC[user][category]
        + size.style_scale * style
        + size.quality_scale * truth._quality_I[item]
        + size.popularity_scale * popularity
    )


def test_click_probability_is_the_sum_of_its_parts() -> None:
    world = World(ABRUPT)
    for user, item, share in ((0, 0, 0.0), (7, 3, 0.49), (59, 79, 0.51), (7, 3, 1.0)):
        time_ms, taste = at(ABRUPT, share), int(share >= 0.5)
        expected = 1 / (1 + math.exp(-slow_logit(world, user, item, time_ms, taste)))
        assert world.click_probability(f"u{user}", f"i{item}", time_ms) == pytest.approx(expected)


def test_tastes_hold_until_the_change_and_differ_after_it() -> None:
    world = World(ABRUPT)
    users, items = np.arange(60), np.tile(np.arange(80), (60, 1))

    def affinity(share: float) -> np.ndarray:
        return world.truth.affinity(users, items, np.full(60, at(ABRUPT, share))).ravel()

    before, after = affinity(0.1), affinity(0.6)
    assert np.array_equal(before, affinity(0.4999))
    assert np.array_equal(after, affinity(0.9))
    assert abs(np.corrcoef(before, after)[0, 1]) < 0.3
    assert after.std() == pytest.approx(before.std(), rel=0.25)


def test_tastes_move_over_step_by_step_when_the_change_takes_time() -> None:
    changes = (TasteChange(at=0.2, over=0.4), TasteChange(at=0.8, to_taste=0))
    world = World(replace(CALM, changes=changes))
    users, items = np.array([5]), np.array([[9]])

    def affinity(share: float) -> float:
        return float(world.truth.affinity(users, items, np.array([at(CALM, share)]))[0, 0])

    first, last = affinity(0.1), affinity(0.7)
    assert affinity(0.4) == pytest.approx((first + last) / 2)
    assert affinity(0.3) == pytest.approx(0.75 * first + 0.25 * last)
    assert affinity(0.9) == pytest.approx(first)


def test_worlds_of_one_seed_are_equal_and_of_two_seeds_are_not() -> None:
    one, same, other = World(CALM), World(CALM), World(replace(CALM, seed=2))
    time_ms = at(CALM, 0.3)
    probabilities = [w.click_probabilities("u3", w.item_ids, time_ms) for w in (one, same, other)]
    assert np.array_equal(probabilities[0], probabilities[1])
    assert not np.allclose(probabilities[0], probabilities[2])


def test_draw_clicks_as_often_as_the_true_probability_says() -> None:
    world = World(CALM)
    time_ms, rounds = at(CALM, 0.5), 20_000
    items = np.array([3, 14, 15, 9, 26])
    answers = world.draw(
        np.random.default_rng(0),
        np.full(rounds, 8),
        np.tile(items, (rounds, 1)),
        np.full(rounds, time_ms),
    )
    expected = world.click_probabilities("u8", [f"i{item}" for item in items], time_ms)
    # four standard deviations of a mean of 20,000 draws are at most 0.0141
    assert answers.clicked.mean(axis=0) == pytest.approx(expected, abs=0.015)
    assert not (answers.liked & ~answers.clicked).any()
    assert (answers.delays_ms[..., 1] >= answers.delays_ms[..., 0]).all()
    assert answers.delays_ms.min() >= 1
    assert answers.delays_ms.max() <= CALM.traffic.max_feedback_delay_ms


def test_draw_looks_less_at_later_places_when_there_is_position_bias() -> None:
    world = World(replace(CALM, traffic=Traffic(position_bias=1.0)))
    rounds = 20_000
    items = np.tile(np.array([4, 4, 4]), (rounds, 1))
    answers = world.draw(
        np.random.default_rng(0), np.full(rounds, 8), items, np.full(rounds, at(CALM, 0.5))
    )
    rates = answers.clicked.mean(axis=0)
    assert rates[1] == pytest.approx(rates[0] / 2, rel=0.15)
    assert rates[2] == pytest.approx(rates[0] / 3, rel=0.15)


def test_respond_gives_the_same_answer_to_the_same_question() -> None:
    world = World(CALM)
    shown, time_ms = world.item_ids[:40], at(CALM, 0.99)
    first = world.respond("u1", shown, time_ms)
    world.respond("u2", shown, time_ms)
    assert world.respond("u1", shown, time_ms) == first
    assert first, "forty items and nothing clicked"
    assert [a.delay_ms for a in first] == sorted(a.delay_ms for a in first)
    clicked = {action.item_id for action in first if action.kind == "click"}
    assert {action.item_id for action in first if action.kind == "like"} <= clicked


def test_respond_never_clicks_what_is_not_in_the_catalog() -> None:
    eager = replace(SMALL, base_logit=50.0, withdrawn_items=0.5, newcomer_items=0.5)
    world = World(replace(CALM, population=eager))
    time_ms = at(CALM, 0.5)
    there = set(world.available_items(time_ms))
    assert 0 < len(there) < 80
    actions = world.respond("u0", [*world.item_ids, "unheard of"], time_ms)
    assert {action.item_id for action in actions} == there


def test_world_refuses_users_and_items_it_does_not_have() -> None:
    world = World(CALM)
    with pytest.raises(InvalidRequestError, match="'u999' is no user of this world"):
        world.respond("u999", ["i1"], CALM.start_ms)
    with pytest.raises(InvalidRequestError, match="'i999' is no item of this world"):
        world.click_probability("u1", "i999", CALM.start_ms)


def test_users_at_are_different_users_who_have_arrived() -> None:
    world = World(replace(CALM, population=replace(SMALL, newcomer_users=0.9)))
    early, late = at(CALM, 0.01), at(CALM, 0.99)
    for time_ms in (early, late):
        users = world.users_at(time_ms, 10)
        assert len(set(users)) == len(users) > 0
        assert users == world.users_at(time_ms, 10)
        minute_end_ms = time_ms // 60_000 * 60_000 + 60_000
        arrives = {user: world.arrives_ms[int(user[1:])] for user in users}
        assert all(arrives_ms <= minute_end_ms for arrives_ms in arrives.values())
    assert len(world.users_at(early, 60)) < len(world.users_at(late, 60))


def test_users_at_are_many_in_a_first_minute_that_is_cut_short() -> None:
    scenario = replace(SCENARIOS["stationary"], start_ms=1_704_067_200_000 + 40_000)
    world = World(scenario)
    users = {world.users_at(scenario.start_ms + 10 * step)[0] for step in range(200)}
    assert len(users) > 10


def test_users_at_come_again_within_the_minute() -> None:
    world = World(replace(CALM, traffic=Traffic(visitors=5)))
    minute_ms = at(CALM, 0.5) // 60_000 * 60_000
    seen = {user for step in range(60) for user in world.users_at(minute_ms + 1_000 * step)}
    assert 1 <= len(seen) <= 5


def test_catalog_updates_lead_to_the_available_items() -> None:
    busy = replace(SMALL, newcomer_items=0.6, withdrawn_items=0.6)
    world = World(replace(CALM, population=busy))
    catalog: set[str] = set()
    edges = [at(CALM, share) for share in (0.0, 0.2, 0.21, 0.7, 1.0)]
    for from_ms, until_ms in pairwise(edges):
        for update in world.catalog_updates(from_ms, until_ms):
            assert from_ms <= update.time_ms < until_ms
            (catalog.add if update.available else catalog.remove)(update.item_id)
        assert catalog == set(world.available_items(until_ms - 1))


def test_features_fit_the_schema_and_tell_something() -> None:
    world = World(CALM)
    updates = world.catalog_updates(CALM.start_ms, CALM.end_ms)
    for update in updates:
        world.schema.check("item", update.features, update.item_id)
    user = world.user_update("u4", CALM.start_ms)
    world.schema.check("user", user.features, "u4")
    content = np.array([update.features["content"] for update in updates if update.available])
    entered = [int(update.item_id[1:]) for update in updates if update.available]
    style = world.truth.style_ID[entered]
    assert np.corrcoef(content.ravel(), style.ravel())[0, 1] > 0.9


def test_news_is_worth_half_as_much_after_its_half_life_and_nothing_to_what_was_there() -> None:
    size = replace(SMALL, newcomer_items=0.5, news_scale=2.0, news_half_life_ms=HOUR_MS)
    world, plain = (
        World(replace(CALM, population=size)),
        World(replace(CALM, population=replace(size, news_scale=0.0))),
    )
    story = int(np.flatnonzero(world.enters_ms > world.scenario.start_ms)[0])
    old = int(np.flatnonzero(world.enters_ms == world.scenario.start_ms)[0])
    comes_ms = int(world.enters_ms[story])
    times = np.array([comes_ms, comes_ms + HOUR_MS, comes_ms + 2 * HOUR_MS])
    found = world.news(np.array([[story, old]] * 3), times)
    assert found[:, 1].tolist() == [0.0, 0.0, 0.0]
    assert found[0, 0] > 0.0
    assert found[:, 0] / found[0, 0] == pytest.approx([1.0, 0.5, 0.25])
    asked = ("u3", (f"i{story}", f"i{old}"), comes_ms)
    odds = [
        one / (1.0 - one)
        for one in (world.click_probabilities(*asked), plain.click_probabilities(*asked))
    ]
    assert np.log(odds[0] / odds[1]) == pytest.approx([found[0, 0], 0.0])
