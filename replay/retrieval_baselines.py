"""Retrieval without learning: what is popular lately, what goes with it, and the same again.

All three rank the whole catalog as it stands, as `RetrievalLearner.target_ranks` does: items in the
user's history are taken out first and a target among them is a miss, ties go to the item that
entered the catalog first. Only `repeat` ranks nothing but used items first: it is there to show how
many actions are repetitions, which the others miss by design.

An order is a few scored items on top of popularity, so a rank costs a pass over the scored items
and the history, whatever the size of the catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.requests import History
from replay.decaying import DecayingPairs, DecayingWeights

POPULAR, ITEM_ITEM, REPEAT = "popular", "item-item", "repeat"
BASELINES = (POPULAR, ITEM_ITEM, REPEAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalBaselinesConfig:
    """What counts how long.

    Attributes:
        half_life_ms: an action's weight in popularity halves in this event time.
        pair_half_life_ms: the same for two items taken one after the other.
        num_recent: items taken last that a new one is paired with, and that recommend.
        max_pairs: partners kept per item; the weakest half goes when there are more.
    """

    half_life_ms: float = 24 * 60 * 60 * 1000.0
    pair_half_life_ms: float = 7 * 24 * 60 * 60 * 1000.0
    num_recent: int = 10
    max_pairs: int = 400

    def __post_init__(self) -> None:
        for name in ("half_life_ms", "pair_half_life_ms", "num_recent", "max_pairs"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"baseline.{name} must be positive, got {getattr(self, name)}")


class RetrievalBaselines:
    """The three baselines over one catalog.

    The catalog is what item updates and actions have named so far and no update has taken out.
    """

    def __init__(self, config: RetrievalBaselinesConfig | None = None) -> None:
        self._config = config or RetrievalBaselinesConfig()
        self._codes: dict[str, int] = {}
        self._available: list[bool] = []
        self._popularity = DecayingWeights(self._config.half_life_ms)
        self._pairs = DecayingPairs(self._config.pair_half_life_ms, self._config.max_pairs)
        self._scorers: dict[str, _Scorer] = {
            POPULAR: lambda taken: {},
            ITEM_ITEM: self._item_item,
            REPEAT: _newest_first,
        }

    def observe_item(self, update: ItemUpdate) -> None:
        """Take an item into the catalog or out of it."""
        if update.available or update.item_id in self._codes:
            self._available[self._code(update.item_id)] = update.available

    def target_ranks(self, batch: Sequence[PositiveAction]) -> dict[str, NDArray[np.int64]]:
        """Return, by baseline, the 1-based rank of each action's item, int64 (B,).

        -1 is a miss, 0 a user without history, as in `domain.learners.RetrievalLearner`.
        """
        order = self._order()
        ranks = {
            name: [self._target_rank(name, action, order) for action in batch] for name in BASELINES
        }
        return {name: np.array(values, np.int64) for name, values in ranks.items()}

    def lists(self, history: History, limit: int) -> dict[str, list[str]]:
        """Return, by baseline, the items it would recommend, best first."""
        order = self._order()
        names = list(self._codes)
        return {
            name: [names[code] for code in self._top(name, history, order, limit)]
            for name in BASELINES
        }

    def learn(self, batch: Sequence[PositiveAction]) -> None:
        """Count actions; an older action counts less, in whatever order they come."""
        for action in batch:
            code = self._code(action.item_id)
            self._popularity.add(code, action.time_ms)
            for other in self._taken(action.user.history):
                if other != code:
                    self._pairs.add(other, code, action.time_ms)

    def _order(self) -> _Order:
        available = np.array(self._available, bool)
        weight = np.where(available, self._popularity.weights(len(available)), -1.0)
        by_rank = np.argsort(-weight, kind="stable")
        rank = np.empty(len(available), np.int64)
        rank[by_rank] = np.arange(1, len(available) + 1)
        return _Order(rank, by_rank[: int(available.sum())])

    def _target_rank(self, name: str, action: PositiveAction, order: _Order) -> int:
        history = action.user.history
        if not len(history):
            return 0
        code = self._codes.get(action.item_id)
        if code is None or not self._available[code]:
            return -1
        used = self._used(name, history)
        if code in used:
            return -1
        scored = self._scored(name, history, used)
        return _rank(code, scored, used, order.rank)

    def _top(self, name: str, history: History, order: _Order, limit: int) -> list[int]:
        used = self._used(name, history)
        scored = self._scored(name, history, used)
        first = sorted(scored, key=lambda code: (-scored[code], order.rank[code]))[:limit]
        for code in order.codes.tolist():
            if len(first) == limit:
                break
            if code not in scored and code not in used:
                first.append(code)
        return first

    def _used(self, name: str, history: History) -> set[int]:
        """Return the items of the catalog that must not be ranked."""
        if name == REPEAT:
            return set()
        known = {self._codes[item] for item in history.item_ids if item in self._codes}
        return {code for code in known if self._available[code]}

    def _scored(self, name: str, history: History, used: set[int]) -> dict[int, float]:
        """Return the scored items that may be ranked, all before those without a score."""
        scored = self._scorers[name](self._taken(history))
        return {
            code: score
            for code, score in scored.items()
            if self._available[code] and code not in used
        }

    def _taken(self, history: History) -> list[int]:
        """Return the codes of the items the user took last, newest first, each once."""
        taken: dict[int, None] = {}
        for at in range(len(history) - 1, -1, -1):
            code = self._codes.get(history.item_ids[at])
            # Bit 0 is the primary head: shown items that nobody took are in histories too.
            if code is not None and int(history.outcomes[at]) & 1:
                taken[code] = None
                if len(taken) == self._config.num_recent:
                    break
        return list(taken)

    def _item_item(self, taken: Sequence[int]) -> dict[int, float]:
        """Return the chance to be taken after each of these items, added up."""
        total: dict[int, float] = {}
        for code in taken:
            partners, weight = self._pairs.of(code)
            for partner, shared in partners.items():
                total[partner] = total.get(partner, 0.0) + shared / weight
        return total

    def _code(self, item_id: str) -> int:
        code = self._codes.get(item_id)
        if code is None:
            code = self._codes[item_id] = len(self._codes)
            self._available.append(True)
        return code


_Scorer: TypeAlias = Callable[[Sequence[int]], dict[int, float]]


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """Popularity as it stands: the rank of each code, available codes first, and those in order."""

    rank: NDArray[np.int64]
    codes: NDArray[np.int64]


def _newest_first(taken: Sequence[int]) -> dict[int, float]:
    return {code: -float(at) for at, code in enumerate(taken)}


def _rank(code: int, scored: Mapping[int, float], used: set[int], rank: NDArray[np.int64]) -> int:
    """Return the rank of a code: scored items by score, then the others by popularity."""
    own = int(rank[code])
    if code in scored:
        score = scored[code]
        return 1 + sum(
            1
            for other, value in scored.items()
            if value > score or (value == score and rank[other] < own)
        )
    ahead = sum(1 for other in used if rank[other] < own)
    ahead += sum(1 for other in scored if rank[other] < own)
    return len(scored) + own - ahead
