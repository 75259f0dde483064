"""Whatever the scenario, the stream keeps its promises."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.events import Event, Feedback, Impression, ItemUpdate
from replay.scenarios import Noise, Population, Scenario, TasteChange, Traffic
from replay.simulator import clean_events, simulate
from replay.stream_noise import with_noise
from replay.world import World
from stream.event_check import contradiction

shares = st.floats(0.0, 1.0)

populations = st.builds(
    Population,
    num_users=st.integers(1, 30),
    num_items=st.integers(1, 40),
    num_categories=st.integers(2, 6),
    num_segments=st.integers(1, 4),
    style_size=st.integers(1, 4),
    newcomer_users=shares,
    newcomer_items=shares,
    withdrawn_items=shares,
)
traffics = st.builds(
    Traffic,
    num_lists=st.integers(1, 60),
    list_size=st.integers(1, 12),
    lists_per_session=st.floats(1.0, 6.0),
    popularity_pull=st.floats(0.0, 3.0),
    position_bias=st.floats(0.0, 2.0),
    max_feedback_delay_ms=st.integers(1, 600_000),
)
noises = st.builds(
    Noise,
    duplicate_rate=shares,
    late_rate=shares,
    malformed_rate=shares,
    disorder_ms=st.integers(0, 100_000),
)
changes = st.sampled_from(
    [
        (),
        (TasteChange(at=0.5),),
        (TasteChange(at=0.2, over=0.3), TasteChange(at=0.8, to_taste=2)),
    ]
)
scenarios = st.builds(
    Scenario,
    id=st.just("any"),
    description=st.just(""),
    seed=st.integers(0, 1_000),
    duration_ms=st.sampled_from([60_000, 3_600_000, 86_400_000]),
    population=populations,
    traffic=traffics,
    noise=noises,
    changes=changes,
)


@settings(max_examples=40)
@given(scenarios)
def test_clean_events_are_ordered_unique_and_consistent(scenario: Scenario) -> None:
    catalog: set[str] = set()
    last_ms = 0
    seen: set[str] = set()
    num_lists = 0
    for event in clean_events(World(scenario)):
        assert event.time_ms >= last_ms
        last_ms = event.time_ms
        assert not contradiction(event)
        assert event.event_id not in seen
        seen.add(event.event_id)
        if isinstance(event, ItemUpdate):
            (catalog.add if event.available else catalog.discard)(event.item_id)
        elif isinstance(event, Impression):
            num_lists += 1
            assert {item.item_id for item in event.items} <= catalog
            assert event.time_ms < scenario.end_ms
        elif isinstance(event, Feedback):
            assert event.impression_id in seen
    assert num_lists == scenario.traffic.num_lists


@settings(max_examples=25)
@given(scenarios)
def test_arrivals_are_ordered_complete_and_repeatable(scenario: Scenario) -> None:
    arrivals = list(simulate(scenario))
    times = [arrival.arrival_ms for arrival in arrivals]
    assert times == sorted(times)
    assert all(a.event is None or a.arrival_ms >= a.event.time_ms for a in arrivals)
    # each event arrives once, apart from its duplicates
    once = Counter(a.event.event_id for a in arrivals if a.event and a.mark != "duplicate")
    assert once == Counter(event.event_id for event in clean_events(World(scenario)))
    assert list(simulate(scenario)) == arrivals


@settings(max_examples=25)
@given(scenarios, st.integers(0, 1_000_000))
def test_answers_depend_on_the_question_alone(scenario: Scenario, offset_ms: int) -> None:
    one, other = World(scenario), World(scenario)
    time_ms = scenario.start_ms + offset_ms
    for user in one.users_at(time_ms, 3):
        one.respond(user, one.item_ids[:3], time_ms)
    (user,) = other.users_at(time_ms)
    assert one.users_at(time_ms) == [user]
    assert one.respond(user, one.item_ids, time_ms) == other.respond(user, one.item_ids, time_ms)
    probabilities = one.click_probabilities(user, one.item_ids, time_ms)
    assert np.all((probabilities > 0.0) & (probabilities < 1.0))


@settings(max_examples=40)
@given(st.lists(st.integers(1, 50), max_size=60), noises, st.integers(0, 100))
def test_with_noise_agrees_with_sorting_everything_at_once(
    gaps_ms: list[int], noise: Noise, seed: int
) -> None:
    events: list[Event] = [
        Feedback(event_id=f"e{k}", time_ms=int(time), user_id="u", item_id="i", kind="click")
        for k, time in enumerate(np.cumsum(gaps_ms))
    ]
    streamed = list(with_noise(events, noise, np.random.default_rng(seed)))
    rng = np.random.default_rng(seed)
    alone = [arrival for event in events for arrival in with_noise([event], noise, rng)]
    # one event's own arrivals come out of with_noise in order of arrival already
    key = [(a.arrival_ms, a.mark, a.raw, a.event.event_id if a.event else "") for a in streamed]
    assert sorted(key) == sorted(
        (a.arrival_ms, a.mark, a.raw, a.event.event_id if a.event else "") for a in alone
    )
    assert [a.arrival_ms for a in streamed] == sorted(a.arrival_ms for a in alone)
