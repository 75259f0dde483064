"""The truth of a simulated world: latent tastes, and the click probabilities that follow from them.

    logit P(click) = base + category liking + style liking + quality + popularity(time)

A taste is a way to read a user's likings. Taste 0 reads them as they are; every other taste gives
each category the liking of another one and turns the style space, so that what was learned about
likings misleads, while quality and popularity stay as they were.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from replay.scenarios import Scenario

# Shape legend: U = users, I = items, C = categories, D = style size, K = tastes, W = waves,
# L = lists, N = items per list.

_SEGMENT_SHARE = 0.7
"""Share of the variance of users' likings that their segment explains."""

_NUM_WAVES = 2


class Truth:
    """Everything about users and items that a recommender can only guess."""

    def __init__(self, scenario: Scenario, rng: np.random.Generator) -> None:
        size = scenario.population
        self._scenario = scenario
        self.num_categories = size.num_categories
        self.user_segment = rng.integers(size.num_segments, size=size.num_users)
        profiles = rng.standard_normal((size.num_segments, size.num_categories))
        own = rng.standard_normal((size.num_users, size.num_categories))
        self._liking_UC = (
            _SEGMENT_SHARE**0.5 * profiles[self.user_segment] + (1.0 - _SEGMENT_SHARE) ** 0.5 * own
        )
        # of unit length on average, so that a dot product with a style has variance one
        self._wish_UD = rng.standard_normal((size.num_users, size.style_size))
        self._wish_UD /= size.style_size**0.5
        self.item_category = rng.integers(size.num_categories, size=size.num_items)
        self.style_ID = rng.standard_normal((size.num_items, size.style_size))
        self._quality_I = rng.standard_normal(size.num_items)
        self._phase_IW = rng.uniform(0.0, 2.0 * np.pi, (size.num_items, _NUM_WAVES))
        # an item's popularity rises and falls once to four times in a scenario
        self._waves_IW = rng.uniform(1.0, 4.0, (size.num_items, _NUM_WAVES))
        num_tastes = 1 + max((change.to_taste for change in scenario.changes), default=0)
        self._category_KC = np.stack(
            [_category_order(k, size.num_categories, rng) for k in range(num_tastes)]
        )
        self._turn_KDD = np.stack([_turn(k, size.style_size, rng) for k in range(num_tastes)])

    def logits(
        self, users_L: NDArray[np.int64], items_LN: NDArray[np.int64], times_L: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the logit of a click on each item, were it looked at; float64 (L, N)."""
        return self.affinity(users_L, items_LN, times_L) + self.appeal(items_LN, times_L)

    def appeal(
        self, items_LN: NDArray[np.int64], times_L: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the part of the logit that is the same for every user; float64 (L, N)."""
        size = self._scenario.population
        appeal_LN: NDArray[np.float64] = (
            size.base_logit
            + size.quality_scale * self._quality_I[items_LN]
            + size.popularity_scale * self.popularity(items_LN, times_L[:, None])
        )
        return appeal_LN

    def affinity(
        self, users_L: NDArray[np.int64], items_LN: NDArray[np.int64], times_L: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the part of the logit that is a matter of taste; float64 (L, N)."""
        size = self._scenario.population
        affinity_LN = np.zeros(items_LN.shape)
        weights_LK = self._taste_weights(times_L)
        for taste in np.flatnonzero(weights_LK.any(axis=0)):
            category_LN = self._category_KC[taste][self.item_category[items_LN]]
            liking_LN = self._liking_UC[users_L[:, None], category_LN]
            wish_LD = self._wish_UD[users_L] @ self._turn_KDD[taste]
            style_LN = np.einsum("ld,lnd->ln", wish_LD, self.style_ID[items_LN])
            affinity_LN += weights_LK[:, taste, None] * (
                size.category_scale * liking_LN + size.style_scale * style_LN
            )
        return affinity_LN

    def popularity(self, items: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the popularity of items, of variance one; shapes broadcast against each other."""
        passed = (times - self._scenario.start_ms) / self._scenario.duration_ms
        angle = 2.0 * np.pi * passed[..., None] * self._waves_IW[items] + self._phase_IW[items]
        popularity: NDArray[np.float64] = np.sin(angle).sum(axis=-1)
        return popularity

    def _taste_weights(self, times_L: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how much each taste holds at each time; float64 (L, K), rows sum to one."""
        scenario = self._scenario
        weights_LK = np.zeros((len(times_L), len(self._category_KC)))
        weights_LK[:, 0] = 1.0
        for change, begins_ms in zip(scenario.changes, scenario.change_times_ms, strict=True):
            lasts_ms = change.over * scenario.duration_ms
            passed_L = (times_L - begins_ms).astype(np.float64)
            done_L = np.where(passed_L >= lasts_ms, 1.0, passed_L / max(lasts_ms, 1.0))
            done_L = np.clip(done_L, 0.0, 1.0)
            weights_LK *= 1.0 - done_L[:, None]
            weights_LK[:, change.to_taste] += done_L
        return weights_LK


def _category_order(taste: int, num_categories: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return which category's liking each category gets; for other tastes never its own."""
    if taste == 0:
        return np.arange(num_categories)
    circle = rng.permutation(num_categories)
    order = np.empty(num_categories, np.int64)
    order[circle] = np.roll(circle, 1)
    return order


def _turn(taste: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a random rotation (with or without reflection); none for taste 0."""
    if taste == 0:
        return np.eye(size)
    turn: NDArray[np.float64] = np.linalg.qr(rng.standard_normal((size, size)))[0]
    return turn
