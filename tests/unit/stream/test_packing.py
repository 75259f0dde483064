"""Many small arrays in few large ones, and back again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.packing import pack, unpack

DTYPES = ("int64", "int32", "float32", "float64", "bool")


def _rows(shapes: list[tuple[int, int]], dtype: str) -> list[dict[str, NDArray[np.generic]]]:
    """One row per (n, m): a vector of n, a matrix (n, m) and a lonely number."""
    rng = np.random.default_rng(3)
    return [
        {
            "vector": rng.integers(0, 9, n).astype(dtype),
            "matrix": rng.integers(0, 9, (n, m)).astype(dtype),
            "number": np.asarray(rng.integers(0, 9), dtype),
        }
        for n, m in shapes
    ]


@given(
    shapes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=6),
    dtype=st.sampled_from(DTYPES),
)
def test_rows_come_back_as_they_were(shapes: list[tuple[int, int]], dtype: str) -> None:
    rows = _rows(shapes, dtype)
    back = unpack(pack(rows), len(rows))
    assert len(back) == len(rows)
    for row, again in zip(rows, back, strict=True):
        assert list(again) == list(row)
        for name, array in row.items():
            assert again[name].dtype == array.dtype
            assert again[name].shape == array.shape
            assert again[name].tobytes() == array.tobytes()


def test_no_rows_pack_into_nothing() -> None:
    assert pack([]) == {}
    assert unpack({}, 0) == []


def test_packed_state_is_two_arrays_per_name_however_many_rows_there_are() -> None:
    state = pack(_rows([(2, 3)] * 50, "float32"))
    assert sorted(state) == ["matrix", "number", "vector"]
    assert {name: sorted(column) for name, column in state.items()} == {
        name: ["flat", "shapes"] for name in state
    }
    assert state["matrix"]["flat"].shape == (300,)


def test_unpacked_rows_own_their_memory() -> None:
    state = pack(_rows([(2, 2), (2, 2)], "float32"))
    first, second = unpack(state, 2)
    first["vector"][:] = 99.0
    again = unpack(state, 2)
    assert again[0]["vector"].max() < 99.0
    assert second["vector"].tobytes() == again[1]["vector"].tobytes()


def test_packed_state_shares_nothing_with_the_rows() -> None:
    rows = _rows([(2, 2)], "float32")
    state = pack(rows)
    rows[0]["vector"][:] = 99.0
    assert state["vector"]["flat"].max() < 99.0


def test_a_row_without_a_name_the_first_has_is_refused() -> None:
    with pytest.raises(KeyError):
        pack([{"a": np.zeros(1)}, {"b": np.zeros(1)}])
