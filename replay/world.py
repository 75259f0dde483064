"""A simulated world: its users, its catalog, and how users answer what they are shown.

Nothing here keeps a state that answers would depend on: what is drawn is drawn from the seed and
the question (who, what, when). So the same question always gets the same answer, whoever asks and
in whatever order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from domain.errors import InvalidRequestError
from domain.events import FeatureValue, ItemUpdate, UserUpdate
from domain.features import FeatureSchema, Field, Head
from replay.scenarios import IncidentKind, Scenario
from replay.truth import Truth

_TRUTH, _LIVES, _FEATURES, _VISITORS, _RESPONSES = range(5)
"""Streams of random numbers; `replay.simulator` goes on from FIRST_FREE_STREAM."""
FIRST_FREE_STREAM = 5

_MINUTE_MS = 60_000
_CONTENT_NOISE = 0.3
_LIKE_LOGIT = -1.5
_NEVER_MS = 2**62
_WAVES: tuple[IncidentKind, IncidentKind] = ("user_wave", "item_wave")
_BOTS = 5
"""The first users are the accounts that bots use."""
_BOT_CLICKS = 0.95
_STORIES_DIFFER = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a user does with a shown item, `delay_ms` after it was shown."""

    item_id: str
    kind: str
    delay_ms: int
    value: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What users do with L lists of N items.

    Attributes:
        clicked: bool (L, N).
        liked: bool (L, N); only what is clicked can be liked.
        delays_ms: int64 (L, N, 2), time from the list to the click and to the like.
    """

    clicked: NDArray[np.bool_]
    liked: NDArray[np.bool_]
    delays_ms: NDArray[np.int64]


class World:
    """Users, items and truth of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        size = scenario.population
        self.scenario = scenario
        self.truth = Truth(scenario, self.generator(_TRUTH))
        self.user_ids = tuple(f"u{index}" for index in range(size.num_users))
        self.item_ids = tuple(f"i{index}" for index in range(size.num_items))
        self._user_index = {name: index for index, name in enumerate(self.user_ids)}
        self._item_index = {name: index for index, name in enumerate(self.item_ids)}
        rng = self.generator(_LIVES)
        users_ms, items_ms = (scenario.incident_span_ms(one) for one in _WAVES)
        self.arrives_ms = self._arrivals(rng, size.num_users, size.newcomer_users, users_ms)
        self.enters_ms = self._arrivals(rng, size.num_items, size.newcomer_items, items_ms)
        self.leaves_ms = self._departures(rng, size.withdrawn_items)
        self._activity = _Activity(self.arrives_ms, rng.lognormal(size=size.num_users))
        self._news_I = self._strengths_of_news(size.num_items)
        noise_ID = self.generator(_FEATURES).standard_normal(self.truth.style_ID.shape)
        self._content_ID = self.truth.style_ID + _CONTENT_NOISE * noise_ID
        self._visitors_in = lru_cache(maxsize=16)(self._draw_visitors)

    def generator(self, *stream: int) -> np.random.Generator:
        """Return a generator of its own for one named stream of random numbers."""
        return np.random.default_rng([self.scenario.seed, *stream])

    @property
    def prefix(self) -> str:
        """Return what all event ids of this world begin with."""
        return f"{self.scenario.id}-{self.scenario.seed}"

    @property
    def schema(self) -> FeatureSchema:
        """Return what recommenders may know: segment, category, tags and a noisy style vector."""
        size = self.scenario.population.style_size
        return FeatureSchema(
            fields=(
                Field(name="segment", entity="user", kind="categorical", counted=True),
                Field(name="category", entity="item", kind="categorical", counted=True),
                Field(name="tags", entity="item", kind="multi"),
                Field(name="content", entity="item", kind="dense", size=size),
            ),
            heads=(
                Head(name="click", feedback_kind="click"),
                Head(name="like", feedback_kind="like", weight=0.3),
            ),
            counted_pairs=(("user", "category"), ("segment", "category")),
        )

    def click_probability(self, user_id: str, item_id: str, time_ms: int) -> float:
        """Return the true chance that a user clicks an item that she looks at."""
        return float(self.click_probabilities(user_id, (item_id,), time_ms)[0])

    def click_probabilities(
        self, user_id: str, item_ids: Sequence[str], time_ms: int
    ) -> NDArray[np.float64]:
        """Return the true click probability of each item, were it looked at; float64 (N,).

        Raises:
            InvalidRequestError: an id is not of this world.
        """
        users, times = np.array([self._user(user_id)]), np.array([time_ms])
        items = np.array([[self._item(item_id) for item_id in item_ids]], np.int64)
        return sigmoid((self.truth.logits(users, items, times) + self.news(items, times))[0])

    def available_items(self, time_ms: int) -> tuple[str, ...]:
        """Return the catalog at a time."""
        return tuple(self.item_ids[index] for index in self.available(time_ms, time_ms))

    def available(self, from_ms: int, until_ms: int) -> NDArray[np.int64]:
        """Return the indices of the items that are in the catalog from one time to another."""
        return np.flatnonzero((self.enters_ms <= from_ms) & (self.leaves_ms > until_ms))

    def catalog_updates(self, from_ms: int, until_ms: int) -> list[ItemUpdate]:
        """Return what happens to the catalog in [from_ms, until_ms), in order of time."""
        updates = [
            (int(times_ms[index]), leaving, int(index))
            for leaving, times_ms in ((False, self.enters_ms), (True, self.leaves_ms))
            for index in np.flatnonzero((times_ms >= from_ms) & (times_ms < until_ms))
        ]
        events = [
            self._item_update(index, time, leaving) for time, leaving, index in sorted(updates)
        ]
        renewed = [
            self._renewed(int(index), time)
            for time in self.scenario.incident_span_ms("broken_field", "renamed_values") or ()
            if from_ms <= time < until_ms
            for index in self.available(time - 1, time)
        ]
        return sorted([*events, *renewed], key=attrgetter("time_ms")) if renewed else events

    def user_update(self, user_id: str, time_ms: int) -> UserUpdate:
        """Return what is known about a user, as an event of `time_ms`."""
        return UserUpdate(
            event_id=f"{self.prefix}-user-{user_id}",
            time_ms=time_ms,
            user_id=user_id,
            features=self.user_features(self._user(user_id)),
        )

    def user_features(self, index: int) -> dict[str, FeatureValue]:
        """Return what is known about a user."""
        return {"segment": f"segment{self.truth.user_segment[index]}"}

    def users_at(self, time_ms: int, count: int = 1) -> list[str]:
        """Return `count` different users who ask for a list at a time.

        Users come in visits: those of one minute are drawn from the same few, so that they ask
        again soon. Fewer are returned where fewer are there.
        """
        visitors = self._visitors_in(time_ms // _MINUTE_MS)
        rng = self.generator(_VISITORS, 1, time_ms)
        chosen = rng.permutation(len(visitors))[:count]
        return [self.user_ids[visitors[place]] for place in chosen]

    def respond(self, user_id: str, item_ids: Sequence[str], time_ms: int) -> list[Action]:
        """Return what a user does with a list shown at a time, soonest first.

        Items that are not in the catalog at that time, or not of this world, are never clicked.

        Raises:
            InvalidRequestError: the user is not of this world.
        """
        user = self._user(user_id)
        items = np.array([self._item_index.get(name, -1) for name in item_ids], np.int64)
        rng = self.generator(_RESPONSES, user, time_ms)
        answers = self.draw(rng, np.array([user]), items[None, :], np.array([time_ms]))
        there = (
            (items >= 0) & (self.enters_ms[items] <= time_ms) & (self.leaves_ms[items] > time_ms)
        )
        actions = [
            Action(
                item_id=item_ids[place], kind=kind, delay_ms=int(answers.delays_ms[0, place, which])
            )
            for which, (kind, done) in enumerate(
                (("click", answers.clicked), ("like", answers.liked))
            )
            for place in np.flatnonzero(done[0] & there).tolist()
        ]
        return sorted(actions, key=lambda action: action.delay_ms)

    def draw(
        self,
        rng: np.random.Generator,
        users_L: NDArray[np.int64],
        items_LN: NDArray[np.int64],
        times_L: NDArray[np.int64],
    ) -> Answers:
        """Draw what users do with the lists they are shown: items int64 (L, N).

        A like needs a click and comes after it; the better an item suits a user, the likelier.
        """
        traffic = self.scenario.traffic
        affinity_LN = self.truth.affinity(users_L, items_LN, times_L)
        appeal_LN = self.truth.appeal(items_LN, times_L) + self.news(items_LN, times_L)
        chance_LN = sigmoid(affinity_LN + appeal_LN)
        chance_LN *= self._looked(items_LN.shape[1], times_L)
        chance_LN[self.are_bots(users_L, times_L)] = _BOT_CLICKS
        like_LN = sigmoid(_LIKE_LOGIT + affinity_LN)
        uniform = rng.random((2, *items_LN.shape))
        clicked_LN = uniform[0] < chance_LN
        liked_LN = clicked_LN & (uniform[1] < like_LN)
        waits = rng.exponential(traffic.feedback_delay_ms, (*items_LN.shape, 2)).cumsum(axis=-1)
        waits *= self._strength("slow_feedback", times_L, otherwise=1.0)[:, None, None]
        delays = np.minimum(waits, traffic.max_feedback_delay_ms).astype(np.int64)
        return Answers(clicked_LN, liked_LN, np.maximum(delays, 1))

    def news(self, items_LN: NDArray[np.int64], times_L: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what being new adds to the logit of a click, whoever is asked; float64 (L, N).

        What is there from the beginning came before, and is no news.
        """
        size = self.scenario.population
        if not size.news_scale:
            return np.zeros(items_LN.shape)
        age_ms = np.maximum(times_L[:, None] - self.enters_ms[items_LN], 0)
        left_LN = np.exp2(-age_ms / size.news_half_life_ms)
        left_LN *= self.enters_ms[items_LN] > self.scenario.start_ms
        news_LN: NDArray[np.float64] = size.news_scale * self._news_I[items_LN] * left_LN
        return news_LN

    def _strengths_of_news(self, num_items: int) -> NDArray[np.float64]:
        """Draw how much of a story each item is, 1 in the middle."""
        return self.generator(_LIVES, 1).lognormal(0.0, _STORIES_DIFFER, num_items)

    def draw_users(self, rng: np.random.Generator, times_L: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draw who comes at each time, among those who have arrived by then; int64 (L,)."""
        return self._activity.draw(rng, times_L)

    def are_bots(self, users_L: NDArray[np.int64], times_L: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which lists are asked for by bots; bool (L,)."""
        bots_L: NDArray[np.bool_] = (users_L < _BOTS) & (self._strength("bots", times_L) > 0.0)
        return bots_L

    def with_bots(
        self, rng: np.random.Generator, users_L: NDArray[np.int64], times_L: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return who really asks for the lists of some users while bots are about; int64 (L,)."""
        share_L = self._strength("bots", times_L)
        if not share_L.any():
            return users_L
        taken_L = rng.random(len(users_L)) < share_L
        return np.where(taken_L, rng.integers(_BOTS, size=len(users_L)), users_L)

    def _looked(self, list_size: int, times_L: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the chance that each place of a list is looked at; float64 (L, N)."""
        usual = self.scenario.traffic.position_bias
        bias_L = self._strength("position_bias", times_L, otherwise=usual)
        looked_LN: NDArray[np.float64] = 1.0 / (1.0 + bias_L[:, None] * np.arange(list_size))
        return looked_LN

    def _strength(
        self, kind: IncidentKind, times_L: NDArray[np.int64], otherwise: float = 0.0
    ) -> NDArray[np.float64]:
        """Return an incident's strength at each time; `otherwise` where there is none."""
        span_ms = self.scenario.incident_span_ms(kind)
        strength_L = np.full(len(times_L), otherwise)
        if span_ms is not None and self.scenario.incident is not None:
            inside_L = (times_L >= span_ms[0]) & (times_L < span_ms[1])
            strength_L[inside_L] = self.scenario.incident.strength
        return strength_L

    def _arrivals(
        self, rng: np.random.Generator, count: int, newcomers: float, wave: tuple[int, int] | None
    ) -> NDArray[np.int64]:
        """Return when each comes: a share during the scenario, the others at its start."""
        later = rng.random(count) < newcomers
        first_ms, last_ms = wave or (self.scenario.start_ms, self.scenario.end_ms)
        when = rng.integers(first_ms, last_ms, size=count)
        later[0] = False  # somebody has to be there from the start
        return np.where(later, when, self.scenario.start_ms)

    def _departures(self, rng: np.random.Generator, share: float) -> NDArray[np.int64]:
        leaves = rng.random(len(self.enters_ms)) < share
        when = rng.integers(self.enters_ms + 1, self.scenario.end_ms + 1)
        leaves[0] = False  # something has to be there until the end
        return np.where(leaves, when, _NEVER_MS)

    def _draw_visitors(self, minute: int) -> NDArray[np.int64]:
        rng = self.generator(_VISITORS, 0, minute)
        # A scenario may begin within a minute; nobody has come before it does.
        begins_ms = max(minute * _MINUTE_MS, self.scenario.start_ms)
        times = np.full(self.scenario.traffic.visitors, begins_ms)
        return np.unique(self.draw_users(rng, times))

    def _item_update(self, index: int, time_ms: int, leaving: bool) -> ItemUpdate:
        name = self.item_ids[index]
        return ItemUpdate(
            event_id=f"{self.prefix}-item-{name}-{'leaves' if leaving else 'enters'}",
            time_ms=time_ms,
            item_id=name,
            features=self.item_features(index, time_ms),
            available=not leaving,
        )

    def _renewed(self, index: int, time_ms: int) -> ItemUpdate:
        """Return an item that is announced again because its fields are filled in another way."""
        name = self.item_ids[index]
        return ItemUpdate(
            event_id=f"{self.prefix}-item-{name}-renewed-{time_ms}",
            time_ms=time_ms,
            item_id=name,
            features=self.item_features(index, time_ms),
        )

    def item_features(self, index: int, time_ms: int) -> dict[str, FeatureValue]:
        """Return what an item that is announced at a time says of itself."""
        content = self._content_ID[index]
        strongest = np.argsort(-np.abs(content), kind="stable")[:2]
        return {
            "category": self.category_name(int(self.truth.item_category[index]), time_ms),
            "tags": tuple(f"style{d}{'+' if content[d] > 0 else '-'}" for d in strongest),
            "content": tuple(float(value) for value in content.astype(np.float32)),
        }

    def category_name(self, category: int, time_ms: int) -> str:
        """Return what items of a category carry in their field at a time."""
        now = np.array([time_ms])
        if self._strength("broken_field", now)[0]:
            return "unknown"
        return f"{'kind' if self._strength('renamed_values', now)[0] else 'category'}{category}"

    def _user(self, user_id: str) -> int:
        index = self._user_index.get(user_id)
        if index is None:
            raise InvalidRequestError("user_id", f"{user_id!r} is no user of this world")
        return index

    def _item(self, item_id: str) -> int:
        index = self._item_index.get(item_id)
        if index is None:
            raise InvalidRequestError("item_id", f"{item_id!r} is no item of this world")
        return index


class _Activity:
    """Who comes when: users in order of arrival with the running sum of how active they are."""

    def __init__(self, arrives_ms: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        self._order = np.argsort(arrives_ms, kind="stable")
        self._arrives_ms = arrives_ms[self._order]
        self._until = np.cumsum(weights[self._order])

    def draw(self, rng: np.random.Generator, times: NDArray[np.int64]) -> NDArray[np.int64]:
        there = np.maximum(np.searchsorted(self._arrives_ms, times, side="right"), 1)
        target = rng.random(len(times)) * self._until[there - 1]
        drawn: NDArray[np.int64] = self._order[np.searchsorted(self._until, target, side="right")]
        return drawn


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities of logits."""
    probabilities: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits))
    return probabilities
