"""When lists no longer fit what they hold, and what can be read out of them."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.faiss_ivf_index import FaissIvfIndex
from retrieval.vector_index import IndexConfig

WIDTH = 8
NUM = 800


def clusters(seed: int, num: int = NUM) -> np.ndarray:
    """Return vectors close to one of twenty places, as far apart as they are long."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(20, WIDTH))
    return (places[np.arange(num) % 20] + 0.2 * rng.normal(size=(num, WIDTH))).astype(np.float32)


@pytest.fixture
def index() -> FaissIvfIndex:
    made = FaissIvfIndex(WIDTH, IndexConfig(kind="ivf", ivf_lists=20, ivf_probes=4))
    made.upsert(np.arange(NUM), clusters(0))
    return made


def test_lists_are_not_worn_when_every_vector_drifted_a_little(index: FaissIvfIndex) -> None:
    rng = np.random.default_rng(1)
    moved = clusters(0) + 0.05 * rng.normal(size=(NUM, WIDTH)).astype(np.float32)
    for part in np.split(rng.permutation(NUM), 20):
        index.upsert(part, moved[part])
    assert not index.is_worn


def test_lists_are_worn_once_vectors_come_from_elsewhere(index: FaissIvfIndex) -> None:
    other = clusters(2)
    parts = np.split(np.random.default_rng(3).permutation(NUM), 20)
    worn_after = 0
    for part in parts:
        index.upsert(part, other[part])
        worn_after += 1
        if index.is_worn:
            break
    assert worn_after == 5  # a quarter of twenty: not before, however far a few lie


def test_new_lists_are_not_worn(index: FaissIvfIndex) -> None:
    for start in range(0, NUM, 100):
        index.upsert(np.arange(start, start + 100), clusters(2)[start : start + 100])
    assert index.is_worn
    index.rebuild(np.arange(NUM), clusters(2))
    assert not index.is_worn


def test_wear_is_the_same_after_save_and_load(index: FaissIvfIndex) -> None:
    other = clusters(2)
    index.upsert(np.arange(100), other[:100])
    current = np.concatenate([other[:100], clusters(0)[100:]])
    restored = FaissIvfIndex(WIDTH, IndexConfig(kind="ivf", ivf_lists=20))
    restored.load(index.save())
    for one in (index, restored):
        one.upsert(np.arange(NUM), current)
    assert restored.is_worn == index.is_worn
    for start in range(100, NUM, 50):
        for one in (index, restored):
            one.upsert(np.arange(start, start + 50), other[start : start + 50])
        assert restored.is_worn == index.is_worn
    assert index.is_worn


def test_vectors_without_length_wear_nothing() -> None:
    made = FaissIvfIndex(WIDTH, IndexConfig(kind="ivf", ivf_lists=1))
    made.upsert(np.arange(5), np.zeros((5, WIDTH), np.float32))
    assert not made.is_worn


def test_held_gives_back_what_was_put_in_list_by_list(index: FaissIvfIndex) -> None:
    index.remove(np.arange(0, NUM, 3))
    parts = [index.held(first, first + 7) for first in range(0, index.num_lists, 7)]
    ids = np.concatenate([ids for ids, _ in parts])
    vectors = np.concatenate([vectors for _, vectors in parts])
    assert sorted(ids.tolist()) == [i for i in range(NUM) if i % 3]
    np.testing.assert_array_equal(vectors, clusters(0)[ids])
    nothing, none = FaissIvfIndex(WIDTH, IndexConfig()).held(0, 10)
    assert (nothing.shape, none.shape) == ((0,), (0, WIDTH))


def test_fewer_probes_find_less_and_more_find_all(index: FaissIvfIndex) -> None:
    queries = np.random.default_rng(4).normal(size=(40, WIDTH)).astype(np.float32)
    truth = index.search(queries, 20, effort=20).ids_BK
    found = []
    for probes in (1, 4, 20):
        index.probes = probes
        got = index.search(queries, 20).ids_BK
        found.append(np.mean([np.isin(t, g).mean() for t, g in zip(truth, got, strict=True)]))
    assert found[0] < found[1] <= found[2] == 1.0  # usually 0.79, 0.96, 1.0
    index.probes = 500
    assert index.probes == 20
