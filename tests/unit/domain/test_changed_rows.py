"""Marks for rows that changed: each is given once, however far the table has grown."""

from __future__ import annotations

import numpy as np

from domain.changed_rows import ChangedRows


def test_marked_rows_are_given_once_in_order() -> None:
    changed = ChangedRows()
    changed.grow(10)
    changed.mark(np.array([7, 2, 7]))
    changed.mark(4)
    assert changed.take().tolist() == [2, 4, 7]
    assert changed.take().tolist() == []


def test_marks_stay_when_the_table_grows() -> None:
    changed = ChangedRows()
    changed.grow(3)
    changed.mark(np.array([0, 2]))
    changed.grow(1_000)
    changed.mark(999)
    assert changed.take().tolist() == [0, 2, 999]


def test_all_rows_are_those_there_are() -> None:
    changed = ChangedRows()
    changed.grow(3)
    changed.mark_all()
    changed.grow(5)
    assert changed.take().tolist() == [0, 1, 2]
    changed.mark_all()
    changed.clear()
    assert changed.take().tolist() == []
