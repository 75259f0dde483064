"""The index on a GPU, as far as a machine without one can tell: what is copied and what is said."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from domain.errors import ConfigError
from retrieval.exact_index import ExactIndex
from retrieval.faiss_gpu_index import FaissGpuIndex, gpu_flat, why_no_gpu
from retrieval.live_index import LiveIndex
from retrieval.vector_index import IndexConfig

WIDTH = 8

needs_no_gpu = pytest.mark.skipif(not why_no_gpu(), reason="this machine has a GPU")


class Counting:
    """FAISS's complete index, which counts what is copied to it and what it is asked."""

    def __init__(self, width: int) -> None:
        self._index = faiss.IndexFlatIP(width)
        self.copied = 0
        self.asked = 0

    def reset(self) -> None:
        self._index.reset()

    def add(self, vectors: np.ndarray) -> None:
        self.copied += 1
        self._index.add(vectors)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked += 1
        return self._index.search(queries, k)


def vectors(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num, WIDTH)).astype(np.float32)


def test_rows_are_copied_once_after_any_number_of_writes() -> None:
    mirrors: list[Counting] = []
    index = FaissGpuIndex(WIDTH, lambda width: mirrors.append(Counting(width)) or mirrors[0])  # type: ignore[func-returns-value]
    index.upsert(np.arange(50), vectors(50))
    index.upsert(np.arange(10), vectors(10, 1))
    index.remove(np.array([3]))
    for _ in range(4):
        index.search(vectors(1), 5)
    assert (mirrors[0].copied, mirrors[0].asked) == (1, 4)
    index.upsert(np.array([7]), vectors(1, 2))
    index.search(vectors(1), 5)
    assert (mirrors[0].copied, mirrors[0].asked) == (2, 5)


def test_bitmaps_and_very_many_answers_are_left_to_the_cpu() -> None:
    mirror = Counting(WIDTH)
    index, truth = FaissGpuIndex(WIDTH, lambda _: mirror), ExactIndex(WIDTH)
    for one in (index, truth):
        one.upsert(np.arange(3_000), vectors(3_000))
    allowed = np.arange(3_000) % 2 == 0
    for wanted, filters in ((10, {"allowed": allowed}), (2_100, {})):
        got = index.search(vectors(2, 3), wanted, **filters)  # type: ignore[arg-type]
        best = truth.search(vectors(2, 3), wanted, **filters)  # type: ignore[arg-type]
        np.testing.assert_allclose(got.scores_BK, best.scores_BK, rtol=1e-4, atol=1e-4)
    assert mirror.asked == 0


@needs_no_gpu
def test_without_a_gpu_it_is_said_and_the_cpu_searches(caplog: pytest.LogCaptureFixture) -> None:
    index = LiveIndex(IndexConfig(kind="gpu", flat_items=30), WIDTH, lambda rows: vectors(50)[rows])
    for row in range(50):
        index.mark(row)
    index.flush()
    assert index.search(vectors(1), 5).ids_BK.min() >= 0
    assert [one.message for one in caplog.records] == [
        "no GPU for the index, it is searched on the CPU"
    ]
    assert type(index.index).__name__ == "FaissIvfIndex"


@needs_no_gpu
def test_index_itself_cannot_be_made_without_one() -> None:
    with pytest.raises(ConfigError, match=r'^retrieval\.index\.kind: "gpu": '):
        gpu_flat(WIDTH)
