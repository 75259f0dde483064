"""The embedding table against a table made of dictionaries that is obviously right."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.state import state_hash
from ranking.embedding_table import EmbeddingTable, EmbeddingTableConfig
from ranking.id_map import IdMap
from ranking.row_optimiser import OPTIMISERS, OptimiserName

D = 2


@dataclass
class DictTable:
    """The slow twin: admission, expiry, eviction and Adagrad, one id at a time."""

    config: EmbeddingTableConfig
    rows: dict[int, np.ndarray] = field(default_factory=dict)
    squares: dict[int, np.ndarray] = field(default_factory=dict)
    last_ms: dict[int, int] = field(default_factory=dict)
    order: dict[int, int] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)
    touched: set[int] = field(default_factory=set)

    def read(self, ids: np.ndarray) -> np.ndarray:
        return np.array([self.rows.get(int(each), np.zeros(D)) for each in ids]).reshape(-1, D)

    def learn(self, ids: np.ndarray, counts: np.ndarray, gradients: np.ndarray, now: int) -> None:
        for each, count, gradient in zip(ids.tolist(), counts.tolist(), gradients, strict=True):
            if each not in self.rows:
                self.seen[each] = self.seen.get(each, 0) + count
                if self.seen[each] < self.config.min_count:
                    continue
                self.rows[each] = np.zeros(D)
                self.squares[each] = np.zeros(D)
            self.squares[each] = self.squares[each] + gradient.astype(np.float64) ** 2
            step = gradient / (np.sqrt(self.squares[each]) + 1e-10)
            self.rows[each] = self.rows[each] - self.config.learning_rate * step
            self.touched.add(each)
            self.last_ms[each] = max(self.last_ms.get(each, 0), now)


batches = st.lists(
    st.tuples(
        st.lists(st.integers(1, 30), min_size=1, max_size=8, unique=True),
        st.integers(0, 2**31),
    ),
    min_size=1,
    max_size=12,
)


def feed(table: EmbeddingTable | DictTable, ids: list[int], seed: int, now: int) -> None:
    rng = np.random.default_rng(seed)
    table.learn(
        np.array(ids, np.int64),
        rng.integers(1, 3, len(ids)),
        rng.normal(size=(len(ids), D)).astype(np.float32),
        now,
    )


@given(batches, st.integers(1, 4))
@settings(max_examples=60)
def test_table_equals_dictionary_table_when_nothing_must_leave(
    steps: list[tuple[list[int], int]], min_count: int
) -> None:
    config = EmbeddingTableConfig(dimension=D, min_count=min_count)
    table, twin = EmbeddingTable(config), DictTable(config)
    every_id = np.arange(0, 32)
    for now, (ids, seed) in enumerate(steps):
        feed(table, ids, seed, now)
        feed(twin, ids, seed, now)
        np.testing.assert_allclose(table.read(every_id), twin.read(every_id), atol=1e-5)
        assert len(table) == len(twin.rows)
    delta = table.take_delta()
    ids, weights_ND = delta["ids"], delta["columns"]["weight"]
    assert sorted(ids.tolist()) == sorted(twin.touched)
    np.testing.assert_allclose(weights_ND, twin.read(ids), atol=1e-5)


@given(batches)
@settings(max_examples=60)
def test_table_never_exceeds_its_budget_and_keeps_the_newest(
    steps: list[tuple[list[int], int]],
) -> None:
    config = EmbeddingTableConfig(dimension=D, max_rows=10)
    table = EmbeddingTable(config)
    last: dict[int, int] = {}
    alive: set[int] = set()
    for now, (ids, seed) in enumerate(steps):
        feed(table, ids, seed, now)
        last.update(dict.fromkeys(ids, now))
        assert len(table) <= 10
        delta = table.take_delta()
        alive = (alive - set(delta["removed"].tolist())) | set(delta["ids"].tolist())
        assert len(alive) == len(table)
        assert set(ids) <= alive, "what was just learned stays"
        # Nothing that left is newer than anything that stayed.
        gone = [last[each] for each in last if each not in alive]
        if gone:
            assert max(gone) <= min(last[each] for each in alive)


@given(batches, st.integers(1, 12))
@settings(max_examples=40)
def test_table_continues_alike_after_save_and_load(
    steps: list[tuple[list[int], int]], cut: int
) -> None:
    config = EmbeddingTableConfig(dimension=D, max_rows=10, min_count=2, ttl_ms=3)
    table, restored = EmbeddingTable(config), EmbeddingTable(config)
    for now, (ids, seed) in enumerate(steps[:cut]):
        feed(table, ids, seed, now)
    restored.load(table.save())
    for now, (ids, seed) in enumerate(steps[cut:], start=cut):
        feed(table, ids, seed, now)
        feed(restored, ids, seed, now)
    every_id = np.arange(0, 32)
    assert np.array_equal(table.read(every_id), restored.read(every_id))
    assert state_hash(table.save()) == state_hash(restored.save())


ids_of_any_size = st.integers(-(2**63), 2**63 - 1).filter(lambda each: each != 0)


few_ids = st.integers(1, 40)
changes = st.lists(
    st.tuples(st.booleans(), st.lists(few_ids | ids_of_any_size, max_size=20)), max_size=12
)


@given(changes, st.lists(ids_of_any_size), st.booleans())
@settings(max_examples=150)
def test_id_map_equals_a_dictionary(
    steps: list[tuple[bool, list[int]]], asked: list[int], compiles: bool
) -> None:
    ids, twin, next_row = IdMap(compiles=compiles), dict[int, int](), 0
    every_id = [0, *asked, *range(1, 41)]
    for removes, batch in steps:
        distinct = list(dict.fromkeys(batch))
        every_id += distinct
        if removes:
            ids.remove(np.array(distinct, np.int64))
            for each in distinct:
                twin.pop(each, None)
        else:
            new = [each for each in distinct if each not in twin]
            rows = range(next_row, next_row := next_row + len(new))
            ids.insert(np.array(new, np.int64), np.array(rows, np.int64))
            twin.update(zip(new, rows, strict=True))
        found = ids.find(np.array(every_id, np.int64))
        assert found.tolist() == [twin.get(each, -1) for each in every_id]
        assert len(ids) == len(twin)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 20), min_size=6, max_size=6), st.integers(0, 2**31)),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(OPTIMISERS),
    st.integers(1, 3),
)
@settings(max_examples=60)
def test_bags_learn_what_their_ids_learn_one_by_one(
    steps: list[tuple[list[int], int]], optimiser: OptimiserName, min_count: int
) -> None:
    config = EmbeddingTableConfig(
        dimension=D, optimiser=optimiser, min_count=min_count, max_rows=12, ttl_ms=3
    )
    table, twin = EmbeddingTable(config), EmbeddingTable(config)
    every_id = np.arange(0, 22)
    for now, (ids, seed) in enumerate(steps):
        ids_BI = np.array(ids, np.int64).reshape(2, 3)
        gradients_BD = np.random.default_rng(seed).normal(size=(2, D)).astype(np.float32)
        table.learn_bags(ids_BI, gradients_BD, now)
        distinct, counts = np.unique(ids_BI[ids_BI != 0], return_counts=True)
        times_UB = np.array([(ids_BI == each).sum(axis=1) for each in distinct], np.float32)
        twin.learn(distinct, counts, times_UB.reshape(-1, 2) @ gradients_BD, now)
        np.testing.assert_allclose(table.read(every_id), twin.read(every_id), atol=1e-4)
        np.testing.assert_allclose(
            table.read_bags(ids_BI), twin.read(ids_BI).sum(axis=1), atol=1e-4
        )
