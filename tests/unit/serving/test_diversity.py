"""Diverse lists: the obvious greedy choice, caps that give way in their order, never too few."""

from __future__ import annotations

import math

import numpy as np
import pytest

from domain.errors import ConfigError
from domain.events import Features
from domain.features import FeatureSchema, Field
from serving.diversity import AttributeCap, DiversityConfig, diversified


def caps(**at_most: int) -> tuple[AttributeCap, ...]:
    return tuple(AttributeCap(feature=name, at_most=most) for name, most in at_most.items())


def picked(scores, vectors, features, limit, **config) -> list[int]:
    config = DiversityConfig(**config)
    vectors = None if vectors is None else np.array(vectors, np.float32)
    return diversified(np.array(scores, np.float32), vectors, features, limit, config).tolist()


def twin(scores, vectors, features: list[Features], limit: int, config: DiversityConfig):
    """Choose place by place, asking every item everything."""

    def texts(item: int, feature: str) -> set[str]:
        value = features[item].get(feature, ())
        return set(value) if isinstance(value, tuple) else {value}

    def cosine(one: int, other: int) -> float:
        a, b = vectors[one], vectors[other]
        lengths = math.hypot(*a) * math.hypot(*b)
        return float(a @ b) / lengths if lengths else 0.0

    def keeps(item: int, cap: AttributeCap, shown: list[int]) -> bool:
        return all(
            sum(value in texts(other, cap.feature) for other in shown) < cap.at_most
            for value in texts(item, cap.feature)
        )

    scores = scores.astype(float).tolist()
    spread = scores[0] - scores[-1]
    shown: list[int] = []
    while len(shown) < min(limit, len(scores)):
        left = [item for item in range(len(scores)) if item not in shown]
        among = left
        for cap in config.caps:
            among = [item for item in among if keeps(item, cap, shown)] or among
        values = {
            item: config.mmr_lambda * ((scores[item] - scores[-1]) / spread if spread else 1.0)
            - (1 - config.mmr_lambda) * max((cosine(item, other) for other in shown), default=0.0)
            for item in among
        }
        best = max(values.values())
        shown.append(min(item for item, value in values.items() if value > best - 1e-9))
    return shown


@pytest.mark.parametrize("mmr_lambda", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("capped", [(), caps(maker=2), caps(maker=1, tags=2, shelf=3)])
def test_lists_are_those_of_the_obvious_choice(mmr_lambda: float, capped) -> None:
    config = DiversityConfig(mmr_lambda=mmr_lambda, caps=capped)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        num = int(rng.integers(1, 25))
        scores = np.sort(rng.random(num).astype(np.float32))[::-1].copy()
        vectors = rng.standard_normal((num, 3)).astype(np.float32)
        vectors[::7] = 0.0
        features: list[Features] = [
            {
                "maker": f"m{rng.integers(4)}",
                "tags": tuple(f"t{k}" for k in np.flatnonzero(rng.random(4) < 0.4)),
                **({"shelf": f"s{rng.integers(3)}"} if rng.random() < 0.6 else {}),
            }
            for _ in range(num)
        ]
        found = diversified(scores, vectors, features, 10, config).tolist()
        assert found == twin(scores, vectors, features, 10, config)
        assert len(found) == len(set(found)) == min(10, num)


def test_the_like_of_the_first_gives_way_to_something_else() -> None:
    vectors = [[1, 0], [1, 0], [0, 1]]
    assert picked([0.9, 0.8, 0.1], vectors, [{}] * 3, 3) == [0, 1, 2]
    assert picked([0.9, 0.8, 0.1], vectors, [{}] * 3, 3, mmr_lambda=0.4) == [0, 2, 1]


def test_unlike_vectors_of_unknown_items_and_no_vectors_change_nothing() -> None:
    nothing = [[math.nan, math.nan]] * 3
    assert picked([0.9, 0.8, 0.1], nothing, [{}] * 3, 3, mmr_lambda=0.4) == [0, 1, 2]
    assert picked([0.9, 0.8, 0.1], None, [{}] * 3, 2, mmr_lambda=0.4) == [0, 1]
    assert picked([], None, [], 2, mmr_lambda=0.4) == []


def test_caps_hold_while_they_can_and_give_way_from_the_last() -> None:
    features: list[Features] = [
        {"maker": "a", "shelf": "x"},
        {"maker": "a", "shelf": "x"},
        {"maker": "b", "shelf": "x"},
        {"maker": "b", "shelf": "x"},
    ]
    scores = [0.9, 0.8, 0.7, 0.6]
    # One per maker holds for two places; then nothing is left that keeps it.
    assert picked(scores, None, features, 4, caps=caps(maker=1)) == [0, 2, 1, 3]
    # The shelf's cap cannot hold beyond the first place; the maker's still does.
    assert picked(scores, None, features, 3, caps=caps(maker=1, shelf=1)) == [0, 2, 1]
    assert picked(scores, None, features, 3, caps=caps(shelf=1, maker=1)) == [0, 2, 1]
    assert picked(scores, None, features, 3, caps=caps(shelf=3, maker=2)) == [0, 1, 2]


def test_item_without_the_feature_is_under_no_cap() -> None:
    features: list[Features] = [{"maker": "a"}, {"maker": "a"}, {}, {}]
    assert picked([4, 3, 2, 1], None, features, 3, caps=caps(maker=1)) == [0, 2, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiversityConfig(mmr_lambda=1.5), "recommender.diversity.mmr_lambda must be from"),
        (lambda: caps(maker=0), "recommender.diversity.caps must each name a feature"),
        (
            lambda: DiversityConfig(caps=caps(maker=1) + caps(maker=2)),
            "recommender.diversity.caps must name each feature once, got maker, maker",
        ),
        (
            lambda: DiversityConfig(caps=caps(price=1)).check(SCHEMA),
            "recommender.diversity.caps must name categorical or multi-valued fields of items "
            "(maker), got 'price'",
        ),
    ],
)
def test_wrong_settings_are_named(make, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value).startswith(message)


SCHEMA = FeatureSchema(
    fields=(
        Field(name="maker", entity="item", kind="categorical"),
        Field(name="price", entity="item", kind="numeric"),
    )
)
