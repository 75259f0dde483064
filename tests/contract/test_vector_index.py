"""What every vector index promises; a new one is tested by listing it in INDEXES."""

from __future__ import annotations

from collections.abc import Callable

import faiss
import numpy as np
import pytest

from retrieval.exact_index import ExactIndex
from retrieval.faiss_flat_index import FaissFlatIndex
from retrieval.faiss_gpu_index import FaissGpuIndex
from retrieval.faiss_ivf_index import FaissIvfIndex
from retrieval.vector_index import NO_ID, IndexConfig, VectorIndex

WIDTH = 9
NUM = 600
FAR = 10**12
"""Ids start here: an index must not take an id for a position."""


def make_ivf() -> FaissIvfIndex:
    return FaissIvfIndex(WIDTH, IndexConfig(ivf_lists=16, ivf_probes=6))


INDEXES: dict[str, tuple[Callable[[], VectorIndex], float]] = {
    "exact": (lambda: ExactIndex(WIDTH), 1.0),
    "flat": (lambda: FaissFlatIndex(WIDTH), 1.0),
    # Its GPU is FAISS's complete index on the CPU, which has the same verbs.
    "gpu": (lambda: FaissGpuIndex(WIDTH, faiss.IndexFlatIP), 1.0),
    # Six of sixteen lists; usually 0.99 at first, 0.93 after every vector was replaced.
    "ivf": (make_ivf, 0.85),
}


@pytest.fixture(params=INDEXES)
def case(request: pytest.FixtureRequest) -> tuple[VectorIndex, float]:
    """Return an empty index and the recall that it must reach."""
    make, floor = INDEXES[request.param]
    return make(), floor


@pytest.fixture
def index(case: tuple[VectorIndex, float]) -> VectorIndex:
    return case[0]


def item_vectors(num: int, seed: int) -> np.ndarray:
    """Return vectors in clusters, whose last coordinate is a bias of larger spread."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, WIDTH))
    vectors = centres[rng.integers(20, size=num)] + 0.3 * rng.normal(size=(num, WIDTH))
    vectors[:, -1] = 2.0 * rng.normal(size=num)
    return vectors.astype(np.float32)


def user_vectors(num: int, seed: int) -> np.ndarray:
    queries = np.random.default_rng(seed).normal(size=(num, WIDTH)).astype(np.float32)
    queries[:, -1] = 1.0
    return queries


def recall(index: VectorIndex, truth: VectorIndex, *, effort: int = 1) -> float:
    queries = user_vectors(50, seed=9)
    got = index.search(queries, 10, effort=effort).ids_BK
    best = truth.search(queries, 10).ids_BK
    return float(np.mean([np.isin(b, g).mean() for b, g in zip(best, got, strict=True)]))


def churned(index: VectorIndex) -> ExactIndex:
    """Add, replace and remove until nothing is as it was; return the exact twin."""
    truth = ExactIndex(WIDTH)
    ids = FAR + np.arange(NUM)
    fresh = item_vectors(NUM, seed=1)
    for one in (index, truth):
        one.upsert(ids, item_vectors(NUM, seed=0))
    for part in np.split(np.random.default_rng(2).permutation(NUM), 20):
        for one in (index, truth):
            one.upsert(ids[part], fresh[part])
            one.remove(ids[part[:3]])
            one.upsert(ids[part[:2]], fresh[part[:2]])
    return truth


def test_empty_index_finds_nothing(index: VectorIndex) -> None:
    hits = index.search(user_vectors(2, seed=0), 3)
    assert hits.ids_BK.tolist() == [[NO_ID] * 3] * 2
    assert np.isneginf(hits.scores_BK).all()
    assert index.remove(np.array([1])) == 0


def test_recall_reaches_its_floor_on_a_fresh_index(case: tuple[VectorIndex, float]) -> None:
    index, floor = case
    truth = ExactIndex(WIDTH)
    for one in (index, truth):
        one.upsert(FAR + np.arange(NUM), item_vectors(NUM, seed=0))
    assert recall(index, truth) >= floor


def test_recall_reaches_its_floor_after_everything_moved(
    case: tuple[VectorIndex, float],
) -> None:
    index, floor = case
    truth = churned(index)
    assert len(index) == len(truth) == NUM - 20
    assert recall(index, truth) >= floor


def test_recall_is_complete_with_enough_effort(index: VectorIndex) -> None:
    assert recall(index, churned(index), effort=64) == 1.0


def test_scores_are_inner_products_best_first(index: VectorIndex) -> None:
    vectors = item_vectors(NUM, seed=0)
    index.upsert(FAR + np.arange(NUM), vectors)
    queries = user_vectors(5, seed=3)
    hits = index.search(queries, 7)
    expected = np.einsum("bd,bkd->bk", queries, vectors[hits.ids_BK - FAR])
    np.testing.assert_allclose(hits.scores_BK, expected, rtol=1e-4, atol=1e-4)
    assert (np.diff(hits.scores_BK, axis=1) <= 0).all()


def test_replaced_vector_is_found_by_its_new_value_only(index: VectorIndex) -> None:
    index.upsert(FAR + np.arange(NUM), item_vectors(NUM, seed=0))
    north = np.full((1, WIDTH), 10.0, np.float32)
    index.upsert(np.array([FAR + 5]), north)
    assert index.search(north, 1, effort=64).ids_BK[0, 0] == FAR + 5
    index.upsert(np.array([FAR + 5]), -north)
    assert FAR + 5 not in index.search(north, 50, effort=64).ids_BK
    assert len(index) == NUM


def test_removed_ids_are_never_returned_and_others_keep_theirs(index: VectorIndex) -> None:
    vectors = item_vectors(NUM, seed=0)
    index.upsert(FAR + np.arange(NUM), vectors)
    gone = FAR + np.arange(0, NUM, 2)
    assert index.remove(gone) == NUM // 2
    assert index.remove(gone) == 0
    hits = index.search(user_vectors(20, seed=4), NUM, effort=64)
    found = hits.ids_BK[0][hits.ids_BK[0] != NO_ID]
    assert sorted(found.tolist()) == [FAR + i for i in range(1, NUM, 2)]
    for b, query in enumerate(user_vectors(20, seed=4)):
        expected = vectors[hits.ids_BK[b, 0] - FAR] @ query
        np.testing.assert_allclose(hits.scores_BK[b, 0], expected, rtol=1e-4)


def test_removed_id_may_come_back(index: VectorIndex) -> None:
    ids, vectors = FAR + np.arange(NUM), item_vectors(NUM, seed=0)
    index.upsert(ids, vectors)
    index.remove(ids[:7])
    index.upsert(ids[:7], vectors[:7])
    hits = index.search(vectors[3:4], NUM, effort=64)
    assert sorted(hits.ids_BK[0].tolist()) == ids.tolist()


@pytest.mark.parametrize("k", [10, 40])
def test_excluded_ids_make_room_for_the_next_best(index: VectorIndex, k: int) -> None:
    index.upsert(FAR + np.arange(NUM), item_vectors(NUM, seed=0))
    query = user_vectors(3, seed=5)
    best = index.search(query, 50, effort=64).ids_BK
    out = np.unique(best[:, ::5])
    got = index.search(query, k, exclude=out, effort=64).ids_BK
    for b in range(3):
        expected = [i for i in index.search(query, 90, effort=64).ids_BK[b] if i not in out][:k]
        assert got[b].tolist() == expected


@pytest.mark.parametrize("share", [0.005, 0.1, 0.4, 0.95])
@pytest.mark.parametrize("k", [1, 10, 400])
def test_only_allowed_ids_are_returned_and_as_many_as_there_are(
    case: tuple[VectorIndex, float], share: float, k: int
) -> None:
    index, floor = case
    truth = ExactIndex(WIDTH)
    for one in (index, truth):
        one.upsert(np.arange(NUM), item_vectors(NUM, seed=0))
    rng = np.random.default_rng(11)
    allowed = rng.random(NUM + 50) < share
    out = rng.choice(NUM, 60, replace=False)
    got = index.search(user_vectors(20, seed=6), k, allowed=allowed, exclude=out)
    best = truth.search(user_vectors(20, seed=6), k, allowed=allowed, exclude=out)
    eligible = np.setdiff1d(np.flatnonzero(allowed[:NUM]), out)
    shares = []
    for b in range(20):
        found = got.ids_BK[b][got.ids_BK[b] != NO_ID]
        assert len(set(found.tolist())) == len(found) == min(k, len(eligible))
        assert np.isin(found, eligible).all()
        shares.append(np.isin(best.ids_BK[b], got.ids_BK[b]).mean())
    assert np.mean(shares) >= (floor if len(eligible) > NUM // 16 else 1.0)


def test_ids_beyond_what_is_allowed_are_not_returned(index: VectorIndex) -> None:
    ids = np.append(np.arange(NUM), FAR)
    index.upsert(ids, item_vectors(NUM + 1, seed=0))
    for num in (3, NUM):
        hits = index.search(item_vectors(NUM + 1, seed=0)[-1:], NUM + 1, allowed=np.ones(num) > 0)
        assert sorted(hits.ids_BK[0][hits.ids_BK[0] != NO_ID].tolist()) == list(range(num))
    nothing = index.search(user_vectors(1, seed=0), 2, allowed=np.zeros(NUM, np.bool_))
    assert nothing.ids_BK.tolist() == [[NO_ID, NO_ID]]


def test_search_is_never_short_while_eligible_ids_are_held(index: VectorIndex) -> None:
    # All the lists that a query would probe first hold nothing that may be returned.
    vectors = item_vectors(NUM, seed=0)
    index.upsert(np.arange(NUM), vectors)
    query = user_vectors(1, seed=12)
    order = np.argsort(-(vectors @ query[0]))
    near, far = order[:-30], order[-30:]
    hits = index.search(query, 30, exclude=near)
    assert sorted(hits.ids_BK[0].tolist()) == sorted(far.tolist())
    everything = index.search(query, NUM + 5).ids_BK[0]
    assert sorted(everything[:NUM].tolist()) == list(range(NUM))
    assert everything[NUM:].tolist() == [NO_ID] * 5


def test_index_keeps_no_reference_to_its_input(index: VectorIndex) -> None:
    vectors = item_vectors(NUM, seed=0)
    index.upsert(FAR + np.arange(NUM), vectors)
    query = user_vectors(1, seed=7)
    before = index.search(query, 5).scores_BK.copy()
    vectors[:] = 0.0
    np.testing.assert_array_equal(index.search(query, 5).scores_BK, before)


@pytest.mark.parametrize("name", INDEXES)
def test_loaded_index_answers_as_the_saved_one(name: str) -> None:
    index, restored = INDEXES[name][0](), INDEXES[name][0]()
    truth = churned(index)
    ids = np.array(sorted(truth.search(user_vectors(1, seed=8), NUM - 20).ids_BK[0]))
    restored.upsert(np.array([1]), item_vectors(1, seed=0))
    restored.load(index.save())
    restored.upsert(ids, item_vectors(NUM, seed=1)[ids - FAR])
    queries = user_vectors(20, seed=8)
    got, expected = restored.search(queries, 10), index.search(queries, 10)
    np.testing.assert_array_equal(got.ids_BK, expected.ids_BK)
    np.testing.assert_array_equal(got.scores_BK, expected.scores_BK)
