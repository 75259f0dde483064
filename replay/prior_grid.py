"""Counting, tuned: what popularity and transitions reach at the best half-lives of a grid.

    score(user, item) = pop_h(item) / sum(pop_h)
                      + w * sum over the last 3 items i, weight 0.5^k:
                            co_g(i, item) / (sum_j co_g(i, j) + 0.3)

The live retriever starts from a score of this kind and learns its half-lives and weights; the best
point of the grid is chosen afterwards, from what it reached, which is in the baseline's favour.
Ranks are over the whole catalog as it stands, as `RetrievalLearner.target_ranks` gives them.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.requests import History
from domain.state import State
from monitoring.quality import mrr, recall_at_k
from replay.decaying import DecayingWeights

_DAY_MS = 24 * 60 * 60 * 1000.0
_K = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorGridConfig:
    """The grid; every combination is scored.

    Attributes:
        popularity_ms: half-lives of popularity.
        transition_ms: half-lives of transitions.
        weights: what a transition counts against popularity.
        num_recent: items taken last that the next one may follow.
        smoothing: transitions that must be outweighed to be trusted by half.
        max_followers: transitions kept per item, the newest.
    """

    popularity_ms: tuple[float, ...] = tuple(_DAY_MS * days for days in (0.25, 0.5, 1, 2, 3, 7))
    transition_ms: tuple[float, ...] = tuple(_DAY_MS * days for days in (3, 10, 30, 90))
    weights: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    num_recent: int = 3
    smoothing: float = 0.3
    max_followers: int = 2_000


class PriorGrid:
    """Ranks actions by every point of the grid, then counts them.

    Shape legend: H = popularity half-lives, G = transition half-lives, W = weights, N = catalog,
    X = items that a rank by popularity alone is wrong about.
    """

    def __init__(self, config: PriorGridConfig | None = None) -> None:
        self._config = config or PriorGridConfig()
        self._codes: dict[str, int] = {}
        self._gone: set[int] = set()
        self._popularity = [DecayingWeights(ms) for ms in self._config.popularity_ms]
        self._followers: dict[int, tuple[array[int], array[int]]] = {}
        self._transition_G1 = np.array(self._config.transition_ms)[:, None]
        self._weight_W1 = np.array(self._config.weights)[:, None]
        self._popular: list[NDArray[np.int64]] = []
        self._mixed: list[NDArray[np.int64]] = []

    def observe_item(self, update: ItemUpdate) -> None:
        """Take an item into the catalog or out of it."""
        if update.available:
            self._gone.discard(self._code(update.item_id))
        elif update.item_id in self._codes:
            self._gone.add(self._codes[update.item_id])

    def rank(self, batch: Sequence[PositiveAction]) -> None:
        """Rank each action's item by every point of the grid, before it is counted."""
        orders = [self._order(counts) for counts in self._popularity]
        for action in batch:
            popular_H, mixed_HGW = self._ranks(action, orders)
            self._popular.append(popular_H)
            self._mixed.append(mixed_HGW)

    def learn(self, batch: Sequence[PositiveAction]) -> None:
        """Count actions, in order."""
        for action in batch:
            code = self._code(action.item_id)
            for counts in self._popularity:
                counts.add(code, action.time_ms)
            for last in self._taken(action.user.history)[:1]:
                codes, times = self._followers.setdefault(last, (array("q"), array("q")))
                codes.append(code)
                times.append(action.time_ms)
                if len(codes) > 2 * self._config.max_followers:
                    del codes[: -self._config.max_followers]
                    del times[: -self._config.max_followers]

    def table(self, first: int) -> dict[str, Any]:
        """Return what each point reached from action `first` on, and the best by recall.

        Returns:
            `{"popularity": [...], "transitions": [...], "best": {"popularity": ...,
            "transitions": ...}}`; a row has its half-lives in days, its weight, recall@20 and MRR.
        """
        config = self._config
        popular, mixed = self._since(first)
        rows: list[dict[str, Any]] = [
            {"popularity_days": ms / _DAY_MS, **_reached(popular[:, h])}
            for h, ms in enumerate(config.popularity_ms)
        ]
        both: list[dict[str, Any]] = [
            {
                "popularity_days": config.popularity_ms[h] / _DAY_MS,
                "transition_days": config.transition_ms[g] / _DAY_MS,
                "weight": config.weights[w],
                **_reached(mixed[:, h, g, w]),
            }
            for h, g, w in np.ndindex(mixed.shape[1:])
        ]
        return {
            "popularity": rows,
            "transitions": both,
            "best": {"popularity": _best(rows), "transitions": _best(both)},
        }

    def best_ranks(self, first: int) -> NDArray[np.int64]:
        """Return the ranks of the best point with transitions, from action `first` on."""
        _, mixed = self._since(first)
        points = mixed.reshape(len(mixed), prod(mixed.shape[1:]))
        reached = [_reached(points[:, at])[f"recall@{_K}"] or 0.0 for at in range(points.shape[1])]
        return points[:, int(np.argmax(reached))].copy()

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        popular, mixed = self._since(0)
        followers = list(self._followers.values())
        return {
            "items": list(self._codes),
            "gone": sorted(self._gone),
            **{f"popularity_{at}": one.save() for at, one in enumerate(self._popularity)},
            "followed": list(self._followers),
            "sizes": [len(codes) for codes, _ in followers],
            "followers": np.array([one for codes, _ in followers for one in codes], np.int64),
            "times_ms": np.array([one for _, times in followers for one in times], np.int64),
            "popular": popular,
            "mixed": mixed,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._codes = {item_id: code for code, item_id in enumerate(state["items"])}
        self._gone = set(state["gone"])
        for at, one in enumerate(self._popularity):
            one.load(state[f"popularity_{at}"])
        self._followers, begin = {}, 0
        for code, size in zip(state["followed"], state["sizes"], strict=True):
            columns = (state[name][begin : begin + size] for name in ("followers", "times_ms"))
            codes, times = (array("q", column.tolist()) for column in columns)
            self._followers[code] = codes, times
            begin += size
        self._popular, self._mixed = list(state["popular"]), list(state["mixed"])

    def _since(self, first: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        config = self._config
        shape = (len(config.popularity_ms), len(config.transition_ms), len(config.weights))
        popular = np.array(self._popular[first:], np.int64).reshape(-1, shape[0])
        return popular, np.array(self._mixed[first:], np.int64).reshape(-1, *shape)

    def _order(self, counts: DecayingWeights) -> _Order:
        weight_N = counts.weights(len(self._codes)).copy()
        total = weight_N.sum()
        share_N = weight_N / total if total else weight_N
        share_N[list(self._gone)] = -1.0
        by_rank = np.argsort(-share_N, kind="stable")
        ahead = np.empty(len(by_rank), np.int64)
        ahead[by_rank] = np.arange(len(by_rank))
        return _Order(share_N, ahead, -share_N[by_rank])

    def _ranks(
        self, action: PositiveAction, orders: Sequence[_Order]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ranks (H,) by popularity alone and (H, G, W) with transitions."""
        config, history = self._config, action.user.history
        shape = (len(orders), len(config.transition_ms), len(config.weights))
        code = self._codes.get(action.item_id, -1)
        used = {self._codes[item] for item in history.item_ids if item in self._codes}
        if not len(history) or code < 0 or code in used or code in self._gone:
            rank = -1 if len(history) else 0
            return np.full(shape[0], rank, np.int64), np.full(shape, rank, np.int64)
        followers, bonus_GF = self._bonus(self._taken(history), action.time_ms)
        own_G = bonus_GF[:, followers == code].sum(axis=1)
        hidden = np.array(sorted(used), np.int64)
        kept = ~np.isin(followers, hidden) & (followers != code)
        others, bonus_GX = followers[kept], bonus_GF[:, kept]
        popular, mixed = np.empty(shape[0], np.int64), np.empty(shape, np.int64)
        for h, order in enumerate(orders):
            own = order.share_N[code]
            popular[h] = 1 + order.ahead_N[code] - order.num_above(own, code, hidden)
            own_GW = own + own_G[:, None] * self._weight_W1.T
            scores_GWX = order.share_N[others] + bonus_GX[:, None, :] * self._weight_W1
            is_above = scores_GWX > own_GW[..., None]
            is_above |= (scores_GWX == own_GW[..., None]) & (others < code)
            is_above &= order.share_N[others] >= 0.0
            for g, w in np.ndindex(shape[1:]):
                value = own_GW[g, w]
                # With a bonus of its own the item stands above some that are more popular.
                above = order.ahead_N[code] if value == own else order.num_more(value)
                above -= order.num_above(value, code, hidden)
                above -= order.num_above(value, code, others)
                mixed[h, g, w] = 1 + above + int(is_above[g, w].sum())
        return popular, mixed

    def _bonus(
        self, taken: Sequence[int], time_ms: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return what followed the last items, and what that is worth, float64 (G, F)."""
        found, worth = [np.zeros(0, np.int64)], [np.zeros((len(self._transition_G1), 0))]
        for k, last in enumerate(taken[: self._config.num_recent]):
            if last not in self._followers:
                continue
            codes, times = (np.array(column) for column in self._followers[last])
            count_GF = np.exp2(-(time_ms - times) / self._transition_G1)
            share_GF = count_GF / (count_GF.sum(axis=1, keepdims=True) + self._config.smoothing)
            found.append(codes)
            worth.append(0.5**k * share_GF)
        followers, place = np.unique(np.concatenate(found), return_inverse=True)
        bonus_GF = np.zeros((len(self._transition_G1), len(followers)))
        all_GF = np.concatenate(worth, axis=1)
        for g in range(len(bonus_GF)):
            bonus_GF[g] = np.bincount(place, weights=all_GF[g], minlength=len(followers))
        return followers, bonus_GF

    def _taken(self, history: History) -> list[int]:
        """Return the items a user took last, newest first, each once."""
        taken: dict[int, None] = {}
        for item_id, outcome in zip(
            reversed(history.item_ids), reversed(history.outcomes.tolist()), strict=True
        ):
            code = self._codes.get(item_id)
            # Bit 0 is the primary head: shown items that nobody took are in histories too.
            if code is not None and outcome & 1:
                taken[code] = None
                if len(taken) == self._config.num_recent:
                    break
        return list(taken)

    def _code(self, item_id: str) -> int:
        return self._codes.setdefault(item_id, len(self._codes))


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """Popularity of one half-life as it stands.

    Attributes:
        share_N: share of all actions; -1 for items taken out.
        ahead_N: how many items stand before each.
        falling_N: shares from most to least popular, negated, so that they rise.
    """

    share_N: NDArray[np.float64]
    ahead_N: NDArray[np.int64]
    falling_N: NDArray[np.float64]

    def num_more(self, value: float) -> int:
        """Return how many items are more popular than a value."""
        return int(np.searchsorted(self.falling_N, -value, side="left"))

    def num_above(self, value: float, code: int, codes: NDArray[np.int64]) -> int:
        """Return how many of some items come before one that has this value."""
        share = self.share_N[codes]
        return int(np.count_nonzero((share > value) | ((share == value) & (codes < code))))


def _reached(ranks: NDArray[np.int64]) -> dict[str, Any]:
    asked = ranks[ranks != 0]
    return {f"recall@{_K}": recall_at_k(asked, _K), "mrr": mrr(asked)}


def _best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return max(rows, key=lambda row: row[f"recall@{_K}"] or 0.0)
