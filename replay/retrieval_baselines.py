"""Retrieval without learning: what is popular lately, what goes with it, and the same again.

How long "lately" is, is another matter in a shop than in a newsroom: popularity is counted with
several half-lives, and the one that has found most until now is believed next.

All three rank the whole catalog as it stands, as `RetrievalLearner.target_ranks` does: items in the
user's history are taken out first and a target among them is a miss, ties go to the item that
entered the catalog first. Only `repeat` ranks nothing but used items first: it is there to show how
many actions are repetitions, which the others miss by design.

An order is a few scored items on top of popularity, so a rank costs a pass over the scored items
and the history, whatever the size of the catalog.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.requests import History
from domain.state import State
from replay.decaying import DecayingPairs, DecayingWeights

POPULAR, ITEM_ITEM, REPEAT = "popular", "item-item", "repeat"
BASELINES = (POPULAR, ITEM_ITEM, REPEAT)
_FIRST_CAPACITY = 1024
_K = 20
_KEEP = 0.999
"""Each action found before counts so much less with the next: the last thousand decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalBaselinesConfig:
    """What counts how long.

    Attributes:
        half_lives_ms: an action's weight in popularity halves in one of these event times: in the
            one whose order has found most among its best 20 lately.
        pair_half_life_ms: the same for two items taken one after the other.
        num_recent: items taken last that a new one is paired with, and that recommend.
        max_pairs: partners kept per item; the weakest half goes when there are more.
    """

    half_lives_ms: tuple[float, ...] = tuple(60_000.0 * minutes for minutes in (30, 240, 1_440))
    pair_half_life_ms: float = 7 * 24 * 60 * 60 * 1000.0
    num_recent: int = 10
    max_pairs: int = 400

    def __post_init__(self) -> None:
        for name in ("pair_half_life_ms", "num_recent", "max_pairs"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"baseline.{name} must be positive, got {getattr(self, name)}")
        if not self.half_lives_ms or not all(ms > 0 for ms in self.half_lives_ms):
            raise ConfigError(f"baseline.half_lives_ms must be positive, got {self.half_lives_ms}")


class RetrievalBaselines:
    """The three baselines over one catalog.

    The catalog is what item updates and actions have named so far and no update has taken out.
    """

    def __init__(self, config: RetrievalBaselinesConfig | None = None) -> None:
        self._config = config or RetrievalBaselinesConfig()
        self._codes: dict[str, int] = {}
        self._available = np.zeros(_FIRST_CAPACITY, bool)
        self._is_met = np.zeros(_FIRST_CAPACITY, bool)
        self._total = np.zeros(_FIRST_CAPACITY)
        self._popularity = [DecayingWeights(ms) for ms in self._config.half_lives_ms]
        self._found = np.zeros(len(self._popularity))
        self._pairs = DecayingPairs(self._config.pair_half_life_ms, self._config.max_pairs)

    def observe_item(self, update: ItemUpdate) -> None:
        """Take an item into the catalog or out of it."""
        if update.available or update.item_id in self._codes:
            code = self._code(update.item_id)  # first: it may make the columns longer
            self._available[code] = update.available

    def target_ranks(self, batch: Sequence[PositiveAction]) -> dict[str, NDArray[np.int64]]:
        """Return, by baseline, the 1-based rank of each action's item, int64 (B,).

        -1 is a miss, 0 a user without history, as in `domain.learners.RetrievalLearner`.
        """
        orders = [self._order(counts) for counts in self._popularity]
        order = orders[self._chosen]
        ranks = np.array([self._ranks(action, order) for action in batch], np.int64)
        for action in batch:
            self._note(action, orders)
        columns = ranks.reshape(-1, len(BASELINES)).T
        return {name: columns[at].copy() for at, name in enumerate(BASELINES)}

    def lists(self, history: History, limit: int) -> dict[str, list[str]]:
        """Return, by baseline, the items it would recommend, best first."""
        order = self._order(self._popularity[self._chosen])
        names = list(self._codes)
        return {
            name: [names[code] for code in self._top(name, history, order, limit)]
            for name in BASELINES
        }

    def learn(self, batch: Sequence[PositiveAction]) -> None:
        """Count actions; an older action counts less, in whatever order they come."""
        for action in batch:
            code = self._code(action.item_id)
            for counts in self._popularity:
                counts.add(code, action.time_ms)
            for other in self._taken(action.user.history):
                if other != code:
                    self._pairs.add(other, code, action.time_ms)

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            "items": list(self._codes),
            "available": self._available[: len(self._codes)].copy(),
            "popularity": {str(at): one.save() for at, one in enumerate(self._popularity)},
            "found": self._found.copy(),
            "pairs": self._pairs.save(),
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._codes = {}
        for item_id in state["items"]:
            self._code(item_id)
        self._available[: len(self._codes)] = state["available"]
        for at, one in enumerate(self._popularity):
            one.load(state["popularity"][str(at)])
        self._found = state["found"].copy()
        self._pairs.load(state["pairs"])

    @property
    def _chosen(self) -> int:
        """Return which half-life has found most lately; the longest of those that are equal."""
        return len(self._found) - 1 - int(np.argmax(self._found[::-1]))

    def _note(self, action: PositiveAction, orders: Sequence[_Order]) -> None:
        """Note which half-lives would have found an item; the next batch goes by it."""
        code = self._codes.get(action.item_id)
        if code is None or not self._available[code] or not len(action.user.history):
            return
        used = self._used(action.user.history)
        ranks = [_rank(code, _NOTHING_SCORED, used, order.rank) for order in orders]
        self._found *= _KEEP
        self._found += np.array(ranks) <= _K

    def _order(self, counts: DecayingWeights) -> _Order:
        available = self._available[: len(self._codes)]
        weight = np.where(available, counts.weights(len(available)), -1.0)
        by_rank = np.argsort(-weight, kind="stable")
        rank = np.empty(len(available), np.int64)
        rank[by_rank] = np.arange(1, len(available) + 1)
        return _Order(rank, by_rank[: int(available.sum())])

    def _ranks(self, action: PositiveAction, order: _Order) -> tuple[int, int, int]:
        """Return the rank of an action's item by each baseline, in the order of `BASELINES`."""
        history = action.user.history
        if not len(history):
            return 0, 0, 0
        code = self._codes.get(action.item_id)
        if code is None or not self._available[code]:
            return -1, -1, -1
        taken = self._taken(history)
        repeat = _rank(code, self._newest_first(taken), _NOTHING_USED, order.rank)
        used = self._used(history)
        if code in used.tolist():
            return -1, -1, repeat
        popular = _rank(code, _NOTHING_SCORED, used, order.rank)
        return popular, _rank(code, self._item_item(taken, used), used, order.rank), repeat

    def _top(self, name: str, history: History, order: _Order, limit: int) -> list[int]:
        """Return the codes a baseline would recommend: scored ones first, then by popularity."""
        taken = self._taken(history)
        used = _NOTHING_USED if name == REPEAT else self._used(history)
        scored = {
            POPULAR: lambda: _NOTHING_SCORED,
            ITEM_ITEM: lambda: self._item_item(taken, used),
            REPEAT: lambda: self._newest_first(taken),
        }[name]()
        best = np.lexsort((order.rank[scored.codes], -scored.scores))[:limit]
        first: list[int] = scored.codes[best].tolist()
        # No more than these can be in the way of filling the list with what is popular.
        enough = limit + len(scored.codes) + len(used)
        passed_over = {*scored.codes.tolist(), *used.tolist()}
        popular = (code for code in order.codes[:enough].tolist() if code not in passed_over)
        return first + list(islice(popular, limit - len(first)))

    def _used(self, history: History) -> NDArray[np.int64]:
        """Return the items of the catalog that must not be ranked again, each once."""
        known = {self._codes[item] for item in history.item_ids if item in self._codes}
        return np.array([code for code in known if self._available[code]], np.int64)

    def _taken(self, history: History) -> list[int]:
        """Return the codes of the items the user took last, newest first, each once."""
        taken: dict[int, None] = {}
        # Bit 0 is the primary head: shown items that nobody took are in histories too.
        for at in np.flatnonzero(history.outcomes & 1)[::-1].tolist():
            code = self._codes.get(history.item_ids[at])
            if code is not None:
                taken[code] = None
                if len(taken) == self._config.num_recent:
                    break
        return list(taken)

    def _newest_first(self, taken: Sequence[int]) -> _Scored:
        codes = np.array([code for code in taken if self._available[code]], np.int64)
        return _Scored(codes, -np.arange(len(codes), dtype=np.float64))

    def _item_item(self, taken: Sequence[int], used: NDArray[np.int64]) -> _Scored:
        """Return the chance to be taken after each of these items, added up, without used ones."""
        total, is_met = self._total, self._is_met
        met = []
        for code in taken:
            partners, shared, weight = self._pairs.of(code)
            total[partners] += shared / weight
            new = partners[~is_met[partners]]
            is_met[new] = True
            met.append(new)
        codes = np.concatenate(met) if met else np.zeros(0, np.int64)
        scores = total[codes]
        is_met[used] = False
        keep = is_met[codes] & self._available[codes]
        # Scratch space, left as it was found: clearing all of it would cost the whole catalog.
        total[codes] = 0.0
        is_met[codes] = False
        return _Scored(codes[keep], scores[keep])

    def _code(self, item_id: str) -> int:
        code = self._codes.get(item_id)
        if code is None:
            code = self._codes[item_id] = len(self._codes)
            if code == len(self._available):
                self._grow()
            self._available[code] = True
        return code

    def _grow(self) -> None:
        size = 2 * len(self._available)
        for name in ("_available", "_is_met", "_total"):
            column = getattr(self, name)
            grown = np.zeros(size, column.dtype)
            grown[: len(column)] = column
            setattr(self, name, grown)


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """Items that come before all others: available codes, each once, and their scores."""

    codes: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """Popularity as it stands: the rank of each code, available codes first, and those in order."""

    rank: NDArray[np.int64]
    codes: NDArray[np.int64]


_NOTHING_USED = np.zeros(0, np.int64)
_NOTHING_SCORED = _Scored(np.zeros(0, np.int64), np.zeros(0, np.float64))


def _rank(code: int, scored: _Scored, used: NDArray[np.int64], rank: NDArray[np.int64]) -> int:
    """Return the rank of a code: scored items by score, then the others by popularity."""
    own = rank[code]
    more_popular = rank[scored.codes] < own
    found = np.flatnonzero(scored.codes == code)
    if len(found):
        score = scored.scores[found[0]]
        ties = (scored.scores == score) & more_popular
        return 1 + int(np.count_nonzero((scored.scores > score) | ties))
    ahead = np.count_nonzero(rank[used] < own) + np.count_nonzero(more_popular)
    return len(scored.codes) + int(own) - int(ahead)
