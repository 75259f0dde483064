"""The open-loop stream: what is shown exists, what is done was shown, and the truth pays off."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from domain.events import Event, Feedback, Impression, ItemUpdate, UserUpdate
from replay.scenarios import SCENARIOS, Population, Scenario, Traffic
from replay.simulator import SimulatedDataset, clean_events, shown, simulate
from replay.world import World, sigmoid

NUM_LISTS = 1_500


@pytest.fixture(scope="module")
def world() -> World:
    return World(SCENARIOS["abrupt"].resized(NUM_LISTS))


@pytest.fixture(scope="module")
def events(world: World) -> list[Event]:
    return list(clean_events(world))


def test_clean_events_come_in_order_with_ids_of_their_own(events: list[Event]) -> None:
    times = [event.time_ms for event in events]
    assert times == sorted(times)
    assert len({event.event_id for event in events}) == len(events)
    assert sum(isinstance(event, Impression) for event in events) == NUM_LISTS


def test_lists_show_different_items_of_the_catalog_to_users_who_are_known(
    events: list[Event], world: World
) -> None:
    catalog: set[str] = set()
    users: set[str] = set()
    for event in events:
        match event:
            case ItemUpdate():
                (catalog.add if event.available else catalog.discard)(event.item_id)
            case UserUpdate():
                users.add(event.user_id)
            case Impression():
                shown = [item.item_id for item in event.items]
                assert event.user_id in users
                assert len(set(shown)) == len(shown) == world.scenario.traffic.list_size
                assert set(shown) <= catalog
                assert [item.position for item in event.items] == list(range(len(shown)))
            case Feedback():
                assert event.user_id in users


def test_feedback_answers_a_list_in_time(events: list[Event], world: World) -> None:
    shown = {event.event_id: event for event in events if isinstance(event, Impression)}
    clicked: set[tuple[str | None, str]] = set()
    for event in events:
        if not isinstance(event, Feedback):
            continue
        impression = shown[str(event.impression_id)]
        wait_ms = event.time_ms - impression.time_ms
        assert 0 < wait_ms <= world.scenario.traffic.max_feedback_delay_ms
        assert event.user_id == impression.user_id
        assert event.item_id in {item.item_id for item in impression.items}
        if event.kind == "click":
            clicked.add((event.impression_id, event.item_id))
        else:
            assert event.kind == "like"
            assert (event.impression_id, event.item_id) in clicked


def test_users_come_back_within_a_visit(events: list[Event]) -> None:
    last: dict[str, int] = {}
    soon = 0
    for event in events:
        if isinstance(event, Impression):
            soon += event.time_ms - last.get(event.user_id, 0) < 5 * 60_000
            last[event.user_id] = event.time_ms
    # visits have three lists in the mean, so two of three lists follow another one soon
    assert 0.5 < soon / NUM_LISTS < 0.8


def test_shown_probability_is_the_chance_of_being_shown_there() -> None:
    still = replace(
        SCENARIOS["stationary"],
        population=Population(num_items=50, newcomer_items=0.0, withdrawn_items=0.0),
        traffic=Traffic(num_lists=8_000, list_size=3),
    )
    lists = [event for event in clean_events(World(still)) if isinstance(event, Impression)]
    # the mean of 1 / chance counts what could have been shown: 50 items, then 49, then 48
    for position, left in enumerate((50, 49, 48)):
        inverse = np.array([1.0 / event.items[position].probability for event in lists])
        assert inverse.mean() == pytest.approx(left, rel=0.1)


def test_policy_shows_what_is_popular_when_it_is_pulled_to_it() -> None:
    base = SCENARIOS["stationary"].resized(400)
    means = []
    for pull in (0.0, 1.0):
        world = World(replace(base, traffic=replace(base.traffic, popularity_pull=pull)))
        lists = [event for event in clean_events(world) if isinstance(event, Impression)]
        items = np.array([[int(shown.item_id[1:]) for shown in event.items] for event in lists])
        times = np.array([event.time_ms for event in lists])
        means.append(world.truth.popularity(items, times[:, None]).mean())
    assert means[0] == pytest.approx(0.0, abs=0.1)
    assert means[1] > 0.5


def test_everything_is_shown_when_the_catalog_is_smaller_than_a_list() -> None:
    tiny = replace(
        SCENARIOS["stationary"],
        population=Population(num_items=4, newcomer_items=0.0, withdrawn_items=0.0),
        traffic=Traffic(num_lists=20),
    )
    lists = [event for event in clean_events(World(tiny)) if isinstance(event, Impression)]
    assert {len(event.items) for event in lists} == {4}
    assert all(event.items[3].probability == pytest.approx(1.0) for event in lists)


def test_true_probabilities_rank_well_and_those_of_the_old_taste_fail_after_the_change(
    events: list[Event], world: World
) -> None:
    clicked = {
        (event.impression_id, event.item_id)
        for event in events
        if isinstance(event, Feedback) and event.kind == "click"
    }
    lists = [event for event in events if isinstance(event, Impression)]
    users = np.array([int(event.user_id[1:]) for event in lists])
    items = np.array([[int(item.item_id[1:]) for item in event.items] for event in lists])
    times = np.array([event.time_ms for event in lists])
    labels = np.array(
        [[(event.event_id, shown.item_id) in clicked for shown in event.items] for event in lists]
    )
    truth, start_ms = world.truth, np.full(len(lists), world.scenario.start_ms)
    now = truth.logits(users, items, times)
    old = now - truth.affinity(users, items, times) + truth.affinity(users, items, start_ms)
    after = times >= world.scenario.change_times_ms[0]
    assert 0.15 < labels.mean() < 0.3
    assert sigmoid(now).mean() == pytest.approx(labels.mean(), abs=0.02)
    assert roc_auc_score(labels[~after].ravel(), now[~after].ravel()) > 0.8  # usually 0.83
    assert roc_auc_score(labels[after].ravel(), now[after].ravel()) > 0.8  # usually 0.83
    assert roc_auc_score(labels[after].ravel(), old[after].ravel()) < 0.6  # usually 0.53


def test_simulate_repeats_itself_to_the_byte() -> None:
    scenario = SCENARIOS["noisy"].resized(300)
    first = list(simulate(scenario))
    assert list(simulate(scenario, World(scenario))) == first
    assert list(simulate(replace(scenario, seed=2))) != first


def test_simulate_marks_what_went_wrong() -> None:
    scenario = SCENARIOS["noisy"].resized(1_000)
    arrivals = list(simulate(scenario))
    marks = Counter(arrival.mark for arrival in arrivals)
    assert set(marks) == {"clean", "late", "duplicate", "malformed"}
    assert [a.arrival_ms for a in arrivals] == sorted(a.arrival_ms for a in arrivals)
    clean = list(clean_events(World(scenario)))
    written = {a.event.event_id for a in arrivals if a.event is not None}
    assert written == {event.event_id for event in clean}, "noise loses nothing"


def test_simulated_dataset_gives_the_events_without_malformed_records() -> None:
    scenario: Scenario = SCENARIOS["noisy"].resized(300)
    dataset = SimulatedDataset(scenario)
    expected = [arrival.event for arrival in simulate(scenario) if arrival.event is not None]
    assert list(dataset.events()) == expected
    assert dataset.name == "noisy"
    assert dataset.schema == World(scenario).schema
    assert dataset.joiner_hints.attribution_window_ms == scenario.traffic.max_feedback_delay_ms
    assert dataset.num_events_hint == pytest.approx(len(expected), rel=0.5)


def test_news_takes_three_tenths_of_the_clicks_of_its_scenario() -> None:
    world = World(SCENARIOS["news"].resized(4_000))
    clicks = of_news = 0
    for lists in shown(world):
        age_ms = lists.times_L[:, None] - world.enters_ms[lists.items_LN]
        came = world.enters_ms[lists.items_LN] > world.scenario.start_ms
        of_news += int((lists.answers.clicked & came & (age_ms < 15 * 60_000)).sum())
        clicks += int(lists.answers.clicked.sum())
    assert of_news / clicks == pytest.approx(0.3, abs=0.03)
