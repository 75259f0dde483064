"""Many small arrays packed into few large ones, so that a snapshot holds columns, not crumbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.state import State


def pack(rows: Sequence[Mapping[str, NDArray[Any]]]) -> State:
    """Return one flat array and one array of shapes for each name.

    Every row must have the same names, and each name the same dtype and number of dimensions.

    >>> state = pack([{"a": np.zeros((2, 3))}, {"a": np.ones((1, 3))}])
    >>> state["a"]["flat"].shape, state["a"]["shapes"].tolist()
    ((9,), [[2, 3], [1, 3]])
    """
    if not rows:
        return {}
    packed: State = {}
    for name, first in rows[0].items():
        column = [np.asarray(row[name]) for row in rows]
        shapes = np.array([array.shape for array in column], np.int64)
        packed[name] = {
            "flat": np.concatenate([array.ravel() for array in column]).astype(first.dtype),
            "shapes": shapes.reshape(len(column), first.ndim),
        }
    return packed


def unpack(state: State, num_rows: int) -> list[dict[str, NDArray[Any]]]:
    """Return the `num_rows` rows that `pack` packed; each array owns its memory."""
    rows: list[dict[str, NDArray[Any]]] = [{} for _ in range(num_rows)]
    for name, column in state.items():
        start = 0
        for row, shape in zip(rows, column["shapes"].tolist(), strict=True):
            end = start + int(np.prod(shape, dtype=np.int64))
            row[name] = column["flat"][start:end].reshape(shape).copy()
            start = end
    return rows
