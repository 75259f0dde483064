"""What models are asked with: a user as known now, and the items to score.

Built by one piece of code (`stream.feature_store`) in trainer and server alike, so that training
and serving never see different features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from domain.events import Features
from domain.filters import ItemCondition


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """A user's recent actions, oldest first; T entries.

    One entry is one (impression, item) with known outcome, or one organic action.

    Attributes:
        item_ids: T item ids.
        times_ms: int64 (T,), when the item was shown (organic: when the action happened).
        outcomes: int64 (T,), bit h set when label head h was positive; 0 is "known, no action".
    """

    item_ids: tuple[str, ...] = ()
    times_ms: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    outcomes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True, slots=True, eq=False)
class UserView:
    """A user as known at one moment.

    Attributes:
        last_impression_ms: time of her last shown list, None before the first.
        session_position: lists shown in the running session before now; 0 at its start.
        features: latest `UserUpdate`, empty when there was none.
    """

    user_id: str
    history: History = field(default_factory=History)
    features: Features = field(default_factory=dict)
    last_impression_ms: int | None = None
    session_position: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class RankingRequest:
    """N items to be scored for one user at one moment.

    Attributes:
        item_features: latest `ItemUpdate` of each item, empty when there was none; N long.
        time_ms: event time of the request; nothing later may have been used to build it.
    """

    user: UserView
    item_ids: tuple[str, ...]
    item_features: tuple[Features, ...]
    time_ms: int
    context: Features = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class CapturedRequest:
    """A ranking request encoded as numbers, exactly as it stood at scoring time; N items.

    The same capture is scored now and learned from later, when its labels are known, so features
    (counters above all) can never contain what happened in between.

    Attributes:
        arrays: named arrays whose meaning only the ranker that made them knows.
    """

    user_id: str
    item_ids: tuple[str, ...]
    time_ms: int
    arrays: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class RankingScores:
    """What a ranker says of a captured request; N items, H heads.

    Attributes:
        probabilities: float32 (N, H), calibrated; column h belongs to head h of the schema.
        hidden: float32 (N, D), last representation before the heads, the error memory's key.
    """

    probabilities: NDArray[np.float32]
    hidden: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RetrievalRequest:
    """A search for candidates.

    Attributes:
        limit: how many candidates are wanted; fewer come only when fewer are eligible.
        exclude: item ids that must not be returned (seen items, deny lists).
        allow: when given, only these item ids may be returned.
        where: conditions that every returned item meets, all of them.
        context: features of the moment; popular items may differ by them.
    """

    user: UserView
    time_ms: int
    limit: int
    exclude: frozenset[str] = frozenset()
    allow: frozenset[str] | None = None
    where: tuple[ItemCondition, ...] = ()
    context: Features = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Retrieved items, best first; scores float32 of the same length."""

    item_ids: tuple[str, ...]
    scores: NDArray[np.float32]
