"""Places given to items that nobody knows anything about, with the chance of everything shown.

Every place from `first_position` on is given away with a fixed chance, each for itself. Choices are
dealt out to the places beforehand, so no item can come twice, and what would have stood there moves
down by one. Therefore the chance that an item stands where it stands has a closed form, whatever
else was drawn, and goes into the impression: whoever learns from the log, or judges another policy
by it, can weigh by it (inverse propensity scoring, Horvitz and Thompson 1952).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domain.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorationConfig:
    """How much of a list is given to items shown least, and how they are drawn.

    Attributes:
        share: chance that a place is given away; 0.0 explores nothing.
        first_position: places above this one, 0 being the first, are never given away.
        choices: items drawn among, for each place that may be given away.
        seed: starts the draws; servers beside each other should each have their own.
    """

    share: float = 0.0
    first_position: int = 2
    choices: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(
                f"recommender.exploration.share must be from 0.0 to 1.0, got {self.share}"
            )
        for name, least in (("first_position", 0), ("choices", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"recommender.exploration.{name} must be at least {least}, "
                    f"got {getattr(self, name)}"
                )


@dataclass(frozen=True, slots=True)
class MixedList:
    """Items in the order to show, and the chance that each stood exactly there.

    Attributes:
        explored: how many of them were drawn.
    """

    item_ids: tuple[str, ...]
    probabilities: tuple[float, ...]
    explored: int


class Explorer:
    """Draws; safe from many threads."""

    def __init__(self, config: ExplorationConfig) -> None:
        self._config = config
        self._generator = np.random.default_rng(config.seed)
        self._lock = threading.Lock()

    def num_choices(self, limit: int) -> int:
        """Return how many items a list of `limit` can choose among; 0 when nothing is explored."""
        if self._config.share == 0.0:
            return 0
        return self._config.choices * max(limit - self._config.first_position, 0)

    def mix(self, best: Sequence[str], times_shown: Mapping[str, int]) -> MixedList:
        """Give places of a list away.

        Args:
            best: what would be shown, in order.
            times_shown: items to choose among and how often each was shown; those that are in
                `best` anyway are left out. An item shown n times is drawn with a weight of
                1 / sqrt(n + 1), as the error of what is known of it falls.
        """
        among = [item_id for item_id in times_shown if item_id not in set(best)]
        first, share = self._config.first_position, self._config.share
        num_places = min(max(len(best) - first, 0), len(among))
        if not num_places or share == 0.0:
            return MixedList(tuple(best), (1.0,) * len(best), 0)
        with self._lock:
            gives, draws = self._generator.random((2, num_places)).tolist()
        item_ids: list[str] = []
        probabilities: list[float] = []
        drawn = 0
        for position in range(len(best)):
            place = position - first
            is_open = 0 <= place < num_places
            if is_open and gives[place] < share:
                item_id, chance = _draw(among[place::num_places], times_shown, draws[place])
                item_ids.append(item_id)
                probabilities.append(share * chance)
                drawn += 1
                continue
            item_ids.append(best[position - drawn])
            tries = min(max(place, 0), num_places)
            chance = math.comb(tries, drawn) * share**drawn * (1.0 - share) ** (tries - drawn)
            probabilities.append(chance * (1.0 - share) if is_open else chance)
        return MixedList(tuple(item_ids), tuple(probabilities), drawn)


def _draw(
    among: Sequence[str], times_shown: Mapping[str, int], uniform: float
) -> tuple[str, float]:
    """Return the item that a number from 0 to 1 falls on, and the chance of that item."""
    weights = np.array([1.0 / math.sqrt(times_shown[item_id] + 1.0) for item_id in among])
    ends = np.cumsum(weights) / weights.sum()
    at = min(int(np.searchsorted(ends, uniform, side="right")), len(among) - 1)
    return among[at], float(weights[at] / weights.sum())
