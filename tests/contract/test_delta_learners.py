"""What every learner that tells deltas promises: a delta that does not fit changes nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domain.errors import SnapshotError
from domain.state import State, state_hash
from memory.config import MemoryConfig, NeighboursConfig
from memory.learner import ErrorMemoryLearner
from ranking.aefs import AefsConfig
from ranking.learner import RankingConfig, RankingModel
from retrieval.learner import RetrievalModel
from tests.contract.test_ranking_learner import SCHEMA, SMALL, labelled, request
from tests.property.test_delta_twins import FULL, ITEMS, Shop

Lived = Callable[[], tuple[Any, Any, State]]


def ranking(config: RankingConfig = SMALL) -> tuple[Any, Any, State]:
    rng = np.random.default_rng(1)
    learner, twin = (RankingModel(SCHEMA, config, seed=3) for _ in range(2))

    def learn(time_ms: int) -> None:
        revealed = labelled(rng, learner.capture(request(rng, time_ms)))
        learner.observe(revealed)
        learner.learn([revealed])

    learn(0)
    return _told(learner, twin, lambda: learn(60_000))


def ranking_that_selects() -> tuple[Any, Any, State]:
    return ranking(replace(SMALL, aefs=AefsConfig(keep=0.5)))


def memory() -> tuple[Any, Any, State]:
    return _memory(MemoryConfig(num_arrays=3, num_bits=4))


def counting_memory() -> tuple[Any, Any, State]:
    config = MemoryConfig(num_arrays=3, num_bits=4, half_life_ms=None, lambda_rule="shares")
    return _memory(config)


def neighbours_memory() -> tuple[Any, Any, State]:
    return _memory(MemoryConfig(kind="neighbours", neighbours=NeighboursConfig(window=20)))


def _memory(config: MemoryConfig) -> tuple[Any, Any, State]:
    rng = np.random.default_rng(1)
    learner, twin = (ErrorMemoryLearner(config, 5, 2, seed=4) for _ in range(2))

    def learn() -> None:
        hidden_ND = rng.normal(size=(4, 5)).astype(np.float32)
        base_NH = rng.random((4, 2)).astype(np.float32)
        learner.learn(hidden_ND, base_NH, np.ones((4, 2), np.float32), 0)

    learn()
    return _told(learner, twin, learn)


def retrieval() -> tuple[Any, Any, State]:
    shop = Shop(np.random.default_rng(5))
    learner, twin = (RetrievalModel(ITEMS, FULL, seed=2) for _ in range(2))
    shop.live(learner, 6)
    return _told(learner, twin, lambda: shop.live(learner, 6))


def _told(learner: Any, twin: Any, live_on: Callable[[], None]) -> tuple[Any, Any, State]:
    """Return a learner, its twin, and the delta that lies between them."""
    twin.load(learner.save())
    learner.take_delta()
    twin.follow()
    live_on()
    return learner, twin, learner.take_delta()


LEARNERS = pytest.mark.parametrize(
    "lived",
    [
        ranking,
        ranking_that_selects,
        memory,
        counting_memory,
        neighbours_memory,
        retrieval,
    ],
)


def leaves(node: State, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        elif not isinstance(value, dict):
            yield (*path, key)


def spoilt(state: State, path: tuple[str, ...], damage: str) -> State:
    state = copy.deepcopy(state)
    node = state
    for key in path[:-1]:
        node = node[key]
    if damage == "gone":
        del node[path[-1]]
    elif damage == "strange":
        node[path[-1]] = np.zeros((1, 2, 3, 4), np.float16)
    else:
        node[path[-1]] = np.full_like(node[path[-1]], np.nan)
    return state


@LEARNERS
def test_delta_of_which_any_part_is_missing_or_strange_is_refused_whole(lived: Lived) -> None:
    _, twin, delta = lived()
    before = state_hash(twin.save())
    for path in leaves(delta):
        for damage in ("gone", "strange"):
            bad = spoilt(delta, path, damage)
            for verb in (twin.check_delta, twin.apply_delta):
                with pytest.raises(SnapshotError, match=path[-1]):
                    verb(bad)
    assert state_hash(twin.save()) == before
    twin.check_delta(delta)
    assert state_hash(twin.save()) == before, "a check changes nothing"
    twin.apply_delta(delta)
    assert state_hash(twin.save()) != before


@LEARNERS
def test_poisoned_delta_is_refused(lived: Lived) -> None:
    _, twin, delta = lived()
    before = state_hash(twin.save())
    poisoned = 0
    for path in leaves(delta):
        node: Any = delta
        for key in path:
            node = node[key]
        # Prices of items may be missing, and labels, which is NaN; all else is a number.
        if isinstance(node, np.ndarray) and node.dtype.kind == "f" and node.size:
            if path[0] == "columns" or path[-1] == "labels":
                continue
            with pytest.raises(SnapshotError, match="expected finite numbers"):
                twin.apply_delta(spoilt(delta, path, "NaN"))
            poisoned += 1
    assert poisoned >= 3
    assert state_hash(twin.save()) == before


@LEARNERS
def test_only_a_follower_takes_deltas(lived: Lived) -> None:
    learner, _, delta = lived()
    for verb in (learner.check_delta, learner.apply_delta):
        with pytest.raises(SnapshotError, match=r"expected a (model|learner) that follows"):
            verb(delta)


@LEARNERS
def test_second_delta_in_a_row_tells_of_no_row(lived: Lived) -> None:
    learner, _, _ = lived()
    delta = learner.take_delta()
    for path in leaves(delta):
        if path[-1] in ("rows", "ids", "removed", "values") and len(path) > 1:
            node: Any = delta
            for key in path:
                node = node[key]
            assert len(node) == 0, path
