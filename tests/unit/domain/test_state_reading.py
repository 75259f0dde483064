"""Reading a state part by part: what fits is given, what does not is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from domain.errors import SnapshotError
from domain.state_reading import StateReader

STATE: dict[str, Any] = {
    "weights": np.ones((2, 3), np.float32),
    "rows": np.array([1, 4]),
    "step": 7,
    "share": 0.5,
    "whole": True,
    "ids": ["a", "b"],
    "inner": {"step": 1},
}
READER = StateReader(STATE, "delta")


def test_what_fits_is_given() -> None:
    assert READER.array("weights", np.float32, (None, 3)) is STATE["weights"]
    assert READER.rows("rows", 5).tolist() == [1, 4]
    assert READER.integer("step", 7) == 7
    assert READER.number("share") == 0.5
    assert READER.number("step") == 7.0
    assert READER.flag("whole") is True
    assert READER.texts("ids", 2) == ["a", "b"]
    assert READER.part("inner").integer("step") == 1


def test_arrays_from_a_file_become_writable() -> None:
    array = np.frombuffer(np.arange(3).tobytes(), np.int64)
    assert not array.flags.writeable
    assert StateReader({"a": array}, "delta").array("a", np.int64, (3,)).flags.writeable


@pytest.mark.parametrize(
    ("read", "complaint"),
    [
        (lambda r: r.array("gone", np.float32, (2,)), r"^delta\.gone: expected it, got nothing"),
        (lambda r: r.array("step", np.float32, (2,)), r"^delta\.step: expected an array .* int$"),
        (lambda r: r.array("weights", np.float64, (2, 3)), r"float64 \(2, 3\), got .* float32"),
        (lambda r: r.array("weights", np.float32, (3, 3)), r"\(3, 3\), got .* \(2, 3\)"),
        (lambda r: r.array("weights", np.float32, (None,)), r"\(any\), got .* \(2, 3\)"),
        (lambda r: r.rows("rows", 4), r"^delta\.rows: expected ascending rows below 4"),
        (lambda r: r.integer("share"), r"^delta\.share: expected a whole number from 0 on"),
        (lambda r: r.integer("whole"), "got True"),
        (lambda r: r.integer("step", 8), "from 8 on, got 7"),
        (lambda r: r.number("whole"), "expected a number, got True"),
        (lambda r: r.flag("step"), "expected true or false, got 7"),
        (lambda r: r.texts("rows"), "expected a list of texts"),
        (lambda r: r.texts("ids", 3), "expected 3 texts, got 2"),
        (lambda r: r.part("ids"), r"^delta\.ids: expected a part with a name each, got list"),
    ],
)
def test_what_does_not_fit_is_named(read: Callable[[StateReader], object], complaint: str) -> None:
    with pytest.raises(SnapshotError, match=complaint):
        read(READER)


@pytest.mark.parametrize("rows", [[1, 1], [2, 1], [-1, 1]])
def test_rows_ascend_without_repeats(rows: list[int]) -> None:
    with pytest.raises(SnapshotError, match="expected ascending rows"):
        StateReader({"rows": np.array(rows)}, "delta").rows("rows")


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_poison_is_refused(poison: float) -> None:
    with pytest.raises(SnapshotError, match="expected finite numbers, got NaN or infinity"):
        StateReader({"a": np.array([poison])}, "delta").array("a", np.float64, (1,))
