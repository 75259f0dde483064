"""Filters in the search: correct and never short, whatever share of the items they leave."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from domain.events import Features, ItemUpdate
from domain.features import FeatureSchema, Field
from domain.filters import ItemCondition
from domain.requests import RetrievalRequest
from retrieval import retriever
from retrieval.learner import RetrievalModel
from retrieval.vector_index import IndexConfig

MINUTE_MS = 60_000
NUM_ITEMS = 600
SCHEMA = FeatureSchema(
    fields=(
        Field(name="rank", entity="item", kind="numeric"),
        Field(name="shelf", entity="item", kind="categorical"),
        Field(name="tags", entity="item", kind="multi"),
    )
)
KINDS = {
    "exact": IndexConfig(kind="exact"),
    "flat": IndexConfig(kind="flat"),
    "ivf": IndexConfig(kind="ivf", ivf_lists=24, ivf_probes=2),
}


def features_of(item: int) -> Features:
    # Popular items have low numbers; ranks are shuffled, so that few are popular and of low rank.
    rank = item * 211 % NUM_ITEMS
    return {
        "rank": float(rank),
        "shelf": f"s{item % 3}",
        "tags": ("even",) if rank % 2 == 0 else (),
    }


@pytest.fixture(scope="module")
def models() -> dict[str, RetrievalModel]:
    return {}


@pytest.fixture
def trained(small_model, world, learn, models) -> Callable[[str], RetrievalModel]:
    """Return a maker of models that have learned the same 200 actions on 600 items."""
    rng = np.random.default_rng(1)
    for step in range(200):
        user, item = int(rng.integers(12)), int(rng.zipf(1.3)) % NUM_ITEMS
        world.take(f"u{user}", f"i{item}", step * MINUTE_MS)

    def build(kind: str) -> RetrievalModel:
        if kind not in models:
            model = small_model(SCHEMA, index=KINDS[kind])
            for item in range(NUM_ITEMS):
                update = ItemUpdate(
                    event_id="", time_ms=0, item_id=f"i{item}", features=features_of(item)
                )
                model.observe_item(update)
            learn(model, world.actions, batch=50)
            restored = small_model(SCHEMA, index=KINDS[kind])
            restored.load(model.save())
            models[kind] = restored
        return models[kind]

    return build


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the index be searched however few items a filter leaves."""
    monkeypatch.setattr(retriever, "_FEW", 0)


def below(rank: int) -> ItemCondition:
    return ItemCondition(feature="rank", at_most=float(rank - 1))


def request(world, user: str, limit: int, **filters: object) -> RetrievalRequest:
    return RetrievalRequest(world.user(user), 201 * MINUTE_MS, limit, **filters)  # type: ignore[arg-type]


def passes(one: RetrievalRequest, item_id: str) -> bool:
    """Say the obvious way whether an item may be in the answer."""
    features = features_of(int(item_id[1:]))
    return (
        item_id not in one.exclude
        and (one.allow is None or item_id in one.allow)
        and all(condition.met_by(features) for condition in one.where)
    )


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [0, 1, 9, 10, 11, 60, 300, 599, 600])
def test_answer_is_full_and_correct_at_every_selectivity(trained, world, kind, left) -> None:
    model = trained(kind)
    for user in ("u0", "u5", "a stranger"):
        one = request(world, user, 10, where=(below(left),))
        for found in (model.retrieve(one), model.popular(one)):
            assert len(found.item_ids) == min(10, left)
            assert all(passes(one, item_id) for item_id in found.item_ids)
            assert (np.diff(found.scores) <= 0).all()
        if kind != "ivf":
            best = model.retrieve(request(world, user, NUM_ITEMS)).item_ids
            expected = [item_id for item_id in best if passes(one, item_id)][:10]
            assert list(model.retrieve(one).item_ids) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1, 25, 400])
def test_all_filters_hold_together(trained, world, kind: str, limit: int) -> None:
    model = trained(kind)
    one = request(
        world,
        "u3",
        limit,
        exclude=frozenset(f"i{k}" for k in range(0, NUM_ITEMS, 7)),
        allow=frozenset(f"i{k}" for k in range(NUM_ITEMS) if k % 5) | {"unknown"},
        where=(
            ItemCondition(feature="shelf", one_of=frozenset({"s0", "s1"})),
            ItemCondition(feature="tags", one_of=frozenset({"even"}), negated=True),
            ItemCondition(feature="rank", at_least=50.0, at_most=550.0),
        ),
    )
    eligible = [f"i{k}" for k in range(NUM_ITEMS) if passes(one, f"i{k}")]
    assert len(eligible) > 25
    for found in (model.retrieve(one).item_ids, model.popular(one).item_ids):
        assert len(found) == min(limit, len(eligible))
        assert set(found) <= set(eligible)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("kind", KINDS)
def test_popular_items_and_successors_do_not_slip_past_a_filter(trained, world, kind: str) -> None:
    # The most popular items and what follows the user's last ones stand beside the index.
    model = trained(kind)
    hits = frozenset(model.popular(request(world, "u1", 100)).item_ids)
    one = request(world, "u1", 50, exclude=hits, where=(below(590),))
    found = model.retrieve(one).item_ids
    assert len(found) == 50
    assert not hits & set(found)
    assert all(passes(one, item_id) for item_id in found)


def test_item_described_anew_meets_and_leaves_conditions_at_once(trained, world) -> None:
    model = trained("flat")
    new_shelf = ItemCondition(feature="shelf", one_of=frozenset({"new"}))
    one = request(world, "u2", 5, where=(new_shelf,))
    assert model.retrieve(one).item_ids == ()
    for step, (shelf, expected) in enumerate((("new", ("i9",)), ("s0", ()))):
        features = {**features_of(9), "shelf": shelf}
        model.observe_item(ItemUpdate(event_id="", time_ms=step, item_id="i9", features=features))
        assert model.retrieve(one).item_ids == expected
        assert model.popular(one).item_ids == expected


def test_item_taken_out_is_not_found_by_being_allowed(trained, world) -> None:
    model = trained("flat")
    one = request(world, "u2", 5, allow=frozenset({"i3", "i4"}))
    model.observe_item(ItemUpdate(event_id="", time_ms=9, item_id="i3", available=False))
    assert model.retrieve(one).item_ids == ("i4",)
    assert model.popular(one).item_ids == ("i4",)
    back = ItemUpdate(event_id="", time_ms=10, item_id="i3", features=features_of(3))
    model.observe_item(back)
    assert set(model.retrieve(one).item_ids) == {"i3", "i4"}
