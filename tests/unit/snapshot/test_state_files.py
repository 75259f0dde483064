"""A state goes to files and comes back exactly, or is refused at the place that could not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors import SnapshotDamagedError, SnapshotError
from domain.state import State, state_hash
from snapshot.state_files import read_state, write_state


def read_back(folder: Path, names: list[str]) -> State:
    contents = [(folder / name).read_bytes() for name in names]
    return read_state(contents[0], contents[1] if len(contents) > 1 else None, "here")


def round_trip(folder: Path, state: State) -> State:
    return read_back(folder, write_state(folder, "part", state))


ARRAYS = {
    "bool": np.array([True, False]),
    "bytes": np.arange(256, dtype=np.uint8),
    "large": np.array([2**64 - 1, 0], np.uint64),
    "negative": np.array([-(2**63)], np.int64),
    "half": np.array([1.5, 65504], np.float16),
    "special": np.array([np.nan, np.inf, -np.inf, -0.0], np.float64),
    "one_number": np.array(3.5, np.float32),
    "one_truth": np.array(True),
    "empty": np.zeros((0, 4), np.int32),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10, dtype=np.int16)[::3],
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "backwards": np.arange(4, dtype=np.uint32)[::-1],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_array_comes_back_with_dtype_shape_and_bytes(tmp_path: Path, name: str) -> None:
    array = ARRAYS[name]
    found = round_trip(tmp_path, {name: array})[name]
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    assert found.flags.writeable


def test_tree_comes_back_in_the_same_order_with_its_arrays_in_place(tmp_path: Path) -> None:
    state: State = {
        "z": 1,
        "weights": {"b": np.arange(3), "a": {"deep": np.ones((2, 2), np.float32), "n": None}},
        "rate": 0.1 + 0.2,
        "none_is_no_array": None,
        "ids": ["a", "b/c", "Grüße", "\ud800"],
        "random": {"state": 2**127 + 1, "has_uint32": 0},
        "mixed": [1, 2.5, "x", None, [True, {"k": -0.0}]],
        "empty": {},
        "a": True,
    }
    found = round_trip(tmp_path, state)
    assert state_hash(found) == state_hash(state)
    assert list(found) == list(state)
    assert list(found["weights"]) == ["b", "a"]
    assert found["empty"] == {}
    assert found["none_is_no_array"] is None
    assert found["random"]["state"] == 2**127 + 1


def test_keys_may_hold_slashes_tildes_and_nothing(tmp_path: Path) -> None:
    state = {
        "a/b": np.array(1),
        "a": {"b": np.array(2), "~1": np.array(3)},
        "a~1b": np.array(4),
        "": {"": np.array(5)},
        "/": np.array(6),
    }
    found = round_trip(tmp_path, state)
    assert [found["a/b"], found["a"]["b"], found["a"]["~1"]] == [1, 2, 3]
    assert [found["a~1b"], found[""][""], found["/"]] == [4, 5, 6]


def test_there_is_no_array_file_when_there_are_no_arrays(tmp_path: Path) -> None:
    assert write_state(tmp_path, "part", {"n": 1}) == ["part.json"]
    assert write_state(tmp_path, "other", {}) == ["other.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.json", "part.json"]


def test_files_can_be_read_by_other_users(tmp_path: Path) -> None:
    for name in write_state(tmp_path, "part", {"a": np.ones(2)}):
        assert (tmp_path / name).stat().st_mode & 0o044 == 0o044


class Enough(str):
    """A str that is not exactly a str."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {"b": float("nan")}}, r"part\.a\.b: JSON has no nan; keep it in an array"),
        ({"a": [1.0, float("inf")]}, r"part\.a\[1\]: JSON has no inf"),
        ({1: 2}, r"part\.1: keys must be str, got 1"),
        ({"a": [{2: 3}]}, r"part\.a\[0\]\.2: keys must be str, got 2"),
        ({"a": (1, 2)}, r"part\.a: expected an array, str, .*, got tuple"),
        ({"a": {1, 2}}, r"part\.a: expected an array, .* got set"),
        ({"a": b"x"}, r"part\.a: expected an array, .* got bytes"),
        ({"a": np.float64(1.0)}, r"part\.a: expected an array, .* got float64"),
        ({"a": [np.int64(1)]}, r"part\.a\[0\]: expected an array, .* got int64"),
        ({"a": [np.ones(2)]}, r"part\.a\[0\]: expected an array, .* got ndarray"),
        ({"a": Enough("x")}, r"part\.a: expected an array, .* got Enough"),
        ({"a": np.array(["x"])}, r"part\.a: expected a plain array .*, got ndarray of <U1"),
        ({"a": np.array([None])}, r"part\.a: expected a plain array .*, got ndarray of \|O"),
        ({"a": np.ones(2, ">f4")}, r"part\.a: expected a plain array .*, got ndarray of >f4"),
        ({"a": np.ones(2, complex)}, r"part\.a: expected a plain array .* of <c16"),
        ({"a": np.ma.masked_array([1])}, r"part\.a: expected a plain array .*, got MaskedArray"),
        ({"__metadata__": np.ones(2)}, "safetensors keeps this name for itself"),
        ({"\ud800": np.ones(2)}, "a key is not valid Unicode"),
        ({"a": 10**5000}, "part: "),
    ],
)
def test_state_is_refused_with_its_place_when_it_would_not_come_back(
    tmp_path: Path, state: Any, message: str
) -> None:
    with pytest.raises(SnapshotError, match=message):
        write_state(tmp_path, "part", state)


@pytest.mark.parametrize("component", ["", "manifest", "a/b", "../a", "a.b", "-a", "é"])
def test_component_is_refused_when_its_name_is_no_plain_file_name(
    tmp_path: Path, component: str
) -> None:
    with pytest.raises(SnapshotError, match="component names must be"):
        write_state(tmp_path, component, {})


@pytest.mark.parametrize("state", [{"n": 1}, {"a": np.ones(2)}])
def test_error_names_the_file_when_the_disk_refuses(tmp_path: Path, state: State) -> None:
    with pytest.raises(SnapshotError, match="gone/part"):
        write_state(tmp_path / "gone", "part", state)


def test_error_names_the_array_file_when_only_that_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part.safetensors").mkdir()
    with pytest.raises(SnapshotError, match=r"part\.safetensors"):
        write_state(tmp_path, "part", {"a": np.ones(2)})


def test_read_is_refused_when_files_do_not_belong_together(tmp_path: Path) -> None:
    write_state(tmp_path, "one", {"a": np.ones(2), "b": np.ones(2)})
    write_state(tmp_path, "two", {"a": np.ones(2), "c": np.ones(2)})
    others = (tmp_path / "one.json").read_bytes()
    for arrays in ((tmp_path / "two.safetensors").read_bytes(), None, b"no tensors at all"):
        with pytest.raises(SnapshotDamagedError, match=r"^here: not a state: "):
            read_state(others, arrays, "here")
    lonely = json.dumps({"arrays": ["x/y"], "tree": {}}).encode()
    write_state(tmp_path, "three", {"x": {"y": np.ones(1)}})
    with pytest.raises(SnapshotDamagedError, match="KeyError"):
        read_state(lonely, (tmp_path / "three.safetensors").read_bytes(), "here")
