from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from domain.state import state_hash
from stream.negative_sampler import NegativeSampler
from stream.organic import OrganicGroup, groups_from, groups_state


def _sampler(items: str = "", max_items: int = 100, max_users: int = 10) -> NegativeSampler:
    sampler = NegativeSampler(max_items, max_users, rng_seed=3)
    sampler.observe_items(items)
    return sampler


def _draws(sampler: NegativeSampler, times: int, count: int = 1) -> Counter[str]:
    drawn: Counter[str] = Counter()
    for _ in range(times):
        draw = sampler.draw("ann", "a", count)
        sampler.commit(draw)
        drawn.update(draw.item_ids)
    return drawn


@pytest.mark.parametrize("items", ["abcde", "abcdefghijklmnopqrst"])  # listed, and tried at random
def test_every_other_item_is_drawn_as_often(items: str) -> None:
    drawn = _draws(_sampler(items), 4_000)
    expected = 4_000 / (len(items) - 1)
    assert "a" not in drawn
    assert len(drawn) == len(items) - 1
    chi_square = sum((count - expected) ** 2 / expected for count in drawn.values())
    assert chi_square < 45  # 99.9 % quantile with 19 degrees of freedom: 43.8


@pytest.mark.parametrize(
    ("items", "count", "drawn", "rate"),
    [("", 4, 0, 0.0), ("a", 4, 0, 0.0), ("abc", 4, 2, 0.0), ("abcdefghi", 4, 4, math.log(4 / 8))],
)
def test_rate_is_the_share_of_the_eligible_items(
    items: str, count: int, drawn: int, rate: float
) -> None:
    draw = _sampler(items).draw("ann", "a", count)
    assert len(draw.item_ids) == len(set(draw.item_ids)) == drawn
    assert draw.log_sampling_rate == rate


def test_recent_actions_of_a_user_are_not_her_negatives() -> None:
    sampler = _sampler("abcdef")
    for item in "bcz":
        sampler.observe_action("ann", item)
    draw = sampler.draw("ann", "a", 2)
    assert set(draw.item_ids) <= set("def")
    assert draw.log_sampling_rate == math.log(2 / 3)
    assert set(_draws(sampler, 50, count=3)) == set("def")
    assert len(sampler.draw("bob", "a", 9).item_ids) == 5


def test_drawing_changes_nothing_until_it_is_committed() -> None:
    sampler = _sampler("abcdefghijklmnopq")
    before = state_hash(sampler.save())
    first = sampler.draw("ann", "a", 4)
    assert sampler.draw("ann", "a", 4).item_ids == first.item_ids
    assert state_hash(sampler.save()) == before
    sampler.commit(first)
    assert sampler.draw("ann", "a", 4).item_ids != first.item_ids


def test_least_recently_met_item_gives_way_when_there_are_too_many() -> None:
    sampler = _sampler("abc", max_items=3)
    sampler.observe_items("a")
    sampler.observe_items("d")
    assert len(sampler) == 3
    assert set(sampler.draw("ann", "z", 9).item_ids) == {"a", "c", "d"}


def test_users_and_their_actions_are_bounded() -> None:
    sampler = _sampler(max_users=2)
    for user in ("ann", "bob", "ann", "cat"):
        sampler.observe_action(user, "a")
    for number in range(100):
        sampler.observe_action("cat", f"i{number}")
    state = sampler.save()
    assert state["users"] == ["ann", "cat"]
    assert state["action_lengths"].tolist() == [1, 16]


def test_sampler_continues_exactly_when_loaded() -> None:
    one = _sampler("abcdefghijklmnopq", max_items=10)
    one.observe_action("ann", "k")
    _draws(one, 3, count=2)
    two = NegativeSampler(10, 10, rng_seed=99)
    two.load(_through_files(one.save()))
    for sampler in (one, two):
        sampler.observe_items("az")
    assert _draws(one, 20, count=3) == _draws(two, 20, count=3)
    assert state_hash(one.save()) == state_hash(two.save())


def test_seed_decides_what_is_drawn() -> None:
    items = "abcdefghijklmnopq"
    draws = []
    for seed in (1, 1, 2):
        sampler = NegativeSampler(100, 10, rng_seed=seed)
        sampler.observe_items(items)
        draws.append(sampler.draw("ann", "a", 4).item_ids)
    assert draws[0] == draws[1] != draws[2]


def _group(decided: int, positive: int, items: str, rate: float) -> OrganicGroup:
    return OrganicGroup("g", "ann", tuple(items), 5, decided, positive, rate)


def test_group_is_one_yes_and_sampled_noes() -> None:
    examples = _group(0b001, 0b001, "abc", -1.5).examples(3, 9)
    assert [one.item_id for one in examples] == ["a", "b", "c"]
    assert [one.labels[0] for one in examples] == [1.0, 0.0, 0.0]
    assert all(np.isnan(one.labels[1:]).all() for one in examples)
    assert {one.log_sampling_rate for one in examples} == {-1.5}


def test_no_that_was_heard_is_not_taken_for_a_sampled_one() -> None:
    # A rating of 4 where 4 is good (head 0) and 5 would be great (head 1).
    no, yes, sampled = _group(0b11, 0b01, "ab", -1.5).examples(2, 9)
    assert np.array_equal(no.labels, [np.nan, 0.0], equal_nan=True)
    assert (no.item_id, no.log_sampling_rate) == ("a", 0.0)
    assert np.array_equal(yes.labels, [1.0, np.nan], equal_nan=True)
    assert (yes.item_id, yes.log_sampling_rate) == ("a", -1.5)
    assert np.array_equal(sampled.labels, [0.0, np.nan], equal_nan=True)


def test_heard_yes_and_no_are_one_example_when_nothing_was_sampled() -> None:
    (example,) = _group(0b11, 0b01, "a", 0.0).examples(2, 9)
    assert example.labels == (1.0, 0.0)


def test_groups_come_back_from_their_state() -> None:
    groups = [_group(0b11, 0b01, "abc", -1.5), _group(0b10, 0, "d", 0.0)]
    state = _through_files(groups_state(groups))
    assert state_hash(groups_state(groups_from(state))) == state_hash(groups_state(groups))


def _through_files(node: Any) -> Any:
    """Return a state as a snapshot gives it back: arrays as they are, the rest through JSON."""
    if isinstance(node, dict):
        return {key: _through_files(value) for key, value in node.items()}
    return node.copy() if isinstance(node, np.ndarray) else json.loads(json.dumps(node))
