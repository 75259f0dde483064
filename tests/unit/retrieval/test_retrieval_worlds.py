"""Small worlds whose right answer can be said aloud."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from domain.events import ItemUpdate
from domain.examples import PositiveAction
from domain.features import FeatureSchema, Field
from domain.requests import RetrievalRequest
from retrieval.learner import RetrievalModel
from retrieval.negatives import NegativesConfig
from retrieval.prior import PriorConfig
from retrieval.tower_config import TowerConfig
from tests.unit.retrieval.asking import popular

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


def mean_recall(model: RetrievalModel, actions: list[PositiveAction], k: int) -> float:
    ranks = model.target_ranks(actions)
    return float(((ranks > 0) & (ranks <= k)).mean())


SAMPLED = NegativesConfig(full_softmax_items=4, from_reservoir=16, uniform=8, reservoir=64)


@pytest.mark.parametrize("encoder", ["fuxi", "mean"])
@pytest.mark.parametrize("negatives", [NegativesConfig(), SAMPLED], ids=["full", "sampled"])
def test_withheld_item_of_the_own_parity_is_first_on_a_checkerboard(
    world, small_model, learn, encoder: str, negatives: NegativesConfig
) -> None:
    # User u takes every item of her parity except item u. Both parities are equally popular, so
    # counting the popular finds nothing; whoever has learned the parity ranks item u first.
    num = 12
    tower = TowerConfig(width=8, encoder=encoder, max_history=8, num_blocks=1, id_learning_rate=0.1)
    model = small_model(tower=tower, negatives=negatives)
    rng = np.random.default_rng(0)
    time_ms = 0
    for round_ in range(20):
        wanted = [(u, i) for u in range(num) for i in range(num) if (u - i) % 2 == 0 and u != i]
        for u, i in rng.permutation(wanted).tolist():
            time_ms += MINUTE_MS
            world.take(f"u{u} of round {round_}", f"i{i}", time_ms)
    learn(model, world.actions)
    withheld = [
        PositiveAction(world.user(f"u{u} of round 19"), f"i{u}", time_ms) for u in range(num)
    ]
    assert mean_recall(model, withheld, 1) >= 0.9


def test_fast_half_life_follows_a_change_of_what_is_popular(world, small_model) -> None:
    config = PriorConfig(popularity_half_lives_ms=(HOUR_MS,))
    model = small_model(prior=config)
    for step in range(200):
        hit = "old hit" if step < 160 else "new hit"
        model.learn(
            [world.take(f"u{step}", hit if step % 4 else f"i{step % 20}", step * MINUTE_MS)]
        )
    assert popular(model, 1).item_ids == ("old hit",)
    for step in range(200, 260):
        model.learn([world.take(f"u{step}", "new hit", step * MINUTE_MS)])
    assert popular(model, 2).item_ids == ("new hit", "old hit")


def test_user_without_history_gets_what_is_popular_and_recent(world, small_model, view) -> None:
    model = small_model()
    for step in range(120):
        item = "hit" if step % 2 else f"i{step % 24}"
        model.learn([world.take(f"u{step}", item, step * MINUTE_MS)])
    request = RetrievalRequest(view("stranger"), 200 * MINUTE_MS, limit=3)
    assert model.retrieve(request).item_ids[0] == "hit"


def test_what_followed_once_is_first_for_the_next_user(world, small_model) -> None:
    # Everyone walks the same circle, so all items are equally popular; one walk shows the way.
    model = small_model()
    for step in range(21):
        model.learn([world.take("first", f"i{step % 20}", step * MINUTE_MS)])
    for step in range(5):
        action = world.take("second", f"i{step}", (30 + step) * MINUTE_MS)
        if step:
            assert model.target_ranks([action]).tolist() == [1]


CONTENT = FeatureSchema(fields=(Field(name="kind", entity="item", kind="categorical"),))


@pytest.fixture
def two_kinds(world, small_model, learn) -> tuple[RetrievalModel, Callable[[str], object]]:
    """Return a model of a world in which every user takes one kind of item only."""
    model = small_model(CONTENT)
    rng = np.random.default_rng(0)
    kinds = {f"{kind}{k}": kind for kind in ("film", "song") for k in range(10)}
    for item_id, kind in kinds.items():
        model.observe_item(
            ItemUpdate(event_id=item_id, time_ms=0, item_id=item_id, features={"kind": kind})
        )
    for step in range(1_500):
        kind = "film" if rng.random() < 0.5 else "song"
        user = f"{kind} lover {rng.integers(40)}"
        world.take(user, f"{kind}{rng.integers(10)}", step * MINUTE_MS)
    learn(model, world.actions)
    return model, world.user


def test_new_item_is_retrieved_by_its_content_before_anyone_took_it(two_kinds) -> None:
    model, user = two_kinds
    now = 1_500 * MINUTE_MS
    for kind in ("film", "song"):
        model.observe_item(
            ItemUpdate(
                event_id=f"new {kind}",
                time_ms=now,
                item_id=f"new {kind}",
                features={"kind": kind},
            )
        )
    for kind, other in (("film", "song"), ("song", "film")):
        request = RetrievalRequest(user(f"{kind} lover 1"), now, limit=22)
        order = model.retrieve(request).item_ids
        assert order.index(f"new {kind}") < 11
        assert order.index(f"new {kind}") < order.index(f"new {other}")


def test_user_features_alone_tell_what_a_stranger_likes(world, small_model, learn, view) -> None:
    schema = FeatureSchema(fields=(Field(name="taste", entity="user", kind="categorical"),))
    model = small_model(schema)
    rng = np.random.default_rng(0)
    for step in range(1_000):
        kind = "film" if rng.random() < 0.5 else "song"
        user = f"u{step}"
        world.describe(user, {"taste": kind})
        world.take(user, f"{kind}{rng.integers(5)}", step * MINUTE_MS)
    learn(model, world.actions)
    for kind in ("film", "song"):
        stranger = view("stranger", features={"taste": kind})
        found = model.retrieve(RetrievalRequest(stranger, 1_000 * MINUTE_MS, limit=5)).item_ids
        assert sorted(found) == [f"{kind}{k}" for k in range(5)]
