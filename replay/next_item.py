"""How well the next item is found: beside tuned counting, in slices, and through the index.

Slices are by how active the user is and how old the item. The index is searched for some of the
actions, because what a server answers comes through it and not from an exact rank.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.learners import RetrievalLearner
from domain.requests import RetrievalRequest
from domain.state import State
from monitoring.quality import mrr, recall_at_k
from replay.prior_grid import PriorGrid

_K = 20
_SEARCH_EVERY = 4
"""One action in so many is also searched for through the index: a search costs ten ranks."""

_HOUR_MS = 60 * 60 * 1000
_ACTIVITY = ((1, 2), (3, 9), (10, 29), (30, None))
"""Items in the user's history, first and last of each group."""
_AGE = (
    ("never seen before", 0, 1),
    ("first day", 1, 24 * _HOUR_MS),
    ("first week", 24 * _HOUR_MS, 7 * 24 * _HOUR_MS),
    ("first month", 7 * 24 * _HOUR_MS, 30 * 24 * _HOUR_MS),
    ("older", 30 * 24 * _HOUR_MS, 2**62),
)
"""Event time since the item was first taken; from, and below."""
_COLUMNS = ("ranks", "activity", "age_ms")


@dataclass(slots=True)
class _Searched:
    """What searches through the index found, beside the exact ranks of the same actions."""

    found: int = 0
    within_exact: int = 0
    lists: int = 0


@dataclass(slots=True)
class NextItemWatch:
    """Watches a retriever rank; tells what it saw of actions from the second half on."""

    grid: PriorGrid = field(default_factory=PriorGrid)
    _ranks: array[int] = field(default_factory=lambda: array("q"))
    _activity: array[int] = field(default_factory=lambda: array("q"))
    _age_ms: array[int] = field(default_factory=lambda: array("q"))
    _first_taken_ms: dict[str, int] = field(default_factory=dict)
    _searched: _Searched = field(default_factory=_Searched)
    _first: int | None = None

    def observe_item(self, update: ItemUpdate) -> None:
        """Tell the grid."""
        self.grid.observe_item(update)

    def rank(
        self,
        batch: Sequence[PositiveAction],
        ranks: NDArray[np.int64],
        live: RetrievalLearner,
        *,
        counts: bool,
    ) -> None:
        """Rank a batch by the grid, and keep the retriever's ranks of it.

        Args:
            batch: what users took, not yet learned from.
            ranks: the retriever's own.
            live: is searched for some of them.
            counts: whether the second half has begun.
        """
        if counts and self._first is None:
            self._first = len(self._ranks)
        self.grid.rank(batch)
        for action, rank in zip(batch, ranks.tolist(), strict=True):
            self._ranks.append(rank)
            self._activity.append(len(action.user.history))
            first_ms = self._first_taken_ms.get(action.item_id)
            age_ms = 0 if first_ms is None else max(action.time_ms - first_ms, 1)
            self._age_ms.append(age_ms)
            if counts and rank != 0 and len(self._ranks) % _SEARCH_EVERY == 0:
                self._search(action, rank, live)

    def learn(self, batch: Sequence[PositiveAction]) -> None:
        """Let the grid count."""
        self.grid.learn(batch)
        for action in batch:
            self._first_taken_ms.setdefault(action.item_id, action.time_ms)

    def save(self) -> State:
        """Return everything `load` needs, as plain data."""
        return {
            "grid": self.grid.save(),
            **{name: np.array(getattr(self, f"_{name}"), np.int64) for name in _COLUMNS},
            "items": list(self._first_taken_ms),
            "first_taken_ms": np.array([*self._first_taken_ms.values()], np.int64),
            "searched": asdict(self._searched),
            "first": self._first,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self.grid.load(state["grid"])
        for name in _COLUMNS:
            setattr(self, f"_{name}", array("q", state[name].tolist()))
        first_taken_ms = state["first_taken_ms"].tolist()
        self._first_taken_ms = dict(zip(state["items"], first_taken_ms, strict=True))
        self._searched = _Searched(**state["searched"])
        self._first = state["first"]

    def _search(self, action: PositiveAction, rank: int, live: RetrievalLearner) -> None:
        history = action.user.history
        request = RetrievalRequest(
            user=action.user,
            time_ms=action.time_ms,
            limit=_K,
            exclude=frozenset(history.item_ids),
        )
        self._searched.lists += 1
        self._searched.found += action.item_id in live.retrieve(request).item_ids
        self._searched.within_exact += 0 < rank <= _K

    def report(self) -> dict[str, Any]:
        """Return the second half: the grid, slices beside its best point, and the index."""
        first = len(self._ranks) if self._first is None else self._first
        online, counted = np.array(self._ranks[first:], np.int64), self.grid.best_ranks(first)
        activity = np.array(self._activity[first:], np.int64)
        age_ms = np.array(self._age_ms[first:], np.int64)
        lists = self._searched.lists
        return {
            "all": _beside(online, counted),
            "grid": self.grid.table(first),
            "by_activity": {
                f"{low} to {high}" if high else f"{low} and more": _beside(online, counted, among)
                for low, high in _ACTIVITY
                for among in [(activity >= low) & (activity <= (high or 2**62))]
            },
            "by_item_age": {
                name: _beside(online, counted, (age_ms >= low) & (age_ms < below))
                for name, low, below in _AGE
            },
            "index": {
                "lists": lists,
                f"recall@{_K}": self._searched.found / lists if lists else None,
                f"exact_recall@{_K}": self._searched.within_exact / lists if lists else None,
            },
        }


def _beside(
    online: NDArray[np.int64],
    counted: NDArray[np.int64],
    among: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    """Return recall and MRR of the retriever and of counting on the same actions."""
    asked = online != 0 if among is None else among & (online != 0)
    return {
        "predictions": int(asked.sum()),
        **{
            name: {f"recall@{_K}": recall_at_k(ranks[asked], _K), "mrr": mrr(ranks[asked])}
            for name, ranks in (("online", online), ("counted", counted))
        },
    }


def next_item_in_words(report: dict[str, Any]) -> list[str]:
    """Return what a report says, one sentence each."""
    sentences = []
    for name, words in (("popularity", "popularity"), ("transitions", "popularity + transitions")):
        best = report["grid"]["best"][name]
        sentences.append(
            f"{words}, best of {len(report['grid'][name])} settings: recall@{_K} "
            f"{_number(best[f'recall@{_K}'])}, MRR {_number(best['mrr'])}"
        )
    index = report["index"]
    sentences.append(
        f"searched through the index ({index['lists']:,} lists): recall@{_K} "
        f"{_number(index[f'recall@{_K}'])}, by exact rank {_number(index[f'exact_recall@{_K}'])}"
    )
    return sentences


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"
