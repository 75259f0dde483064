"""Boosted trees as a rival: they learn, from settled labels only, when there are enough."""

from __future__ import annotations

import numpy as np

from domain.examples import LabeledRequest, Role
from domain.requests import CapturedRequest
from ranking.trees import TreesRival


def captured(rng: np.random.Generator, num_items: int = 2) -> CapturedRequest:
    """A request of numbers; the label will be whether the item's category is odd."""
    categories = rng.integers(1, 9, num_items)
    return CapturedRequest(
        "u",
        tuple(f"i{k}" for k in range(num_items)),
        0,
        {
            "request_ids": rng.integers(1, 10**9, 1),
            "item_ids": np.stack([rng.integers(1, 10**9, num_items), categories], axis=1),
            "request_floats": np.array([np.nan, rng.normal()], np.float32),
            "item_floats": rng.normal(size=(num_items, 1)).astype(np.float32),
        },
    )


def labelled(request: CapturedRequest, role: Role = "final") -> LabeledRequest:
    odd = np.asarray(request.arrays["item_ids"])[:, 1] % 2
    return LabeledRequest(
        captured=request,
        item_indices=np.arange(len(odd)),
        labels=np.stack([odd, np.full(len(odd), np.nan)], axis=1).astype(np.float32),
        roles=(role,) * len(odd),
        log_sampling_rates=np.zeros(len(odd), np.float32),
        revealed_ms=0,
    )


def test_trees_learn_a_category_once_there_are_enough_examples() -> None:
    rng = np.random.default_rng(0)
    rival = TreesRival(seed=1, retrain_every=1_000)
    asked = [captured(rng, 5) for _ in range(20)]
    odd = np.concatenate([np.asarray(each.arrays["item_ids"])[:, 1] % 2 for each in asked])
    for step in range(12):
        rival.learn([labelled(captured(rng)) for _ in range(50)])
        scores = np.concatenate([one.probabilities for one in rival.predict(asked)])
        assert scores.shape == (100, 1)
        if step < 9:
            assert rival.num_trainings == 0
            assert len(np.unique(scores)) == 1
    assert rival.num_trainings == 1
    assert scores[odd == 1, 0].min() > 0.9 > 0.1 > scores[odd == 0, 0].max()


def test_early_labels_are_not_counted_twice() -> None:
    rng = np.random.default_rng(0)
    rival = TreesRival(seed=1, retrain_every=1_000)
    (before,) = rival.predict([captured(rng)])
    rival.learn([labelled(captured(rng), role) for role in ("early_negative", "correction")])
    (after,) = rival.predict([captured(rng)])
    assert before.probabilities.tolist() == after.probabilities.tolist()


def test_same_examples_give_the_same_trees() -> None:
    answers = []
    for _ in range(2):
        rng = np.random.default_rng(3)
        rival = TreesRival(seed=1, retrain_every=200)
        rival.learn([labelled(captured(rng)) for _ in range(150)])
        answers.append(rival.predict([captured(rng, 4)])[0].probabilities)
    np.testing.assert_array_equal(*answers)


def test_saved_rival_goes_on_as_if_nothing_had_happened() -> None:
    rng = np.random.default_rng(5)
    first, second = (TreesRival(seed=1, retrain_every=200) for _ in range(2))
    second.load(first.save())
    batches = [[labelled(captured(rng)) for _ in range(150)] for _ in range(2)]
    asked = [captured(rng, 4)]
    first.learn(batches[0])
    second.load(first.save())
    np.testing.assert_array_equal(
        *(each.predict(asked)[0].probabilities for each in (first, second))
    )
    for each in (first, second):
        each.learn(batches[1])
    assert first.num_trainings == second.num_trainings == 3
    np.testing.assert_array_equal(
        *(each.predict(asked)[0].probabilities for each in (first, second))
    )
