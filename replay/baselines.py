"""Baselines: counting, the floor that every learned model has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.features import ITEM_ID, USER_ID, FeatureSchema, Field
from domain.requests import RankingRequest

_FIRST_CAPACITY = 1024

_ValueReader: TypeAlias = Callable[[RankingRequest, int], str]


class CounterBaseline:
    """Smoothed click rates of some keys, added up as log-odds.

    With r_k the smoothed positive rate of key k's present value and g the global rate,

        logit p = logit g + sum over k of (logit r_k - logit g),   r_k = (c_k + s g) / (n_k + s)

    where n_k labels were counted for the value, c_k of them positive, and s is the prior strength.
    A value never seen adds nothing; with a single key p is just its smoothed rate. As a naive Bayes
    model does, it takes the keys for independent.

    Labels count from the moment `observe` is called: reveal them with their real delay.
    """

    def __init__(
        self,
        name: str,
        keys: Sequence[str],
        schema: FeatureSchema,
        prior_strength: float = 5.0,
    ) -> None:
        """Count labels of the primary head per value of each key.

        Args:
            name: name under which results are reported.
            keys: "user", "item" or names of categorical fields of the schema.
            schema: says to which entity a field belongs.
            prior_strength: how many labels of the global rate every value starts with. On
                KuaiRand-Pure everything from 4 to 6 gives the same quality to three digits.

        Raises:
            ConfigError: a key is unknown, or the prior is not positive.
        """
        if not prior_strength > 0.0:
            raise ConfigError(f"baseline.prior_strength must be positive, got {prior_strength}")
        if not keys:
            raise ConfigError("baseline.keys must name at least one field")
        self._name = name
        self._values_of = tuple(_value_reader(schema, key) for key in keys)
        self._prior = prior_strength
        self._all = _Count()
        self._counts: tuple[dict[str, _Count], ...] = tuple({} for _ in keys)

    @property
    def name(self) -> str:
        """Return the name under which results are reported."""
        return self._name

    def predict(self, request: RankingRequest) -> NDArray[np.float64]:
        """Return the probability of a positive for each item, float64 (N,)."""
        global_rate = (self._all.positives + 1.0) / (self._all.labels + 2.0)
        global_logit = _logit(global_rate)
        pseudo = self._prior * global_rate
        logits_N = np.full(len(request.item_ids), global_logit)
        for index in range(len(request.item_ids)):
            for value_of, counts in zip(self._values_of, self._counts, strict=True):
                count = counts.get(value_of(request, index))
                if count is not None:
                    rate = (count.positives + pseudo) / (count.labels + self._prior)
                    logits_N[index] += _logit(rate) - global_logit
        probabilities_N: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits_N))
        return probabilities_N

    def observe(self, request: RankingRequest, item_index: int, label: float) -> None:
        """Count the label, 0.0 or 1.0, that became known for one item of a request."""
        self._all.add(label)
        for value_of, counts in zip(self._values_of, self._counts, strict=True):
            value = value_of(request, item_index)
            if value:
                counts.setdefault(value, _Count()).add(label)


class RecentPopularity:
    """Retrieval by what was taken lately: an action's weight halves every `half_life_ms`.

    The catalog is what item updates and actions have named so far and no update has taken out.
    """

    def __init__(self, half_life_ms: float) -> None:
        if not half_life_ms > 0.0:
            raise ConfigError(f"baseline.half_life_ms must be positive, got {half_life_ms}")
        self._half_life_ms = half_life_ms
        self._codes: dict[str, int] = {}
        self._weights = np.zeros(_FIRST_CAPACITY)
        self._available = np.zeros(_FIRST_CAPACITY, dtype=bool)
        self._origin_ms: int | None = None

    def observe_item(self, update: ItemUpdate) -> None:
        """Take an item into the catalog or out of it."""
        self._available[self._code(update.item_id)] = update.available

    def target_ranks(self, batch: Sequence[PositiveAction]) -> NDArray[np.int64]:
        """Return the 1-based rank of each action's item in the catalog as it stands, int64 (B,).

        What is in the user's history is left out of the ranking, the action's own item never is.
        Equally popular items rank by age in the catalog. -1 when the item is not in the catalog, 0
        when the user has no history (as in `domain.learners.RetrievalLearner`).
        """
        ranks = self._ranks()
        return np.array([self._target_rank(action, ranks) for action in batch], np.int64)

    def learn(self, batch: Sequence[PositiveAction]) -> None:
        """Count actions; an older action counts less, in whatever order they come."""
        for action in batch:
            code = self._code(action.item_id)
            self._weights[code] += self._increment(action.time_ms)

    def top(self, limit: int) -> tuple[str, ...]:
        """Return the most popular items of the catalog, best first."""
        names = list(self._codes)
        order = self._order()[:limit]
        return tuple(names[code] for code in order if self._available[code])

    def _order(self) -> NDArray[np.int64]:
        size = len(self._codes)
        weights = np.where(self._available[:size], self._weights[:size], -1.0)
        return np.argsort(-weights, kind="stable")

    def _ranks(self) -> NDArray[np.int64]:
        order = self._order()
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(1, len(order) + 1)
        return ranks

    def _target_rank(self, action: PositiveAction, ranks: NDArray[np.int64]) -> int:
        history = action.user.history.item_ids
        if not history:
            return 0
        code = self._codes.get(action.item_id)
        if code is None or not self._available[code]:
            return -1
        seen = {self._codes[item] for item in history if item in self._codes}
        above = sum(1 for other in seen if ranks[other] < ranks[code] and self._available[other])
        return int(ranks[code]) - above

    def _code(self, item_id: str) -> int:
        code = self._codes.get(item_id)
        if code is None:
            code = self._codes[item_id] = len(self._codes)
            if code == len(self._weights):
                self._weights = np.concatenate([self._weights, np.zeros(code)])
                self._available = np.concatenate([self._available, np.zeros(code, dtype=bool)])
            self._available[code] = True
        return code

    def _increment(self, time_ms: int) -> float:
        """Return the weight of an action now: it grows with time, so that old ones need no decay.

        Before the growth outruns a float all weights are scaled down, by a power of two: exact, but
        for actions some 1,000 half-lives old, which become 0.
        """
        if self._origin_ms is None:
            self._origin_ms = time_ms
        halvings = (time_ms - self._origin_ms) / self._half_life_ms
        if halvings > 500.0:
            shift = int(halvings)
            self._weights *= 2.0**-shift if shift < 1000 else 0.0
            self._origin_ms += round(shift * self._half_life_ms)
            halvings = (time_ms - self._origin_ms) / self._half_life_ms
        return float(2.0 ** max(halvings, -1000.0))


class _Count:
    """Labels seen and how many of them were positive."""

    __slots__ = ("labels", "positives")

    def __init__(self) -> None:
        self.labels = 0
        self.positives = 0.0

    def add(self, label: float) -> None:
        self.labels += 1
        self.positives += label


def _value_reader(schema: FeatureSchema, key: str) -> _ValueReader:
    """Return what reads a key's value for one item of a request, "" when it is not known."""
    if key == USER_ID:
        return lambda request, index: request.user.user_id
    if key == ITEM_ID:
        return lambda request, index: request.item_ids[index]
    for field in schema.fields:
        if field.name == key and field.kind == "categorical":
            return _feature_reader(field)
    raise ConfigError(f"baseline.keys: {key!r} is neither an id nor a categorical field")


def _feature_reader(field: Field) -> _ValueReader:
    name = field.name
    match field.entity:
        case "user":
            return lambda request, index: str(request.user.features.get(name, ""))
        case "item":
            return lambda request, index: str(request.item_features[index].get(name, ""))
        case "context":
            return lambda request, index: str(request.context.get(name, ""))


def _logit(rate: float) -> float:
    return math.log(rate / (1.0 - rate))
