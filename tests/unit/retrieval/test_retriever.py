"""Candidates: exact over a complete index, filters honoured, safe from many threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from domain.events import ItemUpdate
from domain.requests import RetrievalRequest
from retrieval.learner import RetrievalModel
from retrieval.vector_index import IndexConfig
from tests.unit.retrieval.asking import popular

MINUTE_MS = 60_000
NUM_ITEMS = 400

KINDS = {
    "exact": IndexConfig(kind="exact"),
    "flat": IndexConfig(kind="flat"),
    "ivf": IndexConfig(kind="ivf", ivf_lists=24, ivf_probes=2),
}


@pytest.fixture
def trained(small_model, world) -> Callable[[IndexConfig], RetrievalModel]:
    """Return a maker of models that have learned the same 300 actions on 400 items."""
    rng = np.random.default_rng(1)
    for step in range(300):
        user, item = int(rng.integers(15)), int(rng.zipf(1.3)) % NUM_ITEMS
        world.take(f"u{user}", f"i{item}", step * MINUTE_MS)

    def build(index: IndexConfig) -> RetrievalModel:
        model = small_model(index=index)
        for item in range(NUM_ITEMS):
            model.observe_item(ItemUpdate(event_id="", time_ms=0, item_id=f"i{item}"))
        for first in range(0, 300, 50):
            model.learn(world.actions[first : first + 50])
        restored = small_model(index=index)
        restored.load(model.save())
        return restored

    return build


def request(world, user: str, limit: int, **filters: frozenset[str]) -> RetrievalRequest:
    return RetrievalRequest(world.user(user), 301 * MINUTE_MS, limit, **filters)


def complete(model: RetrievalModel, one: RetrievalRequest) -> tuple[str, ...]:
    """Return the order of all items: the limit is too high for the index to be asked."""
    everything = RetrievalRequest(one.user, one.time_ms, NUM_ITEMS)
    return model.retrieve(everything).item_ids


@pytest.mark.parametrize("kind", ["exact", "flat"])
def test_complete_index_gives_the_exact_answer(trained, world, kind: str) -> None:
    model = trained(KINDS[kind])
    for user in range(15):
        one = request(world, f"u{user}", 25)
        found = model.retrieve(one)
        assert found.item_ids == complete(model, one)[:25]
        assert (np.diff(found.scores) <= 0).all()


def test_partitioned_index_finds_most_of_the_exact_answer(trained, world) -> None:
    model = trained(KINDS["ivf"])
    shares = []
    for user in range(15):
        one = request(world, f"u{user}", 25)
        best = set(complete(model, one)[:25])
        shares.append(len(best & set(model.retrieve(one).item_ids)) / 25)
    assert np.mean(shares) >= 0.8  # usually 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_successors_are_candidates_even_when_the_index_misses_them(
    trained, world, kind: str
) -> None:
    # Nobody popular, nobody near: i399 follows i398 once, and only the transitions know.
    model = trained(KINDS[kind])
    model.learn([world.take("walker", "i398", 310 * MINUTE_MS)])
    model.learn([world.take("walker", "i399", 311 * MINUTE_MS)])
    world.take("follower", "i398", 312 * MINUTE_MS)
    one = RetrievalRequest(world.user("follower"), 313 * MINUTE_MS, limit=5)
    assert "i399" in model.retrieve(one).item_ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1, 20, 399])
def test_excluded_items_never_come_and_the_answer_stays_full(
    trained, world, kind: str, limit: int
) -> None:
    model = trained(KINDS[kind])
    best = complete(model, request(world, "u1", 1))
    exclude = frozenset(best[:150:2]) | {"not in the catalog"}
    found = model.retrieve(request(world, "u1", limit, exclude=exclude)).item_ids
    assert len(found) == min(limit, NUM_ITEMS - 75)
    assert not exclude & set(found)
    if kind != "ivf":
        assert list(found) == [item for item in best if item not in exclude][:limit]


@pytest.mark.parametrize("kind", KINDS)
def test_only_eligible_item_is_found_however_hidden(trained, world, kind: str) -> None:
    model = trained(KINDS[kind])
    exclude = frozenset(f"i{k}" for k in range(NUM_ITEMS) if k != 233)
    found = model.retrieve(request(world, "u2", 10, exclude=exclude)).item_ids
    assert found == ("i233",)


@pytest.mark.parametrize("kind", KINDS)
def test_allowed_items_come_in_their_exact_order(trained, world, kind: str) -> None:
    model = trained(KINDS[kind])
    allow = frozenset({"i1", "i5", "i77", "not in the catalog"})
    one = request(world, "u3", 10, allow=allow, exclude=frozenset({"i5"}))
    expected = [item for item in complete(model, one) if item in {"i1", "i77"}]
    assert list(model.retrieve(one).item_ids) == expected


def test_allowing_nothing_and_asking_for_nothing_give_nothing(trained, world) -> None:
    model = trained(KINDS["flat"])
    assert model.retrieve(request(world, "u3", 5, allow=frozenset())).item_ids == ()
    assert model.retrieve(request(world, "u3", 0)).item_ids == ()
    assert popular(model, 0).item_ids == ()


def test_popular_honours_what_is_excluded(trained, world) -> None:
    model = trained(KINDS["flat"])
    best = popular(model, 10).item_ids
    rest = popular(model, NUM_ITEMS, frozenset(best[::2])).item_ids
    assert rest[:5] == best[1::2]
    assert len(rest) == NUM_ITEMS - 5


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_get_the_answers_of_one(trained, world, kind: str) -> None:
    model = trained(KINDS[kind])
    wanted = [request(world, f"u{k % 15}", 20, exclude=frozenset({f"i{k}"})) for k in range(60)]
    alone = [model.retrieve(one) for one in wanted]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(model.retrieve, wanted))
    for one, other in zip(alone, together, strict=True):
        assert one.item_ids == other.item_ids
        np.testing.assert_array_equal(one.scores, other.scores)
