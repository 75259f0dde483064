"""The kept examples: a ring of the newest, or all of them."""

from __future__ import annotations

import numpy as np
import pytest

from monitoring.example_rows import ExampleRows


def append(rows: ExampleRows, sessions: range) -> None:
    """Append examples whose label is unknown for every third session."""
    session_N = np.array(sessions)
    label_N = np.where(session_N % 3 == 0, np.nan, session_N % 2).astype(np.float32)
    rows.append(label_N[:, None], (session_N / 5_000).astype(np.float32)[:, None], session_N)


@pytest.mark.parametrize("batch", [1, 4, 7, 100])
def test_ring_keeps_the_newest_in_order_whatever_the_batches(batch: int) -> None:
    rows = ExampleRows(1, capacity=7)
    for start in range(0, 100, batch):
        append(rows, range(start, min(start + batch, 100)))
    assert len(rows) == 7
    assert rows.save()["session"].tolist() == list(range(93, 100))


def test_known_leaves_out_examples_whose_label_is_not_known() -> None:
    rows = ExampleRows(1, capacity=6)
    append(rows, range(10))
    labels, scores, sessions = rows.known(0)
    assert sessions.tolist() == [4, 5, 7, 8]
    assert labels.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert scores == pytest.approx(sessions / 5_000)


def test_rows_without_capacity_grow_and_keep_all() -> None:
    rows = ExampleRows(1, capacity=None)
    for start in range(0, 5_000, 999):
        append(rows, range(start, min(start + 999, 5_000)))
    assert len(rows) == 5_000
    assert rows.save()["session"].tolist() == list(range(5_000))


def test_load_into_a_smaller_ring_keeps_the_newest() -> None:
    large, small = ExampleRows(1, capacity=50), ExampleRows(1, capacity=5)
    append(large, range(20))
    small.load(large.save())
    assert small.save()["session"].tolist() == [15, 16, 17, 18, 19]
