"""A twin that loaded a state and applied every delta is its learner, bit for bit.

Random streams with growth, evictions, expiry, withdrawals and clocks that run over; deltas travel
through their files. The slow twin is a fresh learner that loads the whole state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.deltas import Delta, DeltaPoint
from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.features import FeatureSchema, Field
from domain.filters import ItemCondition
from domain.requests import History, RetrievalRequest, UserView
from domain.state import State, state_hash
from memory.config import MemoryConfig, NeighboursConfig
from memory.learner import ErrorMemoryLearner
from ranking.adaf2m2 import AdaF2M2Config
from ranking.aefs import AefsConfig
from ranking.counters import CounterConfig
from ranking.embedding_table import EmbeddingTableConfig
from ranking.learner import RankingConfig, RankingModel
from retrieval.learner import RetrievalConfig, RetrievalModel
from retrieval.negatives import NegativesConfig
from retrieval.prior import PriorConfig
from retrieval.tower_config import TowerConfig
from snapshot.delta_files import delta_from_bytes, delta_to_bytes
from tests.contract.test_ranking_learner import (
    HOUR_MS,
    SCHEMA,
    SMALL,
    labelled,
    predictions,
    request,
)

torch.set_num_threads(1)


def through_a_file(state: State) -> State:
    """Return a learner's delta as a server reads it: its arrays are read-only."""
    delta = Delta(
        point=DeltaPoint("c", 1),
        positions={},
        step=0,
        event_time_ms=0,
        schema_hash="",
        states={"learner": state},
    )
    return dict(delta_from_bytes(delta_to_bytes(delta), "here").states["learner"])


def follow(learner: Any, twin: Any) -> None:
    """Make a twin of a learner as it is."""
    twin.load(learner.save())
    learner.take_delta()
    twin.follow()


def tell(learner: Any, twin: Any) -> None:
    """Let a twin hear what changed."""
    twin.apply_delta(through_a_file(learner.take_delta()))


# Ranking: a table and counters so small that they evict all the time, and expire now and then.
CROWDED = replace(
    SMALL,
    table=EmbeddingTableConfig(dimension=4, max_rows=30, min_count=2, ttl_ms=HOUR_MS),
    counters=CounterConfig(max_entries=40),
    adaf2m2=AdaF2M2Config(masked_forwards=1),
)


SELECTING = replace(CROWDED, aefs=AefsConfig(keep=0.5, controller_every=2), adaf2m2=AdaF2M2Config())


@pytest.mark.parametrize("config", [CROWDED, SELECTING], ids=["masks", "early_selection"])
@given(
    seed=st.integers(0, 2**31), steps_between=st.lists(st.integers(0, 4), min_size=1, max_size=5)
)
@settings(max_examples=8, deadline=None)
def test_ranking_twin_scores_the_same(
    config: RankingConfig, seed: int, steps_between: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    learner, twin = (RankingModel(SCHEMA, config, seed=3) for _ in range(2))
    time_ms = 0

    def learn(steps: int) -> None:
        nonlocal time_ms
        for _ in range(steps):
            time_ms += int(rng.choice([60_000, 2 * HOUR_MS], p=[0.8, 0.2]))
            captured = [learner.capture(request(rng, time_ms)) for _ in range(4)]
            batch = [labelled(rng, each) for each in captured]
            for revealed in batch:
                learner.observe(revealed)
            learner.learn(batch)

    learn(3)
    follow(learner, twin)
    for steps in steps_between:
        learn(steps)
        tell(learner, twin)
        asked = [request(rng, time_ms) for _ in range(4)]
        ours = predictions(learner, [learner.capture(each) for each in asked])
        theirs = predictions(twin, [twin.capture(each) for each in asked])
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine, other)
        assert twin.num_rows == learner.num_rows


def test_ranking_twin_follows_when_more_ids_left_than_are_remembered() -> None:
    rng = np.random.default_rng(0)
    learner, twin = (RankingModel(SCHEMA, CROWDED, seed=3) for _ in range(2))
    follow(learner, twin)
    for step in range(60):
        captured = learner.capture(request(rng, step * HOUR_MS))
        revealed = labelled(rng, captured)
        learner.observe(revealed)
        learner.learn([revealed])
    delta = learner.take_delta()
    assert delta["table"]["whole"]
    assert delta["counters"]["entries"]["whole"]
    twin.apply_delta(through_a_file(delta))
    asked = [request(rng, 60 * HOUR_MS) for _ in range(6)]
    for mine, other in zip(
        predictions(learner, [learner.capture(each) for each in asked]),
        predictions(twin, [twin.capture(each) for each in asked]),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, other)


SKETCH = MemoryConfig(
    num_arrays=3, num_bits=4, half_life_ms=1_000, reset_every_ms=200_000, lambda_margin=0.5
)
MEMORIES = {
    "sketch": SKETCH,
    "counts": replace(SKETCH, half_life_ms=None, lambda_rule="shares", lambda_switch_rate=0.2),
    "neighbours": replace(
        SKETCH,
        kind="neighbours",
        neighbours=NeighboursConfig(window=30, count=5, min_error=0.3, keep_rate=0.7),
    ),
}


@pytest.mark.parametrize("kind", MEMORIES)
@given(
    seed=st.integers(0, 2**31), batches_between=st.lists(st.integers(0, 4), min_size=1, max_size=5)
)
@settings(max_examples=15, deadline=None)
def test_memory_twin_compensates_the_same(kind: str, seed: int, batches_between: list[int]) -> None:
    rng = np.random.default_rng(seed)
    config = MEMORIES[kind]
    learner, twin = (ErrorMemoryLearner(config, 5, 2, seed=4) for _ in range(2))
    time_ms = 0

    def some(num: int) -> tuple[np.ndarray, np.ndarray]:
        hidden_ND = rng.normal(size=(num, 5)).astype(np.float32)
        return hidden_ND, rng.random((num, 2)).astype(np.float32)

    def learn(batches: int) -> None:
        nonlocal time_ms
        for _ in range(batches):
            # Half-lives enough to scale everything down, and time enough for a reset.
            time_ms += int(rng.choice([500, 20_000, 150_000]))
            hidden_ND, base_NH = some(8)
            labels_NH = rng.choice(np.array([0.0, 1.0, np.nan], np.float32), size=(8, 2))
            learner.learn(hidden_ND, base_NH, labels_NH, time_ms)

    learn(2)
    follow(learner, twin)
    for batches in batches_between:
        learn(batches)
        tell(learner, twin)
        hidden_ND, base_NH = some(20)
        np.testing.assert_array_equal(learner.lambdas, twin.lambdas)
        for ask in ("compensate", "read_errors"):
            np.testing.assert_array_equal(
                getattr(learner, ask)(hidden_ND, base_NH), getattr(twin, ask)(hidden_ND, base_NH)
            )


# Retrieval: a catalog that is always full, lists that overflow, half-lives of a second, so that
# the clocks are moved when an hour passes.
ITEMS = FeatureSchema(
    fields=(
        Field(name="colour", entity="item", kind="categorical"),
        Field(name="tags", entity="item", kind="multi"),
        Field(name="price", entity="item", kind="numeric"),
        Field(name="country", entity="user", kind="categorical"),
        Field(name="age", entity="user", kind="numeric"),
    )
)
FULL = RetrievalConfig(
    tower=TowerConfig(width=8, max_history=4, num_blocks=1),
    prior=PriorConfig(
        popularity_half_lives_ms=(1_000, HOUR_MS),
        transition_half_lives_ms=(1_000, HOUR_MS),
        max_successors=3,
    ),
    max_items=14,
    step_examples=4,
)
SAMPLED = NegativesConfig(full_softmax_items=2, from_reservoir=4, uniform=4, reservoir=16)
QUESTIONS: tuple[dict[str, Any], ...] = (
    {"limit": 3},
    {"limit": 30},
    {"limit": 5, "exclude": frozenset({"i1", "i2"})},
    {"limit": 5, "where": (ItemCondition(feature="colour", one_of=frozenset({"c1", "c2"})),)},
    {"limit": 5, "where": (ItemCondition(feature="price", at_least=0.5, negated=True),)},
)


@dataclass
class Shop:
    """A random stream of items that come and go, and of people who take them."""

    rng: np.random.Generator
    time_ms: int = 0

    def user(self) -> UserView:
        num = int(self.rng.integers(0, 5))
        history = History(
            tuple(self.item() for _ in range(num)),
            np.sort(self.time_ms - self.rng.integers(1, HOUR_MS, num)),
            np.ones(num, np.int64),
        )
        features = {"country": f"k{self.rng.integers(6)}", "age": float(self.rng.integers(90))}
        return UserView(f"u{self.rng.integers(5)}", history, features)

    def item(self) -> str:
        return f"i{self.rng.integers(25)}"

    def update(self) -> ItemUpdate:
        self.pass_time()
        features = {
            "colour": f"c{self.rng.integers(8)}",
            "tags": tuple(f"t{self.rng.integers(9)}" for _ in range(self.rng.integers(3))),
            "price": float(self.rng.random()),
        }
        return ItemUpdate(
            event_id="",
            time_ms=self.time_ms,
            item_id=self.item(),
            features=features if self.rng.random() < 0.7 else {},
            available=bool(self.rng.random() < 0.7),
        )

    def actions(self) -> list[PositiveAction]:
        self.pass_time()
        return [
            PositiveAction(self.user(), self.item(), self.time_ms)
            for _ in range(self.rng.integers(1, 7))
        ]

    def pass_time(self) -> None:
        self.time_ms += int(self.rng.choice([1_000, HOUR_MS], p=[0.9, 0.1]))

    def live(self, learner: RetrievalModel, steps: int) -> None:
        """Let a learner see some of it."""
        for _ in range(steps):
            if self.rng.random() < 0.5:
                learner.observe_item(self.update())
            else:
                learner.learn(self.actions())


def travelling(state: State) -> State:
    """Return what a twin has of a whole state: no optimiser, no random state, no time last seen."""
    items, queries = state["items"], state["queries"]
    return {
        "ids": state["catalog"]["ids"]["ids"],
        "free": sorted(state["catalog"]["ids"]["free"]),
        "available": state["catalog"]["available"],
        "columns": state["columns"],
        "vectors": items["ids"]["weight"],
        "biases": items["biases"]["weight"],
        "values": items["content"]["values"]["weight"],
        "described": [items["values"].tolist(), items["weights"].tolist()],
        "numbers": items["numbers"],
        "coders": [items["coder"]["ids"], queries["coder"]["ids"]],
        "encoder": queries["encoder"],
        "user_values": queries["content"]["values"]["weight"],
        "maps": [
            items["content"]["projection"].tolist(),
            queries["content"]["projection"].tolist(),
        ],
        "prior": state["prior"],
        "prior_weights": state["prior_weights"],
    }


def assert_same_answers(
    learner: RetrievalModel, twin: RetrievalModel, whole: RetrievalModel, shop: Shop
) -> None:
    """Compare with a model that loads everything: `save` brings the learner's index up to date."""
    whole.load(learner.save())
    mine, other = travelling(learner.save()), travelling(twin.save())
    for part, expected in mine.items():
        assert state_hash({part: other[part]}) == state_hash({part: expected}), part
    for question in QUESTIONS:
        asked = RetrievalRequest(shop.user(), shop.time_ms, **question)
        for verb in ("retrieve", "popular"):
            answers = [getattr(model, verb)(asked) for model in (learner, whole, twin)]
            assert answers[0].item_ids == answers[1].item_ids == answers[2].item_ids
            for answer in answers[1:]:
                np.testing.assert_array_equal(answer.scores, answers[0].scores)
    actions = shop.actions()
    np.testing.assert_array_equal(learner.target_ranks(actions), twin.target_ranks(actions))


@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=5),
    st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_retrieval_twin_answers_the_same_whatever_it_observed_in_between(
    seed: int, rounds: list[tuple[int, int]], sampled: bool
) -> None:
    shop, elsewhere = (Shop(np.random.default_rng([seed, part])) for part in range(2))
    config = replace(FULL, negatives=SAMPLED) if sampled else FULL
    learner, twin = (RetrievalModel(ITEMS, config, seed=2) for _ in range(2))
    shop.live(learner, 8)
    follow(learner, twin)
    for steps, observed in rounds:
        shop.live(learner, steps)
        elsewhere.time_ms = shop.time_ms
        for _ in range(observed):
            twin.observe_item(elsewhere.update())
            twin.retrieve(RetrievalRequest(elsewhere.user(), elsewhere.time_ms, 5))
        tell(learner, twin)
        assert_same_answers(learner, twin, RetrievalModel(ITEMS, config, seed=2), shop)


def test_retrieval_twin_answers_with_what_it_observed_until_the_next_delta() -> None:
    learner, twin = (RetrievalModel(ITEMS, FULL, seed=2) for _ in range(2))
    learner.observe_item(ItemUpdate(event_id="1", time_ms=0, item_id="old"))
    follow(learner, twin)
    asked = RetrievalRequest(UserView("u"), 0, 5)
    twin.observe_item(ItemUpdate(event_id="2", time_ms=0, item_id="new"))
    twin.observe_item(ItemUpdate(event_id="3", time_ms=0, item_id="old", available=False))
    assert twin.retrieve(asked).item_ids == ("new",)
    # The trainer has not come to either of them yet: whoever lets it observe does so again.
    tell(learner, twin)
    assert twin.retrieve(asked).item_ids == ("old",)


def test_deltas_change_nothing_that_is_saved() -> None:
    """When a delta is taken is decided by a clock, so it must leave no trace."""
    states = []
    for every in (1, 3, 100):
        shop = Shop(np.random.default_rng(7))
        learner = RetrievalModel(ITEMS, FULL, seed=2)
        for step in range(12):
            shop.live(learner, 1)
            if step % every == 0:
                learner.take_delta()
        states.append(state_hash(learner.save()))
    assert len(set(states)) == 1
