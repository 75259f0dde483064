"""Properties of the quality measures, with slow and obvious twins as oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitoring import quality
from monitoring.drift_detectors import change_point
from monitoring.prequential_quality import PrequentialQuality, PrequentialQualityConfig
from monitoring.session_gauc import SessionGauc, SessionGaucConfig

# Few distinct scores, so that ties are the rule; 0 and 1 among them.
SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.25000003, 0.5, 0.9, 1.0])
EXAMPLES = st.lists(st.tuples(st.integers(0, 1), SCORES, st.integers(0, 4)), max_size=40)
Rows = list[tuple[int, float, int]]


def pairwise_auc(rows: Rows) -> float | None:
    """Count every (positive, negative) pair."""
    won = [
        1.0 if positive > negative else 0.5 if positive == negative else 0.0
        for label, positive, _ in rows
        if label == 1
        for other, negative, _ in rows
        if other == 0
    ]
    return sum(won) / len(won) if won else None


def groupwise_gauc(rows: Rows) -> float | None:
    """Average pairwise AUC, one group at a time."""
    total = weight = 0.0
    for group in {group for _, _, group in rows}:
        mine = [row for row in rows if row[2] == group]
        value = pairwise_auc(mine)
        if value is not None:
            total += len(mine) * value
            weight += len(mine)
    return total / weight if weight else None


def columns(rows: Rows) -> tuple[list[int], list[float], list[int]]:
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


@given(EXAMPLES)
def test_auc_equals_counting_all_pairs(rows: Rows) -> None:
    labels, scores, _ = columns(rows)
    assert quality.auc(labels, scores) == pytest.approx(pairwise_auc(rows))


@given(EXAMPLES)
def test_gauc_equals_counting_pairs_group_by_group(rows: Rows) -> None:
    assert quality.gauc(*columns(rows)) == pytest.approx(groupwise_gauc(rows))


@given(EXAMPLES)
def test_auc_turns_around_when_labels_do(rows: Rows) -> None:
    labels, scores, _ = columns(rows)
    straight = quality.auc(labels, scores)
    turned = quality.auc([1 - label for label in labels], scores)
    assert (straight is None) == (turned is None)
    if straight is not None:
        assert turned == pytest.approx(1.0 - straight)


@given(EXAMPLES)
def test_auc_depends_on_the_order_of_scores_only(rows: Rows) -> None:
    labels, scores, _ = columns(rows)
    assert quality.auc(labels, np.exp(scores)) == quality.auc(labels, scores)


@given(EXAMPLES)
def test_measures_are_none_or_finite_whatever_comes(rows: Rows) -> None:
    labels, scores, groups = columns(rows)
    values = [
        quality.auc(labels, scores),
        quality.gauc(labels, scores, groups),
        quality.log_loss(labels, scores),
        quality.normalized_entropy(labels, scores),
        quality.calibration_ratio(labels, scores),
        quality.expected_calibration_error(labels, scores),
    ]
    assert all(value is None or math.isfinite(value) for value in values)


@given(EXAMPLES, st.integers(1, 9), st.integers(2, 64))
def test_progressive_values_hold_what_they_state_whatever_the_batches(
    rows: Rows, batch: int, score_buckets: int
) -> None:
    running = PrequentialQuality(
        ("click",), PrequentialQualityConfig(score_buckets=score_buckets, window=5)
    )
    for start in range(0, len(rows), batch):
        labels, scores, groups = columns(rows[start : start + batch])
        running.update(np.c_[labels], np.c_[scores], groups, np.zeros(len(labels), np.int64))
    got = running.get("progressive")["click"]
    labels, scores, groups = columns(rows)
    exact = quality.auc(labels, np.float32(scores))
    assert (got.auc is None) == (exact is None)
    if got.auc is not None and exact is not None:
        assert abs(got.auc - exact) <= got.auc_error + 1e-9
    assert got.gauc == pytest.approx(quality.gauc(labels, np.float32(scores), groups))
    assert got.log_loss == pytest.approx(quality.log_loss(labels, np.float32(scores)))
    assert got.calibration == pytest.approx(quality.calibration_ratio(labels, np.float32(scores)))


@given(EXAMPLES, st.integers(1, 12))
def test_session_gauc_keeps_its_limit_and_every_finished_session_once(
    rows: Rows, limit: int
) -> None:
    gauc = SessionGauc(1, SessionGaucConfig(max_open_examples=limit))
    for label, score, group in rows:
        gauc.update(
            np.array([[label]], np.float32),
            np.array([[score]], np.float32),
            np.array([group]),
            np.array([0]),
        )
        assert gauc.num_open <= limit
    value, weight = gauc.get(0)
    assert weight <= len(rows)
    assert value is None or 0.0 <= value <= 1.0
    if gauc.finished_early == 0:
        assert value == pytest.approx(quality.gauc(*columns(rows)))


@given(st.lists(st.floats(-5, 5, width=16), min_size=2, max_size=30).map(np.array))
def test_change_point_is_the_best_split_in_two_means(values: NDArray[np.float64]) -> None:
    def squared_error(split: int) -> float:
        parts = values[:split], values[split:]
        return float(sum(((part - part.mean()) ** 2).sum() for part in parts))

    best = min(squared_error(split) for split in range(1, len(values)))
    assert squared_error(change_point(values)) == pytest.approx(best, abs=1e-9)
