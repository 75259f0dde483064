"""Who gets a row: the exact rule, the two rules of chance, and what they remember."""

from __future__ import annotations

import numpy as np
import pytest

from domain.errors import SnapshotError
from domain.state import state_hash
from ranking.admission import Admission, AdmissionRule, chance_of

MANY = np.arange(1, 40_001)


def admission(rule: AdmissionRule, min_count: int, seed: int = 3) -> Admission:
    return Admission(rule, min_count, 100_000, seed)


@pytest.mark.parametrize(
    ("threshold", "chance"), [(1, 0.95), (2, 0.7764), (5, 0.4507), (10, 0.2589)]
)
def test_even_chance_of_one_sighting_is_monolith_s(threshold: int, chance: float) -> None:
    (got,) = chance_of("even_chance", np.array([1]), threshold)
    assert got == pytest.approx(chance, abs=5e-5)


@pytest.mark.parametrize("threshold", [1, 2, 5, 10])
def test_even_chance_is_95_percent_after_as_many_sightings_as_asked_for(threshold: int) -> None:
    one_by_one = 1 - (1 - chance_of("even_chance", np.ones(1, np.int64), threshold)) ** threshold
    (together,) = chance_of("even_chance", np.array([threshold]), threshold)
    assert one_by_one == pytest.approx(0.95)
    assert together == pytest.approx(0.95)


def test_uneven_chance_is_the_count_s_share_of_the_threshold() -> None:
    assert chance_of("chance", np.array([1, 3, 4, 9]), 4).tolist() == [0.25, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("rule", ["chance", "even_chance"])
@pytest.mark.parametrize("count", [1, 3])
def test_share_of_admitted_ids_is_the_chance(rule: AdmissionRule, count: int) -> None:
    counts = np.full(len(MANY), count)
    (expected,) = chance_of(rule, counts[:1], 5)
    got = admission(rule, 5).admits(MANY, counts, 0).mean()
    # Four standard deviations of a share of 40,000.
    assert got == pytest.approx(expected, abs=4 * np.sqrt(0.25 / len(MANY)))


def test_draws_of_later_batches_do_not_repeat_earlier_ones() -> None:
    each, counts = admission("even_chance", 2), np.ones(len(MANY), np.int64)
    first, second = each.admits(MANY, counts, 0), each.admits(MANY, counts, 1)
    expected = 0.7764**2
    assert (first & second).mean() == pytest.approx(expected, abs=0.01)


def test_draw_does_not_depend_on_who_else_is_in_the_batch() -> None:
    counts = np.ones(len(MANY), np.int64)
    all_together = admission("chance", 3).admits(MANY, counts, 0)
    backwards = admission("chance", 3).admits(MANY[::-1].copy(), counts, 0)
    some = admission("chance", 3).admits(MANY[100:200], counts[100:200], 0)
    assert np.array_equal(all_together, backwards[::-1])
    assert np.array_equal(all_together[100:200], some)


def test_other_seeds_draw_otherwise() -> None:
    counts = np.ones(len(MANY), np.int64)
    one, other = (admission("chance", 2, seed).admits(MANY, counts, 0) for seed in (3, 4))
    assert (one == other).mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("rule", ["count", "chance", "even_chance"])
def test_admission_goes_on_alike_after_save_and_load(rule: AdmissionRule) -> None:
    counts = np.ones(len(MANY), np.int64)
    kept, restored = admission(rule, 3), admission(rule, 3)
    for time_ms in range(2):
        kept.admits(MANY, counts, time_ms)
    restored.load(kept.save())
    assert np.array_equal(kept.admits(MANY, counts, 3), restored.admits(MANY, counts, 3))
    assert state_hash(kept.save()) == state_hash(restored.save())


def test_count_rule_admits_at_the_third_sighting_exactly() -> None:
    each = admission("count", 3)
    ids, once = np.array([5, 6]), np.ones(2, np.int64)
    assert each.admits(ids, np.array([1, 2]), 0).tolist() == [False, False]
    assert each.admits(ids, once, 1).tolist() == [False, True]
    assert each.admits(ids[:1], once[:1], 2).tolist() == [True]


def test_sightings_are_forgotten_by_event_time() -> None:
    each, ids, once = admission("count", 2), np.array([5]), np.ones(1, np.int64)
    each.admits(ids, once, 1_000)
    each.forget_before(1_001)
    assert each.admits(ids, once, 2_000).tolist() == [False]


def test_state_from_before_draws_is_refused() -> None:
    state = admission("count", 2).save()
    del state["num_draws"]
    with pytest.raises(SnapshotError, match=r"^ranking\.table\.admission\.num_draws: expected it"):
        admission("count", 2).load(state)
