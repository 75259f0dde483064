"""Row tables: Adagrad by row, growth that keeps state, rows that change hands."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.row_table import RowTable, RowTableConfig

CONFIG = RowTableConfig(width=3, init_std=0.5, learning_rate=0.1, initial_square=0.01)


def table(num_rows: int = 4) -> RowTable:
    made = RowTable(CONFIG, torch.Generator().manual_seed(0))
    made.grow(num_rows)
    return made


@pytest.mark.parametrize("rows", [None, [0, 1, 2, 3], [2, 0]])
def test_step_equals_torch_adagrad(rows: list[int] | None) -> None:
    ours = table()
    theirs = torch.nn.Parameter(ours.read().clone())
    optimizer = torch.optim.Adagrad([theirs], lr=0.1, initial_accumulator_value=0.01)
    index = None if rows is None else torch.tensor(rows)
    for step in range(5):
        goal_RD = torch.sin(torch.arange(12.0).view(4, 3) + step)
        chosen = slice(None) if index is None else index
        (ours.lend(index) - goal_RD[chosen]).pow(2).sum().backward()
        ours.step()
        optimizer.zero_grad()
        (theirs[chosen] - goal_RD[chosen]).pow(2).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(ours.read().numpy(), theirs.detach().numpy(), atol=1e-6)


def test_step_moves_only_what_was_lent() -> None:
    made = table()
    before = made.read().clone()
    made.lend(torch.tensor([1])).sum().backward()
    made.step()
    moved = (made.read() != before).any(dim=1)
    assert moved.tolist() == [False, True, False, False]


def test_growing_keeps_weights_and_optimiser_state() -> None:
    made = table()
    made.lend(None).sum().backward()
    made.step()
    before = made.save()
    made.grow(1_000)
    after = made.save()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name][:4], values)


def test_reset_row_starts_anew_with_its_optimiser_state() -> None:
    made = table()
    made.lend(None).sum().backward()
    made.step()
    before = made.save()
    made.reset(np.array([2]))
    after = made.save()
    np.testing.assert_allclose(after["square"][2], 0.01, rtol=1e-6)
    assert (after["weight"][2] != before["weight"][2]).all()
    np.testing.assert_array_equal(after["weight"][[0, 1, 3]], before["weight"][[0, 1, 3]])


def test_forget_drops_what_was_lent() -> None:
    made = table()
    before = made.read().clone()
    made.lend(None).sum().backward()
    made.forget()
    made.step()
    assert torch.equal(made.read(), before)


def test_loaded_table_learns_on_identically() -> None:
    ours, restored = table(), RowTable(CONFIG, torch.Generator())
    ours.lend(None).sum().backward()
    ours.step()
    restored.load(ours.save())
    for made in (ours, restored):
        made.lend(torch.tensor([3])).pow(2).sum().backward()
        made.step()
    assert torch.equal(ours.read(), restored.read())
