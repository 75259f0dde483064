"""Care of a live index: it measures what searches find, and swaps new lists in under traffic."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest

from retrieval.exact_index import ExactIndex
from retrieval.faiss_ivf_index import FaissIvfIndex
from retrieval.index_care import IndexCare
from retrieval.live_index import LiveIndex
from retrieval.recall_probe import Question, RecallProbe
from retrieval.vector_index import IndexConfig

WIDTH = 8
NUM = 900


class CountedLock:
    """A lock that anybody gets; says how often, and lets a test act while new lists are made."""

    def __init__(self) -> None:
        self.writes = 0
        self.reads = 0
        self.at_read: dict[int, object] = {}

    def read(self) -> AbstractContextManager[None]:
        self.reads += 1
        act = self.at_read.get(self.reads)
        if callable(act):
            act()
        return nullcontext()

    def write(self) -> AbstractContextManager[None]:
        self.writes += 1
        return nullcontext()


class Rows:
    """Vectors by row that a test may move."""

    def __init__(self) -> None:
        self.values_ND = np.random.default_rng(0).normal(size=(2 * NUM, WIDTH)).astype(np.float32)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = self.values_ND[rows]
        return vectors


@pytest.fixture
def rows() -> Rows:
    return Rows()


def live_index(rows: Rows, kind: str = "ivf", probes: int = 3) -> LiveIndex:
    config = IndexConfig(kind=kind, ivf_lists=30, ivf_probes=probes)  # type: ignore[arg-type]
    live = LiveIndex(config, WIDTH, rows)
    live.synchronise(np.arange(2 * NUM) < NUM)
    return live


def care_of(live: LiveIndex, lock: CountedLock | None = None) -> IndexCare:
    config = IndexConfig(kind="ivf", ivf_lists=30, ivf_probes=3)
    return IndexCare(live, config, WIDTH, lock or CountedLock())


def queries(num: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(num, WIDTH)).astype(np.float32)


def test_every_second_query_waits_and_newer_ones_push_out_older_ones() -> None:
    probe = RecallProbe(every=2)
    for k in range(1, 101):
        probe.offer(queries(3), k, None, None)
    waiting = []
    while (question := probe.take()) is not None:
        waiting.append(question.k)
    assert waiting == list(range(69, 101, 2))  # the sixteen newest


def test_kept_query_does_not_change_with_the_caller_s_array() -> None:
    probe = RecallProbe(every=1)
    asked = queries(1)
    probe.offer(asked, 5, None, None)
    asked[:] = 0.0
    question = probe.take()
    assert question is not None
    np.testing.assert_array_equal(question.query_1D, queries(1))


def test_live_queries_are_kept_only_when_asked_for(rows: Rows) -> None:
    live = live_index(rows)
    care = care_of(live)
    live.search(queries(1), 5)
    assert care.take_question() is None
    care.keep_queries(every=1)
    allowed = np.arange(NUM) % 2 == 0
    live.search(queries(1), 5, exclude=np.array([4]), allowed=allowed)
    question = care.take_question()
    assert question is not None
    assert (question.k, question.exclude.tolist()) == (5, [4])  # type: ignore[union-attr]
    assert question.allowed is allowed


@pytest.mark.parametrize("filtered", [False, True])
def test_recall_is_the_share_that_a_complete_search_finds(rows: Rows, filtered: bool) -> None:
    live, truth = live_index(rows), ExactIndex(WIDTH)
    truth.upsert(np.arange(NUM), rows.values_ND[:NUM])
    allowed = np.arange(NUM) % 3 > 0 if filtered else None
    out = np.arange(0, 30) if filtered else None
    care = care_of(live)
    for query_D in queries(20):
        question = Question(query_D[None], 10, out, allowed)
        exact = truth.search(query_D[None], 10, exclude=out, allowed=allowed).ids_BK[0]
        live.index.probes = 2  # type: ignore[attr-defined]
        found = live.search(query_D[None], 10, exclude=out, allowed=allowed).ids_BK[0]
        got = care.recalls(question, [2, 30])
        assert got == [np.isin(exact, found).mean(), 1.0]


def test_recall_of_an_index_that_searches_everything_is_one(rows: Rows) -> None:
    care = care_of(live_index(rows, kind="flat"))
    assert care.recalls(Question(queries(1), 10, None, None), [1, 2]) == [1.0, 1.0]
    assert (care.num_lists, care.probes, care.is_worn) == (0, 0, False)
    assert care.retrain() is False


def test_probes_set_are_those_searched(rows: Rows) -> None:
    live = live_index(rows)
    care = care_of(live)
    care.set_probes(30)
    assert (care.probes, care.num_lists) == (30, 30)
    truth = ExactIndex(WIDTH)
    truth.upsert(np.arange(NUM), rows.values_ND[:NUM])
    np.testing.assert_array_equal(
        live.search(queries(9), 10).ids_BK, truth.search(queries(9), 10).ids_BK
    )


def test_worn_lists_are_left_alone_once_somebody_keeps_the_queries(rows: Rows) -> None:
    everything = np.ones(2 * NUM, np.bool_)
    left, other = live_index(rows), live_index(rows)
    care = care_of(left)
    care.keep_queries(every=10)
    for live in (left, other):
        live.rebuild(np.arange(2 * NUM) < 300)
    lists, others = left.index, other.index
    assert not care.is_worn
    for live in (left, other):
        live.refresh(np.arange(0), everything)  # six times as many as the lists were made for
    assert other.index is not others
    assert left.index is lists
    assert care.is_worn
    assert care.retrain() is True
    assert left.index is not lists
    assert not care.is_worn


def held(index: object) -> dict[int, list[float]]:
    assert isinstance(index, FaissIvfIndex)
    ids, vectors = index.held(0, index.num_lists)
    assert len(ids) == len(set(ids.tolist())) == len(index)
    return dict(zip(ids.tolist(), vectors.tolist(), strict=True))


@pytest.mark.parametrize("at", [1, 2])
def test_what_changes_while_lists_are_made_is_in_the_new_ones(rows: Rows, at: int) -> None:
    # While the first lists were copied (1), or all of them (2): a row moves, others go and come.
    live = live_index(rows)
    lock = CountedLock()
    care = care_of(live, lock)

    def change() -> None:
        rows.values_ND[7] = 9.0
        live.mark(7)
        live.drop(np.array([11, 12, 13]))
        live.mark(12)
        live.mark(NUM + 3)
        live.flush()

    lock.at_read[at] = change
    old = live.index
    assert care.retrain() is True
    assert live.index is not old
    expected = {row: rows.values_ND[row].tolist() for row in range(NUM) if row not in (11, 13)}
    expected[NUM + 3] = rows.values_ND[NUM + 3].tolist()
    assert held(live.index) == expected
    live.drop(np.array([7]))  # nobody notes changes any more
    assert 7 in held(old)


def test_lists_that_became_others_meanwhile_are_not_replaced(rows: Rows) -> None:
    live = live_index(rows)
    lock = CountedLock()
    lock.at_read[2] = lambda: live.rebuild(np.arange(2 * NUM) < NUM)
    old = live.index
    assert care_of(live, lock).retrain() is False
    assert live.index is not old
    assert len(live.index) == NUM


def test_probes_stay_as_they_were_tuned_when_lists_are_made_anew(rows: Rows) -> None:
    live = live_index(rows)
    care = care_of(live)
    care.set_probes(17)
    assert care.retrain() is True
    assert care.probes == 17


def test_many_searches_and_writes_go_on_while_lists_are_made(rows: Rows) -> None:
    # Row 0 stays far out on one side and is the best answer to one query, whatever else happens.
    from_one = threading.Lock()

    class RealLock:
        def read(self) -> AbstractContextManager[object]:
            return from_one

        def write(self) -> AbstractContextManager[object]:
            return from_one

    rows.values_ND[0] = 30.0
    live = live_index(rows)
    care = IndexCare(
        live,
        IndexConfig(kind="ivf", ivf_lists=30, ivf_probes=3),
        WIDTH,
        RealLock(),  # type: ignore[arg-type]
    )
    stop, wrong, answered = threading.Event(), [], [0]

    def write() -> None:
        rng = np.random.default_rng(8)
        while not stop.is_set():
            some = np.unique(rng.integers(1, NUM, size=20))
            with from_one:
                rows.values_ND[some] = rng.normal(size=(len(some), WIDTH))
                for row in some.tolist():
                    live.mark(row)
                live.flush()

    def search() -> None:
        while not stop.is_set():
            with from_one:
                found = live.search(np.ones((1, WIDTH), np.float32), 5).ids_BK[0]
            answered[0] += 1
            if found[0] != 0 or (found < 0).any() or len(set(found.tolist())) < 5:
                wrong.append(found)

    threads = [threading.Thread(target=write), threading.Thread(target=search)]
    for thread in threads:
        thread.start()
    try:
        done = [care.retrain() for _ in range(5)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert done == [True] * 5
    assert not wrong
    assert answered[0] > 0
    assert held(live.index) == {row: rows.values_ND[row].tolist() for row in range(NUM)}
