"""Any state comes back exactly, and any single changed bit of a snapshot is found."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from domain.state import State, state_hash
from snapshot.local_store import LocalSnapshotStore
from snapshot.state_files import read_state, write_state

dtypes = st.sampled_from(
    ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
).map(np.dtype)
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
)
keys = st.text(max_size=6).filter(lambda key: key != "__metadata__")
states = st.dictionaries(
    keys,
    st.recursive(arrays | values, lambda inner: st.dictionaries(keys, inner, max_size=4)),
    max_size=5,
)


def same_order(one: object, other: object) -> bool:
    """Tell whether all dictionaries of two equal trees list their keys in the same order."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return True
    return list(one) == list(other) and all(same_order(one[key], other[key]) for key in one)


@settings(max_examples=60)
@given(states)
def test_any_state_comes_back_exactly(state: State) -> None:
    with tempfile.TemporaryDirectory() as folder:
        names = write_state(Path(folder), "part", state)
        contents = [(Path(folder) / name).read_bytes() for name in names]
    found = read_state(contents[0], contents[1] if len(contents) > 1 else None, "here")
    assert state_hash(found) == state_hash(state)
    assert same_order(found, state)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    LocalSnapshotStore(root).publish(
        {"part": {"a": np.arange(5, dtype=np.float32), "n": 3, "ids": ["x", "y"]}},
        positions={"events/0": 3},
        step=1,
        event_time_ms=5,
        schema_hash="0",
        extra={"by": "test"},
    )
    return root


@settings(max_examples=200)
@given(
    st.sampled_from(["manifest.json", "part.json", "part.safetensors"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 7),
)
def test_any_changed_bit_of_a_snapshot_is_found(
    root: Path, name: str, where: float, bit: int
) -> None:
    store = LocalSnapshotStore(root)
    path = root / store.ids()[0] / name
    sound = path.read_bytes()
    changed = bytearray(sound)
    changed[int(where * len(sound))] ^= 1 << bit
    path.write_bytes(changed)
    try:
        problems = store.verify()
    finally:
        path.write_bytes(sound)
    assert len(problems) == 1
    assert name in problems[0]
    assert store.verify() == []
