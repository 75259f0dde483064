"""Rows move as the formulas say: compiled like NumPy, NumPy like torch and like fbgemm."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from ranking.row_groups import RowGrouper, RowGroups
from ranking.row_optimiser import OPTIMISERS, OptimiserName, RowOptimiser
from ranking.row_store import RowStore

ROWS, DIMENSION = 40, 24
BETAS = (0.8, 0.95)
RATE = 0.05

every_optimiser = pytest.mark.parametrize("name", OPTIMISERS)
every_width = pytest.mark.parametrize("dimension", [1, 3, 16, 24])


class Table:
    """A store full of rows and the optimiser that moves them."""

    def __init__(
        self, name: OptimiserName, *, compiles: bool = True, dimension: int = DIMENSION
    ) -> None:
        self.optimiser = RowOptimiser(name, dimension, BETAS, compiles=compiles)
        self.store = RowStore(self.optimiser.columns, ROWS, "test")
        self.store.insert(np.arange(1, ROWS + 1), 0)
        rng = np.random.default_rng(9)
        self.store["weight"][:] = rng.normal(size=(ROWS, dimension))
        self.grouper = RowGrouper(ROWS, compiles=compiles)

    @property
    def weight_RD(self) -> np.ndarray:
        return self.store["weight"]

    def step(self, rows_BI: np.ndarray, given_BD: np.ndarray) -> None:
        self.optimiser.step(self.store, self.grouper.group(rows_BI), given_BD, RATE)


def batches(num: int, dimension: int = DIMENSION) -> list[tuple[np.ndarray, np.ndarray]]:
    """Bags with repeats and with missing rows, and their gradients."""
    rng = np.random.default_rng(4)
    return [
        (
            rng.integers(-1, ROWS // 2, (13, 5)),
            rng.normal(size=(13, dimension)).astype(np.float32),
        )
        for _ in range(num)
    ]


@every_width
@every_optimiser
def test_compiled_rows_move_as_those_of_numpy(name: OptimiserName, dimension: int) -> None:
    fast = Table(name, dimension=dimension)
    slow = Table(name, compiles=False, dimension=dimension)
    for rows_BI, given_BD in batches(20, dimension):
        assert fast.optimiser.read_bags(fast.store, rows_BI) == pytest.approx(
            slow.optimiser.read_bags(slow.store, rows_BI), abs=1e-4
        )
        fast.step(rows_BI, given_BD)
        slow.step(rows_BI, given_BD)
    for column in fast.optimiser.columns:
        np.testing.assert_allclose(
            fast.store[column], slow.store[column], rtol=2e-4, atol=2e-5, err_msg=column
        )


@pytest.mark.parametrize("compiles", [True, False], ids=["compiled", "numpy"])
def test_adagrad_is_torch_s_sparse_adagrad(compiles: bool) -> None:
    table = Table("adagrad", compiles=compiles)
    bag = torch.nn.EmbeddingBag(ROWS, DIMENSION, mode="sum", sparse=True)
    bag.weight.data.copy_(torch.from_numpy(table.weight_RD))
    theirs = torch.optim.Adagrad(bag.parameters(), lr=RATE, eps=1e-10)
    for rows_BI, given_BD in batches(8):
        rows_BI = np.abs(rows_BI)
        theirs.zero_grad()
        sums_BD = bag(torch.from_numpy(rows_BI))
        ours_BD = table.optimiser.read_bags(table.store, rows_BI)
        np.testing.assert_allclose(ours_BD, sums_BD.detach().numpy(), atol=1e-5)
        with torch.sparse.check_sparse_tensor_invariants():
            sums_BD.backward(torch.from_numpy(given_BD))
            theirs.step()
        table.step(rows_BI, given_BD)
    np.testing.assert_allclose(table.weight_RD, bag.weight.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("compiles", [True, False], ids=["compiled", "numpy"])
def test_rowwise_adagrad_is_fbgemm_s(compiles: bool) -> None:
    with warnings.catch_warnings():
        # Of parts that the CPU build leaves out.
        warnings.simplefilter("ignore", DeprecationWarning)
        tbe = importlib.import_module("fbgemm_gpu.split_table_batched_embeddings_ops_training")
    table = Table("rowwise_adagrad", compiles=compiles)
    theirs = tbe.SplitTableBatchedEmbeddingBagsCodegen(
        [(ROWS, DIMENSION, tbe.EmbeddingLocation.HOST, tbe.ComputeDevice.CPU)],
        optimizer=tbe.OptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=RATE,
        eps=1e-10,
    )
    weight_RD = theirs.split_embedding_weights()[0]
    weight_RD.copy_(torch.from_numpy(table.weight_RD))
    ends = torch.arange(0, 13 * 5 + 1, 5)
    for rows_BI, given_BD in batches(8):
        rows_BI = np.abs(rows_BI)
        sums_BD = theirs(torch.from_numpy(rows_BI.reshape(-1)), ends)
        ours_BD = table.optimiser.read_bags(table.store, rows_BI)
        np.testing.assert_allclose(ours_BD, sums_BD.detach().numpy(), atol=1e-5)
        sums_BD.backward(torch.from_numpy(given_BD))
        table.step(rows_BI, given_BD)
    np.testing.assert_allclose(table.weight_RD, weight_RD.numpy(), atol=1e-5)
    (squares,) = theirs.split_optimizer_states()[0]
    np.testing.assert_allclose(table.store["square"], squares.numpy(), rtol=1e-5)


@pytest.mark.parametrize("compiles", [True, False], ids=["compiled", "numpy"])
def test_lazy_adam_is_adam_for_each_row_by_itself(compiles: bool) -> None:
    table = Table("lazy_adam", compiles=compiles)
    rows = [torch.nn.Parameter(torch.from_numpy(row.copy())) for row in table.weight_RD]
    theirs = [torch.optim.Adam([row], lr=RATE, betas=BETAS, eps=1e-8) for row in rows]
    for rows_BI, given_BD in batches(8):
        for row in np.unique(rows_BI[rows_BI >= 0]):
            times_B = (rows_BI == row).sum(axis=1).astype(np.float32)
            rows[row].grad = torch.from_numpy(times_B @ given_BD)
            theirs[row].step()
        table.step(rows_BI, given_BD)
    expected_RD = np.array([row.detach().numpy() for row in rows])
    np.testing.assert_allclose(table.weight_RD, expected_RD, atol=1e-5)


def test_rowwise_adagrad_by_hand() -> None:
    # Two rows of two numbers; row 0 stands in both bags, so its gradient is (3, 4) + (1, 0).
    optimiser = RowOptimiser("rowwise_adagrad", 2, BETAS)
    store = RowStore(optimiser.columns, 2, "test")
    grouper = RowGrouper(2)
    given_BD = np.array([[3.0, 4.0], [1.0, 0.0]], np.float32)
    optimiser.step(store, grouper.group(np.array([[0, -1], [1, 0]])), given_BD, 0.1)
    assert store["square"].tolist() == [(16 + 16) / 2, (1 + 0) / 2]
    np.testing.assert_allclose(store["weight"][0], [-0.1, -0.1])
    np.testing.assert_allclose(store["weight"][1], [-0.1 * np.sqrt(2.0), 0.0], rtol=1e-6)


@pytest.mark.parametrize("compiles", [True, False], ids=["compiled", "numpy"])
def test_groups_name_every_bag_a_row_stands_in(compiles: bool) -> None:
    grouper = RowGrouper(10, compiles=compiles)
    for _ in range(2):  # the second time on the same seats
        groups = grouper.group(np.array([[7, -1, 3], [3, 3, 9], [-1, -1, -1], [9, 7, 0]]))
        found = {
            int(row): groups.bags_N[groups.starts[u] : groups.starts[u + 1]].tolist()
            for u, row in enumerate(groups.rows_U)
        }
        assert found == {7: [0, 3], 3: [0, 1, 1], 9: [1, 3], 0: [3]}


def test_distinct_rows_are_groups_of_one() -> None:
    groups = RowGroups.of_distinct(np.array([4, -1, 2]))
    assert groups.rows_U.tolist() == [4, 2]
    assert groups.starts.tolist() == [0, 1, 2]
    assert groups.bags_N.tolist() == [0, 2]


@every_optimiser
def test_step_without_rows_changes_nothing(name: OptimiserName) -> None:
    for compiles in (True, False):
        table = Table(name, compiles=compiles)
        before_RD = table.weight_RD.copy()
        table.step(np.full((3, 2), -1), np.ones((3, DIMENSION), np.float32))
        table.step(np.zeros((0, 2), np.int64), np.ones((0, DIMENSION), np.float32))
        assert np.array_equal(before_RD, table.weight_RD)


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None
import numpy as np
from ranking.compiled import COMPILES
from ranking.embedding_table import EmbeddingTable, EmbeddingTableConfig
assert not COMPILES
table = EmbeddingTable(EmbeddingTableConfig(dimension=3, max_rows=50, min_count=2))
rng = np.random.default_rng(1)
for now in range(60):
    table.read_bags(rng.integers(0, 90, (4, 5)))
    table.learn_bags(rng.integers(0, 90, (4, 5)), rng.normal(size=(4, 3)).astype(np.float32), now)
print(table.read(np.arange(90)).ravel().tolist())
"""


def test_table_gives_the_same_numbers_where_numba_is_missing() -> None:
    with_numba = WITHOUT_NUMBA.replace('sys.modules["numba"] = sys.modules["llvmlite"] = None', "")
    with_numba = with_numba.replace("assert not COMPILES", "assert COMPILES")
    root = Path(__file__).parents[3]
    said = [
        subprocess.run(
            [sys.executable, "-c", text],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for text in (WITHOUT_NUMBA, with_numba)
    ]
    without, with_it = (np.array(json.loads(one)) for one in said)
    assert np.abs(without).max() > 0.01
    np.testing.assert_allclose(without, with_it, atol=1e-5)
