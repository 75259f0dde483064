"""Ranks among all candidates: what is taken out first, how ties are broken, what is not found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.full_ranking import DEEPEST, ranking_metrics, ranks_of, target_ranks
from evaluation.model import SequenceModel
from tests.unit.evaluation.sequence_worlds import sequences, tiny


def rank(scores: list[float], history: list[int], target: int) -> int:
    found = ranks_of(torch.tensor([scores]), torch.tensor([history]), torch.tensor([target]))
    return int(found)


def test_rank_counts_what_stands_before_among_unseen_items() -> None:
    scores = [0.9, 0.8, 0.7, 0.6]
    assert rank(scores, [0], 4) == 4
    assert rank(scores, [1, 3, 0], 4) == 2
    assert rank(scores, [1, 2, 3], 4) == 1


def test_of_equal_scores_the_earlier_row_stands_first() -> None:
    assert [rank([0.5, 0.5, 0.5], [0], target) for target in (1, 2, 3)] == [1, 2, 3]


def test_a_target_that_cannot_be_found_has_the_rank_after_the_deepest() -> None:
    assert rank([0.5, 0.9], [2, 0], 2) == DEEPEST + 1
    assert rank([0.5, 0.9], [1, 0], 7) == DEEPEST + 1


def test_items_that_are_no_candidates_take_nothing_out() -> None:
    assert rank([0.5, 0.9], [7, 0], 1) == 2


def test_what_lies_too_deep_is_not_found() -> None:
    scores = torch.linspace(1.0, 0.0, DEEPEST + 10)[None]
    targets = [1, DEEPEST, DEEPEST + 1, DEEPEST + 9]
    found = ranks_of(
        scores.repeat(4, 1), torch.zeros(4, 1, dtype=torch.int64), torch.tensor(targets)
    )
    assert found.tolist() == [1, DEEPEST, DEEPEST + 1, DEEPEST + 1]


def test_metrics_by_hand() -> None:
    found = ranking_metrics(np.array([1, 3, 11, DEEPEST + 1]))
    assert found["hr@10"] == 0.5
    assert found["hr@50"] == found["hr@200"] == 0.75
    assert found["ndcg@10"] == pytest.approx((1.0 + 0.5) / 4)
    assert found["ndcg@50"] == pytest.approx((1.0 + 0.5 + 1.0 / np.log2(12.0)) / 4)
    assert found["mrr"] == pytest.approx((1.0 + 1 / 3 + 1 / 11 + 1 / 2501) / 4)


def test_ranks_are_those_of_every_user_alone() -> None:
    random = np.random.default_rng(5)
    world = sequences(
        [random.choice(np.arange(1, 31), size, replace=False).tolist() for size in range(4, 15)],
        candidates=30,
    )
    config = tiny()
    model = SequenceModel(config, world.num_rows, torch.Generator().manual_seed(1))
    users = np.arange(world.num_users)
    together = target_ranks(model, world, users, config, 0)
    alone = [int(target_ranks(model, world, users[u : u + 1], config, 0)[0]) for u in users]
    assert together.tolist() == alone
    # An item she met before the truncated history is still a candidate: longest is 6.
    assert 1 <= together.min() <= together.max() <= 30
