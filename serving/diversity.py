"""Lists that are not ten times the same: maximal marginal relevance, and caps per attribute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError
from domain.events import Features
from domain.features import FeatureSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeCap:
    """At most so many items of a list share a value of a feature.

    Attributes:
        feature: a categorical or multi-valued feature of items; one without it is under no cap.
    """

    feature: str
    at_most: int

    def __post_init__(self) -> None:
        if not self.feature or self.at_most < 1:
            raise ConfigError(
                "recommender.diversity.caps must each name a feature and allow at least 1, "
                f"got {self.feature!r} and {self.at_most}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DiversityConfig:
    """How unlike the items of one list are to be.

    Attributes:
        mmr_lambda: weight of an item's own score against its likeness to what stands above it;
            1.0 looks at scores alone.
        caps: at most so many items per value, the most important cap first. When no item is left
            that keeps all of them, a place goes to one that keeps the first, and of those to one
            that keeps the second, and so on: the last ones give way.
    """

    mmr_lambda: float = 1.0
    caps: tuple[AttributeCap, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.mmr_lambda <= 1.0:
            raise ConfigError(
                f"recommender.diversity.mmr_lambda must be from 0.0 to 1.0, got {self.mmr_lambda}"
            )
        names = [cap.feature for cap in self.caps]
        if len(set(names)) < len(names):
            raise ConfigError(
                f"recommender.diversity.caps must name each feature once, got {', '.join(names)}"
            )

    @property
    def is_on(self) -> bool:
        """Return whether lists may differ from the order of the scores."""
        return self.mmr_lambda < 1.0 or bool(self.caps)

    def check(self, schema: FeatureSchema) -> None:
        """Check that the schema declares the capped features.

        Raises:
            ConfigError: naming the feature, and what would do.
        """
        texts = [f.name for f in schema.of("item") if f.kind in ("categorical", "multi")]
        for cap in self.caps:
            if cap.feature not in texts:
                raise ConfigError(
                    "recommender.diversity.caps must name categorical or multi-valued fields of "
                    f"items ({', '.join(texts) or 'the schema declares none'}), got {cap.feature!r}"
                )


def diversified(
    scores_N: NDArray[np.float32],
    vectors_ND: NDArray[np.float32] | None,
    features: Sequence[Features],
    limit: int,
    config: DiversityConfig,
) -> NDArray[np.int64]:
    """Return at most `limit` positions among N items that come best first, in the order to show.

    Each place goes to the item with the largest

        lambda * relevance(item) - (1 - lambda) * max cosine(item, any item above it)

    (Carbonell and Goldstein 1998), relevance being the score on a scale from 0 for the last to 1
    for the first of the N, because probabilities of a few percent do not compare with cosines.
    Ties go to the better score. Never fewer than asked: caps give way before places stay empty.

    Args:
        scores_N: falling.
        limit: places to fill.
        config: lambda and caps.
        vectors_ND: None leaves likeness out; a vector of zeros or NaN is like no other.
        features: of each item, as last described.
    """
    num = len(scores_N)
    weight = config.mmr_lambda if vectors_ND is not None else 1.0
    relevance_N = _from_zero_to_one(scores_N)
    unit_ND = None if vectors_ND is None or weight == 1.0 else _unit(vectors_ND)
    likeness_N = np.zeros(num)
    counters = [_Counter(cap, features) for cap in config.caps]
    left_N = np.ones(num, dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < min(limit, num):
        allowed_N = _allowed(left_N, counters)
        value_N = weight * relevance_N - (1.0 - weight) * likeness_N
        best = int(np.argmax(np.where(allowed_N, value_N, -np.inf)))
        left_N[best] = False
        for counter in counters:
            counter.take(best)
        if unit_ND is not None:
            cosine_N = unit_ND @ unit_ND[best]
            likeness_N = np.maximum(likeness_N, cosine_N) if chosen else cosine_N
        chosen.append(best)
    return np.array(chosen, dtype=np.int64)


class _Counter:
    """How often each value of one feature stands in the list, and who may not come any more."""

    def __init__(self, cap: AttributeCap, features: Sequence[Features]) -> None:
        self._at_most = cap.at_most
        self._values = [_texts(one.get(cap.feature)) for one in features]
        self._having: dict[str, list[int]] = {}
        for place, values in enumerate(self._values):
            for value in values:
                self._having.setdefault(value, []).append(place)
        self._times: dict[str, int] = {}
        self.full_N = np.zeros(len(features), dtype=np.bool_)

    def take(self, place: int) -> None:
        """Count an item of the list."""
        for value in self._values[place]:
            times = self._times[value] = self._times.get(value, 0) + 1
            if times >= self._at_most:
                self.full_N[self._having[value]] = True


def _allowed(left_N: NDArray[np.bool_], counters: Sequence[_Counter]) -> NDArray[np.bool_]:
    """Return who may take the next place: a cap that nobody keeps any more is passed over."""
    allowed_N = left_N
    for counter in counters:
        narrower_N = allowed_N & ~counter.full_N
        if narrower_N.any():
            allowed_N = narrower_N
    return allowed_N


def _texts(value: object) -> frozenset[str]:
    values = value if isinstance(value, tuple) else (value,)
    return frozenset(text for text in values if isinstance(text, str))


def _from_zero_to_one(scores_N: NDArray[np.float32]) -> NDArray[np.float64]:
    scores = scores_N.astype(np.float64)
    if not len(scores) or scores[0] == scores[-1]:
        return np.ones(len(scores))
    return np.asarray((scores - scores[-1]) / (scores[0] - scores[-1]))


def _unit(vectors_ND: NDArray[np.float32]) -> NDArray[np.float64]:
    vectors = np.nan_to_num(vectors_ND.astype(np.float64))
    length_N1 = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit_ND = np.divide(vectors, length_N1, out=np.zeros_like(vectors), where=length_N1 > 0.0)
    return np.asarray(unit_ND)
