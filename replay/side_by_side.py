"""Retrieval and its baselines side by side: same catalog, same actions, same moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.events import ItemUpdate
from domain.examples import LearnReport, PositiveAction
from domain.learners import RetrievalLearner
from domain.requests import Candidates, RetrievalRequest
from domain.state import State
from replay.next_item import NextItemWatch
from replay.retrieval_baselines import BASELINES, RetrievalBaselines

LIST_SIZE = 20
LIST_EVERY = 8
"""Full lists are made for every so many actions: a search costs far more than a rank."""

LIVE = "online"
_POPULAR_SHARE = 0.01


@dataclass(slots=True)
class _Lists:
    """What the recommended lists of one retriever were made of."""

    places: int = 0
    places_with_past: int = 0
    popular_places: int = 0
    surprise_bits: float = 0.0
    items: dict[str, int] = field(default_factory=dict)


class SideBySide:
    """Implements `domain.learners.RetrievalLearner` as the live retriever does, and watches it.

    What it answers and learns is the live retriever's own; baselines rank the same actions.
    """

    def __init__(
        self,
        live: RetrievalLearner,
        baselines: RetrievalBaselines | None,
        counts_lists: Callable[[], bool],
        next_item: NextItemWatch | None = None,
    ) -> None:
        """Watch a retriever.

        Args:
            live: learns and answers.
            baselines: rank beside it; None when they know less than the retriever does.
            counts_lists: whether lists count by now: they are described over the second half.
            next_item: ranks by tuned counting as well; None spares that.
        """
        self._live = live
        self._baselines = baselines
        self._counts_lists = counts_lists
        self._next_item = next_item
        names = BASELINES if baselines is not None else ()
        self._ranks: dict[str, list[int]] = {name: [] for name in names}
        self._lists = {name: _Lists() for name in (LIVE, *names)}
        self._taken: dict[str, int] = {}
        self._num_taken = 0
        self._num_asked = 0

    def observe_item(self, update: ItemUpdate) -> None:
        """Tell the retriever and the baselines."""
        self._live.observe_item(update)
        if self._baselines is not None:
            self._baselines.observe_item(update)
        if self._next_item is not None:
            self._next_item.observe_item(update)

    def retrieve(self, request: RetrievalRequest) -> Candidates:
        """Search the live index."""
        return self._live.retrieve(request)

    def target_ranks(self, batch: Sequence[PositiveAction]) -> NDArray[np.int64]:
        """Return the retriever's ranks; keep those of the baselines."""
        ranks = self._live.target_ranks(batch)
        if self._baselines is not None:
            for name, values in self._baselines.target_ranks(batch).items():
                self._ranks[name].extend(values.tolist())
        if self._next_item is not None:
            self._next_item.rank(batch, ranks, self._live, counts=self._counts_lists())
        if self._counts_lists():
            for action in batch:
                self._describe(action)
        return ranks

    def learn(self, batch: Sequence[PositiveAction]) -> LearnReport:
        """Let the retriever and the baselines learn."""
        if self._baselines is not None:
            self._baselines.learn(batch)
        if self._next_item is not None:
            self._next_item.learn(batch)
        for action in batch:
            self._taken[action.item_id] = self._taken.get(action.item_id, 0) + 1
        self._num_taken += len(batch)
        return self._live.learn(batch)

    def ranks(self) -> dict[str, NDArray[np.int64]]:
        """Return the ranks the baselines gave, in the order of the actions."""
        return {name: np.array(values, np.int64) for name, values in self._ranks.items()}

    def next_item(self) -> dict[str, Any] | None:
        """Return what `NextItemWatch.report` does, None when nobody watched."""
        return None if self._next_item is None else self._next_item.report()

    def lists(self, catalog: int) -> dict[str, dict[str, Any]]:
        """Return what each retriever's lists were made of, over every so many actions.

        Returns:
            `{name: {"lists": ..., "coverage": share of the catalog recommended at least once,
            "novelty_bits": mean -log2 of an item's share of all actions before,
            "popularity_share": places taken by the hundredth of all items taken most until
            then}}`; None when there was no list.
        """
        reason = "nobody with a history took an item in the second half"
        if not self._counts_lists():
            reason = "lists are counted from half of the whole replay on, which was not reached"
        return {name: _summary(one, catalog, reason) for name, one in self._lists.items()}

    def _describe(self, action: PositiveAction) -> None:
        if not len(action.user.history):
            return
        self._num_asked += 1
        if self._num_asked % LIST_EVERY != 1:
            return
        request = RetrievalRequest(
            user=action.user,
            time_ms=action.time_ms,
            limit=LIST_SIZE,
            exclude=frozenset(action.user.history.item_ids),
        )
        lists = {LIVE: list(self._live.retrieve(request).item_ids)}
        if self._baselines is not None:
            lists |= self._baselines.lists(action.user.history, LIST_SIZE)
        bar = self._popular_bar()
        for name, items in lists.items():
            self._count(self._lists[name], items, bar)

    def _count(self, lists: _Lists, items: Sequence[str], bar: int) -> None:
        lists.places += len(items)
        lists.places_with_past += len(items) if self._num_taken else 0
        for item in items:
            taken = self._taken.get(item, 0)
            lists.popular_places += taken >= bar
            # One action more than was seen, so that an item nobody took surprises finitely.
            lists.surprise_bits += float(np.log2((self._num_taken + 1.0) / (taken + 1.0)))
            lists.items[item] = lists.items.get(item, 0) + 1

    def _popular_bar(self) -> int:
        """Return how often an item was taken that is among the hundredth taken most."""
        counts = np.fromiter(self._taken.values(), np.int64, len(self._taken))
        if not len(counts):
            return 1
        rank = max(int(np.ceil(_POPULAR_SHARE * len(counts))), 1)
        return int(np.partition(counts, len(counts) - rank)[len(counts) - rank])

    def save(self) -> State:
        """Return the retriever's own state: a snapshot holds what a server needs."""
        return self._live.save()

    def load(self, state: State) -> None:
        """Load the retriever."""
        self._live.load(state)

    def save_watch(self) -> State:
        """Return what baselines know and what was counted, for a replay that is to go on."""
        return {
            "baselines": None if self._baselines is None else self._baselines.save(),
            "next_item": None if self._next_item is None else self._next_item.save(),
            "ranks": self.ranks(),
            "lists": {name: asdict(one) for name, one in self._lists.items()},
            "taken": dict(self._taken),
            "num_taken": self._num_taken,
            "num_asked": self._num_asked,
        }

    def load_watch(self, state: State) -> None:
        """Become what `save_watch` described; the retriever is loaded apart."""
        if self._baselines is not None:
            self._baselines.load(state["baselines"])
        if self._next_item is not None:
            self._next_item.load(state["next_item"])
        self._ranks = {name: values.tolist() for name, values in state["ranks"].items()}
        self._lists = {name: _Lists(**one) for name, one in state["lists"].items()}
        self._taken = dict(state["taken"])
        self._num_taken = state["num_taken"]
        self._num_asked = state["num_asked"]

    def take_delta(self) -> State:
        """Return what changed in the retriever."""
        return self._live.take_delta()

    def follow(self) -> None:
        """Make the retriever a twin."""
        self._live.follow()

    def check_delta(self, state: State) -> None:
        """Let the retriever check."""
        self._live.check_delta(state)

    def apply_delta(self, state: State) -> None:
        """Let the retriever take the changes over."""
        self._live.apply_delta(state)


def _summary(lists: _Lists, catalog: int, none: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "lists": -(-lists.places // LIST_SIZE),
        "coverage": None,
        "novelty_bits": None,
        "popularity_share": None,
    }
    if not lists.places:
        return {**found, "reason": none}
    found["coverage"] = len(lists.items) / catalog if catalog else None
    if not lists.places_with_past:
        return {**found, "reason": "nothing had been learned of what is taken before these lists"}
    found["novelty_bits"] = lists.surprise_bits / lists.places_with_past
    found["popularity_share"] = lists.popular_places / lists.places_with_past
    return found
