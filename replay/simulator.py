"""An open-loop stream: a policy that knows nothing shows lists, users answer, events arrive.

The policy shows what is popular, with much chance in it, and never learns. For a closed loop, where
users answer the lists of a recommender, ask `replay.world.World` directly.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from domain.events import Event, Feedback, Impression, ShownItem
from domain.features import FeatureSchema
from replay.dataset import JoinerHints
from replay.scenarios import Scenario
from replay.stream_noise import Arrival, with_noise
from replay.world import FIRST_FREE_STREAM, Answers, World

_VISITS, _POLICY, _ANSWERS, _NOISE, _BOTS = range(FIRST_FREE_STREAM, FIRST_FREE_STREAM + 5)

_FRESH_MS = 2 * 60 * 60 * 1000
"""After this time an item has lost two thirds of what its freshness gave it."""
_CHUNK_LISTS = 256
_CHUNKS = 200
"""Lists are made in chunks of at most so many, at least so many chunks to a scenario: within a
chunk popularity counts as constant, and within 1/200 of a scenario it nearly is."""


def simulate(scenario: Scenario, world: World | None = None) -> Iterator[Arrival]:
    """Return everything that arrives in the log of a scenario, in order of arrival.

    Args:
        scenario: which world, and what goes wrong.
        world: the scenario's world, when there is one already.
    """
    world = world or World(scenario)
    return with_noise(clean_events(world), scenario.noise, world.generator(_NOISE))


class SimulatedDataset:
    """A scenario as a dataset: its events as they arrive, without the malformed records."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.world = World(scenario)

    def drawn(self, seed: int) -> SimulatedDataset:
        """Return another draw of the same scenario."""
        return SimulatedDataset(replace(self._scenario, seed=seed))

    @property
    def name(self) -> str:
        """Return the scenario's id."""
        return self._scenario.id

    @property
    def schema(self) -> FeatureSchema:
        """Return the world's schema."""
        return self.world.schema

    @property
    def num_events_hint(self) -> int:
        """Return about how many events there are: 35 clicks and likes for 100 shown items."""
        size, traffic = self._scenario.population, self._scenario.traffic
        per_list = 1.0 + 0.35 * traffic.list_size
        users = min(size.num_users, traffic.num_lists)
        return users + size.num_items + int(per_list * traffic.num_lists)

    @property
    def joiner_hints(self) -> JoinerHints:
        """Return how long feedback may take; what was not done is only known by silence."""
        return JoinerHints(attribution_window_ms=self._scenario.traffic.max_feedback_delay_ms)

    def events(self) -> Iterator[Event]:
        """Return events in order of arrival, duplicates and late ones included."""
        for arrival in simulate(self._scenario, self.world):
            if arrival.event is not None:
                yield arrival.event


def clean_events(world: World) -> Iterator[Event]:
    """Return all events of a scenario in order of event time, before anything goes wrong."""
    scenario = world.scenario
    catalog = world.catalog_updates(scenario.start_ms, scenario.end_ms)
    return heapq.merge(catalog, _shown_and_done(world), key=attrgetter("time_ms"))


@dataclass(frozen=True, slots=True, eq=False)
class _Visits:
    """Who is shown a list when: users and times, int64 (L,), in order of time."""

    users_L: NDArray[np.int64]
    times_L: NDArray[np.int64]

    def chunks(self, scenario: Scenario) -> Iterator[_Visits]:
        """Cut into parts that are short both in number and in time."""
        slot_L = (self.times_L - scenario.start_ms) * _CHUNKS // scenario.duration_ms
        for same_slot in np.split(np.arange(len(slot_L)), np.flatnonzero(np.diff(slot_L)) + 1):
            for first in range(0, len(same_slot), _CHUNK_LISTS):
                part = same_slot[first : first + _CHUNK_LISTS]
                yield _Visits(self.users_L[part], self.times_L[part])


def _visits(world: World) -> _Visits:
    """Draw visits of several lists each; users come as often as they are active."""
    scenario, traffic = world.scenario, world.scenario.traffic
    rng = world.generator(_VISITS)
    users, times = np.zeros(0, np.int64), np.zeros(0, np.int64)
    while len(times) < traffic.num_lists:
        # visits that would go on after the end are cut, so a few more than needed are drawn
        missing = traffic.num_lists - len(times)
        num_visits = 10 + int(1.1 * missing / traffic.lists_per_session)
        starts = rng.integers(scenario.start_ms, scenario.end_ms, size=num_visits)
        sizes = rng.geometric(1.0 / traffic.lists_per_session, size=num_visits)
        visitors = np.repeat(world.draw_users(rng, starts), sizes)
        pauses = 1 + rng.exponential(traffic.pause_ms, size=len(visitors)).astype(np.int64)
        first = np.cumsum(sizes) - sizes
        passed = np.cumsum(pauses)
        shown_ms = np.repeat(starts - passed[first], sizes) + passed
        inside = shown_ms < scenario.end_ms
        users = np.concatenate([users, visitors[inside]])
        times = np.concatenate([times, shown_ms[inside]])
    users, times = users[: traffic.num_lists], times[: traffic.num_lists]
    order = np.argsort(times, kind="stable")
    users, times = users[order], times[order]
    return _Visits(world.with_bots(world.generator(_BOTS), users, times), times)


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Some lists of a scenario, as arrays: L lists of N items, in order of time.

    Attributes:
        chances_LN: chance of each item to be at its place, given the places before.
    """

    users_L: NDArray[np.int64]
    times_L: NDArray[np.int64]
    items_LN: NDArray[np.int64]
    chances_LN: NDArray[np.float64]
    answers: Answers


def shown(world: World) -> Iterator[Shown]:
    """Return what is shown in a scenario and how users answer, a few lists at a time."""
    policy_rng, answer_rng = world.generator(_POLICY), world.generator(_ANSWERS)
    for visits in _visits(world).chunks(world.scenario):
        items_LN, chances_LN = _show(world, visits, policy_rng)
        answers = world.draw(answer_rng, visits.users_L, items_LN, visits.times_L)
        yield Shown(visits.users_L, visits.times_L, items_LN, chances_LN, answers)


def _shown_and_done(world: World) -> Iterator[Event]:
    """Return impressions and feedback in order of time; each user is announced at her first."""
    pending: list[tuple[int, int, Feedback]] = []
    known_users: set[int] = set()
    num_lists = num_answers = 0
    for lists in shown(world):
        for row, (user, time_ms) in enumerate(
            zip(lists.users_L.tolist(), lists.times_L.tolist(), strict=True)
        ):
            while pending and pending[0][0] < time_ms:
                yield heapq.heappop(pending)[2]
            if user not in known_users:
                known_users.add(user)
                yield world.user_update(world.user_ids[user], time_ms)
            impression = Impression(
                event_id=f"{world.prefix}-list-{num_lists}",
                time_ms=time_ms,
                user_id=world.user_ids[user],
                items=_shown_items(world, lists.items_LN[row], lists.chances_LN[row]),
            )
            yield impression
            num_lists += 1
            for action in _feedback(impression, lists.answers, row):
                heapq.heappush(pending, (action.time_ms, num_answers, action))
                num_answers += 1
    while pending:
        yield heapq.heappop(pending)[2]


def _show(
    world: World, visits: _Visits, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw lists without repetition, each place with chances proportional to popularity.

    Returns:
        Items, int64 (L, N), and the chance of each to be at its place, given the places before.
    """
    traffic = world.scenario.traffic
    first_ms, last_ms = int(visits.times_L[0]), int(visits.times_L[-1])
    catalog = world.available(first_ms, last_ms)
    popularity = world.truth.popularity(catalog, np.array((first_ms + last_ms) // 2))
    weights = np.exp(traffic.popularity_pull * popularity)
    if traffic.freshness_pull:
        weights *= np.exp(
            traffic.freshness_pull * _fresh(world, catalog, (first_ms + last_ms) // 2)
        )
    weights /= weights.sum()
    size = min(traffic.list_size, len(catalog))
    until = np.cumsum(weights)
    draws = rng.random((len(visits.times_L), 3 * size)) * until[-1]
    places = np.searchsorted(until, draws, side="right")
    chosen_LN = np.stack([_first_different(row, size, weights, rng) for row in places])
    weight_LN = weights[chosen_LN]
    before_LN = np.cumsum(weight_LN, axis=1) - weight_LN
    return catalog[chosen_LN], np.minimum(weight_LN / (1.0 - before_LN), 1.0)


def _fresh(world: World, catalog: NDArray[np.int64], time_ms: int) -> NDArray[np.float64]:
    """Return how fresh each item is, at most about 1."""
    news_scale = world.scenario.population.news_scale
    if news_scale:
        news_1N = world.news(catalog[None, :], np.array([time_ms]))
        return news_1N.ravel() / news_scale
    fresh: NDArray[np.float64] = np.exp(-(time_ms - world.enters_ms[catalog]) / _FRESH_MS)
    return fresh


def _first_different(
    places: NDArray[np.int64], size: int, weights: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the first `size` different places; draws that repeat one count as not drawn."""
    different = list(dict.fromkeys(places.tolist()))[:size]
    if len(different) < size:
        return rng.choice(len(weights), size=size, replace=False, p=weights)
    return np.array(different, np.int64)


def _shown_items(
    world: World, items_N: NDArray[np.int64], chances_N: NDArray[np.float64]
) -> tuple[ShownItem, ...]:
    return tuple(
        ShownItem(item_id=world.item_ids[item], position=position, probability=chance)
        for position, (item, chance) in enumerate(
            zip(items_N.tolist(), chances_N.tolist(), strict=True)
        )
    )


def _feedback(impression: Impression, answers: Answers, row: int) -> Iterator[Feedback]:
    """Return clicks and likes on one list."""
    for which, (kind, done_LN) in enumerate((("click", answers.clicked), ("like", answers.liked))):
        for place in np.flatnonzero(done_LN[row]).tolist():
            item_id = impression.items[place].item_id
            yield Feedback(
                event_id=f"{impression.event_id}-{item_id}-{kind}",
                time_ms=impression.time_ms + int(answers.delays_ms[row, place, which]),
                user_id=impression.user_id,
                item_id=item_id,
                kind=kind,
                impression_id=impression.event_id,
            )
