"""What each incident does to the events of a scenario; before it begins, nothing is other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from domain.events import ItemUpdate
from replay.scenarios import SCENARIOS, Scenario
from replay.simulator import shown
from replay.world import World


def scenario(name: str, num_lists: int = 1_500) -> Scenario:
    return SCENARIOS[name].resized(num_lists)


def clicks(one: Scenario) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the share of each list that was clicked, and whether it was shown after the truth."""
    lists = list(shown(World(one)))
    share_L = np.concatenate([part.answers.clicked.mean(axis=1) for part in lists])
    times_L = np.concatenate([part.times_L for part in lists])
    return share_L, times_L >= one.share_ms(one.truth[0].at)


def test_until_an_incident_begins_its_world_is_the_calm_one() -> None:
    for name in ("broken-field", "schema-change", "bot-burst", "position-bias"):
        one = scenario(name, 300)
        calm = replace(one, incident=None)
        for a, b in zip(shown(World(one)), shown(World(calm)), strict=True):
            before = a.times_L < one.share_ms(0.5)
            assert np.array_equal(a.users_L[before], b.users_L[before])
            assert np.array_equal(a.items_LN[before], b.items_LN[before])
            assert np.array_equal(a.answers.clicked[before], b.answers.clicked[before])


def test_broken_field_is_stuck_at_a_default_and_mended_again() -> None:
    world = World(scenario("broken-field"))
    one = world.scenario
    said: dict[str, str] = {}
    seen: list[set[str]] = []
    moments = [one.share_ms(share) for share in (0.4999, 0.5001, 0.7499, 0.7501)]
    for update in world.catalog_updates(one.start_ms, one.end_ms):
        assert isinstance(update, ItemUpdate)
        while moments and update.time_ms > moments[0]:
            seen.append(set(said.values()))
            moments.pop(0)
        if update.available:
            said[update.item_id] = str(update.features["category"])
        else:
            said.pop(update.item_id, None)
    assert ["unknown" in one for one in seen] == [False, True, True, False]
    assert [len(one) for one in seen] == [12, 1, 1, 12]
    ids = [update.event_id for update in world.catalog_updates(one.start_ms, one.end_ms)]
    assert len(set(ids)) == len(ids)


def test_schema_change_gives_every_category_another_name_for_good() -> None:
    world = World(scenario("schema-change"))
    before, after = world.scenario.share_ms(0.49), world.scenario.end_ms - 1
    assert [world.category_name(3, time) for time in (before, after)] == ["category3", "kind3"]


def test_bots_ask_for_a_fifth_of_the_lists_and_click_everything() -> None:
    one = scenario("bot-burst")
    share_L, _ = clicks(one)
    lists = list(shown(World(one)))
    users_L = np.concatenate([part.users_L for part in lists])
    times_L = np.concatenate([part.times_L for part in lists])
    inside = (times_L >= one.share_ms(0.5)) & (times_L < one.share_ms(0.6))
    bots = inside & (users_L < 5)
    assert 0.1 < bots.sum() / inside.sum() < 0.3
    assert share_L[bots].mean() > 0.9
    assert share_L[~bots].mean() < 0.3


def test_position_bias_leaves_the_lower_places_unclicked() -> None:
    share_L, after = clicks(scenario("position-bias"))
    assert 0.2 < share_L[~after].mean() < 0.3
    assert share_L[after].mean() < 0.6 * share_L[~after].mean()


def test_slow_feedback_is_ten_times_as_late() -> None:
    one = scenario("delayed-labels")
    lists = list(shown(World(one)))
    delays = np.concatenate([part.answers.delays_ms[:, :, 0].mean(axis=1) for part in lists])
    after = np.concatenate([part.times_L for part in lists]) >= one.share_ms(0.5)
    assert 28_000 < delays[~after].mean() < 32_000
    assert delays[after].mean() > 250_000


def test_users_of_the_wave_come_during_the_wave_only() -> None:
    world = World(scenario("cold-users"))
    one = world.scenario
    later = world.arrives_ms[world.arrives_ms > one.start_ms]
    assert len(later) > 800
    assert later.min() >= one.share_ms(0.5)
    assert later.max() < one.share_ms(0.56)


def test_new_items_take_a_third_of_the_clicks_of_the_half_day_in_which_they_come() -> None:
    one = scenario("item-churn", 4_000)
    world = World(one)
    clicked = new = 0
    for part in shown(world):
        after = part.times_L >= one.share_ms(0.5)
        items = part.items_LN[after][part.answers.clicked[after]]
        clicked += len(items)
        new += int((world.enters_ms[items] > one.start_ms).sum())
    assert 0.3 <= new / clicked < 0.8
