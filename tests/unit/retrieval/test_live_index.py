"""The index in use: changes kind with the catalog's size, and keeps step within its budget."""

from __future__ import annotations

import numpy as np
import pytest

from domain.errors import ConfigError
from retrieval.faiss_flat_index import FaissFlatIndex
from retrieval.faiss_ivf_index import FaissIvfIndex
from retrieval.live_index import LiveIndex
from retrieval.vector_index import IndexConfig


class Vectors:
    """Vectors that can be moved, and a record of which were asked for."""

    def __init__(self, num: int) -> None:
        self.values_ND = np.random.default_rng(0).normal(size=(num, 4)).astype(np.float32)
        self.asked: list[list[int]] = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.asked.append(rows.tolist())
        return self.values_ND[rows]


def nearest(live: LiveIndex, query_D: np.ndarray) -> int:
    return int(live.index.search(query_D[None].astype(np.float32), 1, effort=64).ids_BK[0, 0])


def test_refresh_takes_what_waits_what_was_touched_and_the_next_in_turn() -> None:
    vectors = Vectors(10)
    live = LiveIndex(IndexConfig(refresh_items=3), 4, vectors)
    available = np.ones(10, np.bool_)
    live.mark(9)
    live.refresh(np.array([7]), available)
    live.refresh(np.array([], np.int64), available)
    live.refresh(np.array([4]), available)
    assert vectors.asked == [[0, 1, 2, 7, 9], [3, 4, 5], [4, 6, 7, 8]]


def test_every_row_is_up_to_date_after_one_round() -> None:
    vectors = Vectors(10)
    live = LiveIndex(IndexConfig(refresh_items=4), 4, vectors)
    live.synchronise(np.ones(10, np.bool_))
    vectors.values_ND[8] = 50.0
    for _ in range(3):
        live.refresh(np.array([], np.int64), np.ones(10, np.bool_))
    assert nearest(live, np.ones(4)) == 8


def test_rows_taken_out_are_not_taken_in_again() -> None:
    vectors = Vectors(5)
    live = LiveIndex(IndexConfig(), 4, vectors)
    live.mark(2)
    live.drop(np.array([2]))
    available = np.array([True, True, False, True, True])
    live.refresh(np.array([2]), available)
    assert len(live.index) == 4
    assert nearest(live, vectors.values_ND[2] * 100) != 2


def test_auto_changes_to_lists_once_the_catalog_is_large() -> None:
    vectors = Vectors(60)
    live = LiveIndex(IndexConfig(flat_items=30, ivf_lists=4), 4, vectors)
    live.synchronise(np.arange(60) < 30)
    assert isinstance(live.index, FaissFlatIndex)
    live.synchronise(np.ones(60, np.bool_))
    assert isinstance(live.index, FaissIvfIndex)
    assert len(live.index) == 60


def test_lists_are_made_anew_when_the_catalog_has_doubled() -> None:
    vectors = Vectors(100)
    live = LiveIndex(IndexConfig(kind="ivf", ivf_probes=1), 4, vectors)
    live.synchronise(np.arange(100) < 40)
    before = live.save()["index"]["built_with"]
    live.refresh(np.arange(40, 100), np.ones(100, np.bool_))
    assert (before, live.save()["index"]["built_with"]) == (40, 100)
    assert len(live.index) == 100


def test_lists_are_made_anew_when_vectors_gather_in_few() -> None:
    rng = np.random.default_rng(0)
    index = FaissIvfIndex(4, IndexConfig(kind="ivf", ivf_lists=16))
    vectors = rng.normal(size=(320, 4)).astype(np.float32)
    index.upsert(np.arange(320), vectors)
    assert not index.is_worn
    index.upsert(np.arange(320), np.repeat(vectors[:1], 320, axis=0))
    assert index.is_worn


@pytest.mark.parametrize("kind", ["auto", "exact", "flat", "ivf"])
def test_loaded_live_index_goes_on_as_the_saved_one(kind: str) -> None:
    config = IndexConfig(kind=kind, refresh_items=3, flat_items=20, ivf_probes=1)  # type: ignore[arg-type]
    vectors = Vectors(30)
    available = np.ones(30, np.bool_)
    live, restored = LiveIndex(config, 4, vectors), LiveIndex(config, 4, vectors)
    live.refresh(np.arange(30), available)
    live.synchronise(available)
    restored.load(live.save(), available)
    for one in (live, restored):
        vectors.asked.clear()
        one.refresh(np.array([1]), available)
        assert vectors.asked == [[1, 3, 4, 5]]
    queries = np.random.default_rng(1).normal(size=(10, 4)).astype(np.float32)
    got, expected = restored.index.search(queries, 5), live.index.search(queries, 5)
    np.testing.assert_array_equal(got.ids_BK, expected.ids_BK)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "hnsw"}, "retrieval.index.kind must be"),
        ({"ivf_probes": 0}, "retrieval.index.ivf_probes must be at least 1, got 0"),
        ({"ivf_lists": -1}, "retrieval.index.ivf_lists must not be negative, got -1"),
    ],
)
def test_index_config_names_the_key_that_is_wrong(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        IndexConfig(**settings)  # type: ignore[arg-type]
