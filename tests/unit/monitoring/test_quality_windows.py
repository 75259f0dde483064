"""Windows of quality: when they are full, what they say, and that a restart changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from monitoring.quality_windows import QualityWindows


def draw(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score_NH = rng.uniform(0.05, 0.95, (count, 2)).astype(np.float32)
    label_NH = (rng.random((count, 2)) < score_NH).astype(np.float32)
    return label_NH, score_NH


def test_full_window_says_what_scikit_learn_says_of_all_it_took() -> None:
    windows = QualityWindows(["a"], num_heads=2, examples=100)
    label_NH, score_NH = draw(1, 105)
    assert windows.update(label_NH[:99], {"a": score_NH[:99]}) == []
    click, like = windows.update(label_NH[99:], {"a": score_NH[99:]})
    assert (click.head, like.head, like.variant) == (0, 1, "a")
    assert click.auc == pytest.approx(roc_auc_score(label_NH[:, 0], score_NH[:, 0]))
    rate = label_NH[:, 1].mean(dtype=np.float64)
    expected = log_loss(label_NH[:, 1], score_NH[:, 1].astype(np.float64)) / log_loss(
        label_NH[:, 1], np.full(105, rate)
    )
    assert like.normalized_entropy == pytest.approx(expected, rel=1e-6)
    assert windows.update(label_NH[:99], {"a": score_NH[:99]}) == [], "it begins anew"


def test_one_class_only_says_nothing_and_unknown_labels_do_not_count() -> None:
    windows = QualityWindows(["a"], num_heads=1, examples=2)
    label_NH = np.array([[0.0], [np.nan], [0.0]], np.float32)
    score_NH = np.array([[0.1], [0.2], [0.3]], np.float32)
    assert windows.update(label_NH[:2], {"a": score_NH[:2]}) == []
    (found,) = windows.update(label_NH[2:], {"a": score_NH[2:]})
    assert (found.auc, found.normalized_entropy) == (None, None)


def test_example_that_one_variant_cannot_score_counts_for_none() -> None:
    windows = QualityWindows(["a", "b"], num_heads=1, examples=1)
    label_NH = np.array([[1.0]], np.float32)
    scores = {"a": np.array([[0.5]], np.float32), "b": np.array([[np.nan]], np.float32)}
    assert windows.update(label_NH, scores) == []


def test_restart_in_the_middle_of_a_window_changes_nothing() -> None:
    label_NH, score_NH = draw(2, 80)
    whole, first, again = (QualityWindows(["a"], 2, 80) for _ in range(3))
    expected = whole.update(label_NH, {"a": score_NH})
    first.update(label_NH[:33], {"a": score_NH[:33]})
    again.load(first.save())
    assert again.update(label_NH[33:], {"a": score_NH[33:]}) == expected != []
