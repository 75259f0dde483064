"""The streaming prior: what counting alone says about every item, before any weight is learned.

Retrieval scores start from `a * log(prior + eps)`, with

    prior(user, item) = sum_h m_h * popularity share of the item at half-life h
                      + sum_{g,k} w_gk * share of item among what followed the user's k-th last item

This module counts (NumPy, no gradients); `retrieval.prior_weights` learns a, eps, m and w. All
shares are multiplied by the number of items, so that 1.0 means "as likely as any other", whatever
the size of the catalog.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.state import State
from domain.state_reading import StateReader
from retrieval.id_rows import UNKNOWN
from retrieval.popularity import DecayedPopularity
from retrieval.transitions import DecayedTransitions

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorConfig:
    """What is counted, and how fast it is forgotten.

    Attributes:
        popularity_half_lives_ms: half-lives of popularity; their blend is learned.
        transition_half_lives_ms: half-lives of transitions; their weights are learned.
        num_recent: how many of the user's last items predict the next one.
        max_successors: successors kept per item.
        smoothing: transitions that an item's successors must outweigh to be trusted by half.
        learning_rate: step size (Adam) of a, log eps, log m and log w.
    """

    popularity_half_lives_ms: tuple[int, ...] = (_HOUR_MS, 6 * _HOUR_MS, _DAY_MS, 7 * _DAY_MS)
    transition_half_lives_ms: tuple[int, ...] = (30 * _DAY_MS,)
    num_recent: int = 3
    max_successors: int = 64
    smoothing: float = 0.3
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        for name in ("popularity_half_lives_ms", "transition_half_lives_ms"):
            half_lives = getattr(self, name)
            if not half_lives or min(half_lives) <= 0:
                raise ConfigError(
                    f"retrieval.prior.{name} must hold positive half-lives, got {half_lives}"
                )
        for name in ("num_recent", "max_successors", "smoothing", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"retrieval.prior.{name} must be positive, got {getattr(self, name)}"
                )

    @property
    def num_transition_weights(self) -> int:
        """Return how many weights w_gk there are."""
        return len(self.transition_half_lives_ms) * self.num_recent


@dataclass(frozen=True, slots=True, eq=False)
class PriorFeatures:
    """What the counts say about R items and B users.

    Shape legend: H = popularity half-lives, P = (user, item) pairs with a transition, F =
    transition weights (half-life major, then recency).

    Attributes:
        shares_HR: float32, popularity share times the number of items.
        pair_user: int64 (P,), user of each pair, ascending.
        pair_column: int64 (P,), position of the pair's item among the R items.
        pair_values_PF: float32, transition shares times the number of items.
    """

    shares_HR: NDArray[np.float32]
    pair_user: NDArray[np.int64]
    pair_column: NDArray[np.int64]
    pair_values_PF: NDArray[np.float32]


class StreamingPrior:
    """Popularity and transition counts of one catalog."""

    def __init__(self, config: PriorConfig) -> None:
        self._num_weights = config.num_transition_weights
        self._num_recent = config.num_recent
        self._popularity = DecayedPopularity(config.popularity_half_lives_ms)
        self._transitions = DecayedTransitions(
            config.transition_half_lives_ms,
            max_successors=config.max_successors,
            smoothing=config.smoothing,
        )
        self._num_rows = 0

    def grow(self, num_rows: int) -> None:
        """Make room for rows below `num_rows`."""
        self._popularity.grow(num_rows)
        self._transitions.grow(num_rows)
        self._num_rows = max(self._num_rows, num_rows)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """Forget rows that now belong to other items."""
        self._popularity.reset(rows)
        self._transitions.reset(rows)

    def learn(
        self, rows: NDArray[np.int64], last: NDArray[np.int64], times_ms: NDArray[np.int64]
    ) -> None:
        """Count M actions: row taken, the same user's row just before (UNKNOWN: none), time."""
        self._popularity.learn(rows, times_ms)
        follows = last != UNKNOWN
        self._transitions.learn(last[follows], rows[follows], times_ms[follows])

    def shares(self, rows: NDArray[np.int64] | None, num_items: int) -> NDArray[np.float32]:
        """Return popularity shares times `num_items`, float32 (H, R); None asks for all rows."""
        return np.asarray(self._popularity.shares(rows) * num_items, dtype=np.float32)

    def features(
        self,
        recent_BK: NDArray[np.int64],
        times_ms: NDArray[np.int64],
        rows: NDArray[np.int64] | None,
        num_items: int,
    ) -> PriorFeatures:
        """Say what the counts know of B users and R items.

        Args:
            recent_BK: the user's last K rows, newest first, UNKNOWN where there is none.
            times_ms: int64 (B,), time of each request.
            rows: ascending rows asked for, None for all.
            num_items: size of the catalog, which shares are multiplied by.
        """
        num_recent = recent_BK.shape[1]
        found = self._transitions.successors(recent_BK.ravel(), times_ms.repeat(num_recent))
        column_E, keep_E = _columns(found.rows, rows)
        query_E, column_E = found.query[keep_E], column_E[keep_E]
        user_E, recency_E = np.divmod(query_E, num_recent)
        num_columns = self._num_rows if rows is None else len(rows)
        pair_P, pair_E = np.unique(user_E * num_columns + column_E, return_inverse=True)
        values_PF = np.zeros((len(pair_P), self._num_weights))
        for g, shares_E in enumerate(found.shares[:, keep_E]):
            # An item may be listed twice among the last K, but then with different recency: every
            # (pair, weight) is hit at most once, so plain assignment is enough.
            values_PF[pair_E, g * self._num_recent + recency_E] = shares_E
        pair_user, pair_column = np.divmod(pair_P, max(num_columns, 1))
        return PriorFeatures(
            shares_HR=self.shares(rows, num_items),
            pair_user=pair_user,
            pair_column=pair_column,
            pair_values_PF=np.asarray(values_PF * num_items, dtype=np.float32),
        )

    def successor_rows(self, recent_K: NDArray[np.int64], time_ms: int) -> NDArray[np.int64]:
        """Return the rows that followed any of one user's last items, ascending."""
        times = np.full(len(recent_K), time_ms, dtype=np.int64)
        return np.unique(self._transitions.successors(recent_K, times).rows)

    def take_delta(self) -> State:
        """Return what changed of both sets of counts since the last call."""
        return {
            "popularity": self._popularity.take_delta(),
            "transitions": self._transitions.take_delta(),
        }

    def read_delta(self, reader: StateReader, num_rows: int) -> State:
        """Check what `take_delta` of the counts of `num_rows` rows returned.

        Raises:
            SnapshotError: it is something else.
        """
        transitions = reader.part("transitions")
        return {
            "popularity": self._popularity.read_delta(reader.part("popularity"), num_rows),
            "transitions": self._transitions.read_delta(transitions, num_rows),
        }

    def apply_delta(self, delta: State, num_rows: int) -> None:
        """Count as the other does, `num_rows` rows."""
        self.grow(num_rows)
        self._popularity.apply_delta(delta["popularity"])
        self._transitions.apply_delta(delta["transitions"])

    def truncate(self, num_rows: int) -> None:
        """Take away the rows from `num_rows` on, which nobody has acted upon."""
        self._popularity.truncate(num_rows)
        self._transitions.truncate(num_rows)
        self._num_rows = min(self._num_rows, num_rows)

    def save(self) -> State:
        """Return both sets of counts."""
        return {"popularity": self._popularity.save(), "transitions": self._transitions.save()}

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._popularity.load(state["popularity"])
        self._transitions.load(state["transitions"])
        self._num_rows = len(state["transitions"]["next"])


def _columns(
    found_E: NDArray[np.int64], rows: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the position of each found row among the ascending `rows`, and whether it is there."""
    if rows is None:
        return found_E, np.ones(len(found_E), dtype=np.bool_)
    if not len(rows):
        return found_E, np.zeros(len(found_E), dtype=np.bool_)
    column_E = np.minimum(np.searchsorted(rows, found_E), len(rows) - 1)
    return column_E, rows[column_E] == found_E
