"""Decayed popularity: shares, half-lives, late actions and renormalisation."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.popularity import DecayedPopularity

HOUR_MS = 3_600_000


def popularity_of(*actions: tuple[int, int], half_lives: tuple[int, ...] = (HOUR_MS,)):
    popularity = DecayedPopularity(half_lives)
    popularity.grow(3)
    for row, time_ms in actions:
        popularity.learn(np.array([row]), np.array([time_ms]))
    return popularity


def test_shares_are_zero_before_the_first_action() -> None:
    assert popularity_of().shares().tolist() == [[0.0, 0.0, 0.0]]


def test_action_one_half_life_ago_counts_half() -> None:
    popularity = popularity_of((0, 0), (1, HOUR_MS))
    np.testing.assert_allclose(popularity.shares()[0], [1 / 3, 2 / 3, 0.0])


def test_each_half_life_forgets_at_its_own_speed() -> None:
    popularity = popularity_of((0, 0), (1, HOUR_MS), half_lives=(HOUR_MS, HOUR_MS // 2))
    np.testing.assert_allclose(popularity.shares()[:, 0], [1 / 3, 1 / 5])


def test_late_action_counts_as_if_it_had_come_in_order() -> None:
    in_order = popularity_of((0, 0), (1, HOUR_MS), (2, 3 * HOUR_MS))
    late = popularity_of((1, HOUR_MS), (2, 3 * HOUR_MS), (0, 0))
    np.testing.assert_allclose(late.shares(), in_order.shares())


@pytest.mark.parametrize("gap", [499, 501, 5_000, 10**9])
def test_shares_stay_finite_after_any_gap(gap: int) -> None:
    popularity = popularity_of((0, 0), (0, gap * HOUR_MS), (1, (gap + 1) * HOUR_MS))
    np.testing.assert_allclose(popularity.shares()[0], [1 / 3, 2 / 3, 0.0])


def test_renormalising_changes_no_bit_of_the_shares() -> None:
    # Origins that lie whole half-lives apart make every increment a power of two, so nothing is
    # rounded: once without, once with a renormalisation in between.
    early = popularity_of((0, 0), (1, 2 * HOUR_MS), (2, 3 * HOUR_MS))
    late = popularity_of((2, 0), (0, 600 * HOUR_MS), (1, 602 * HOUR_MS), (2, 603 * HOUR_MS))
    np.testing.assert_array_equal(early.shares(), late.shares())


def test_reset_forgets_an_item_and_its_part_of_the_total() -> None:
    popularity = popularity_of((0, 0), (1, 0))
    popularity.reset(np.array([0]))
    assert popularity.shares().tolist() == [[0.0, 1.0, 0.0]]


def test_shares_of_chosen_rows_are_those_of_all() -> None:
    popularity = popularity_of((0, 0), (1, HOUR_MS), (1, 2 * HOUR_MS))
    rows = np.array([2, 1])
    np.testing.assert_array_equal(popularity.shares(rows), popularity.shares()[:, rows])
