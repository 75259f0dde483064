"""Running normalisation."""

from __future__ import annotations

import numpy as np

from domain.state import state_hash
from ranking.normaliser import RunningNormaliser


def test_mean_and_spread_are_those_of_all_batches_together() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3.0, 2.0, (5_000, 1)).astype(np.float32)
    normaliser = RunningNormaliser(1)
    for batch in np.array_split(values, 37):
        normaliser.update(batch)
    normal = normaliser.apply(values)
    assert abs(float(normal.mean())) < 0.02
    assert abs(float(normal.std()) - 1.0) < 0.02


def test_missing_values_become_the_mean_and_change_nothing() -> None:
    with_gaps, without = RunningNormaliser(2), RunningNormaliser(2)
    with_gaps.update(np.array([[4.0, np.nan], [6.0, np.nan]], np.float32))
    without.update(np.array([[4.0, 0.0], [6.0, 0.0]], np.float32)[:, :1].repeat(2, axis=1))
    missing = np.array([[np.nan, np.nan]], np.float32)
    assert with_gaps.apply(missing).tolist() == [[0.0, 0.0]]
    one = np.array([[1.0, 1.0]], np.float32)
    assert with_gaps.apply(one)[0, 0] == without.apply(one)[0, 0]
    assert with_gaps.apply(one)[0, 1] == RunningNormaliser(2).apply(one)[0, 1]


def test_outliers_are_cut() -> None:
    huge = RunningNormaliser(1).apply(np.array([[1e30], [-np.inf]], np.float32))
    assert huge.tolist() == [[5.0], [-5.0]]


def test_apply_changes_nothing() -> None:
    normaliser = RunningNormaliser(1)
    values = np.array([[np.nan], [2.0]], np.float32)
    before = state_hash(normaliser.save())
    normaliser.apply(values)
    assert state_hash(normaliser.save()) == before
    assert np.isnan(values[0, 0])
