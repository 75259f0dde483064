"""Reading a state that another process made: every part is what it must be, or the error says not.

For deltas, which are checked as a whole before any of it is applied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from domain.errors import SnapshotError
from domain.state import State

Shape = tuple[int | None, ...]
"""Expected lengths; None fits any."""


class StateReader:
    """One dictionary of a state.

    Every method raises SnapshotError, naming the path, when what it finds is something else.

    Attributes:
        path: where it stands in the whole.

    >>> StateReader({"rows": np.arange(3)}, "delta").array("rows", np.int64, (None,)).tolist()
    [0, 1, 2]
    """

    def __init__(self, state: object, path: str) -> None:
        if not isinstance(state, dict):
            raise SnapshotError(f"{path}: expected a part with a name each, got {_kind(state)}")
        self._state: State = state
        self.path = path

    def part(self, name: str) -> StateReader:
        """Return a part that has parts itself."""
        return StateReader(self._take(name), f"{self.path}.{name}")

    def array(
        self, name: str, dtype: DTypeLike, shape: Shape, *, finite: bool = True
    ) -> NDArray[Any]:
        """Return an array of exactly this type, whose lengths fit.

        Its numbers are finite, unless that is not asked for. It is contiguous and writable, as
        compiled code expects.
        """
        array = self._take(name)
        expected = np.dtype(dtype)
        if (
            not isinstance(array, np.ndarray)
            or array.dtype != expected
            or len(array.shape) != len(shape)
            or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True))
        ):
            lengths = ", ".join("any" if want is None else str(want) for want in shape)
            raise self._error(name, f"an array of {expected} ({lengths})", _kind(array))
        if finite and expected.kind == "f" and not np.isfinite(array).all():
            raise self._error(name, "finite numbers", "NaN or infinity")
        return np.require(array, requirements=["C", "W"])

    def rows(self, name: str, num_rows: int | None = None) -> NDArray[np.int64]:
        """Return ascending row numbers without repeats, below `num_rows` where that is given."""
        rows: NDArray[np.int64] = self.array(name, np.int64, (None,))
        top = num_rows if num_rows is not None else np.iinfo(np.int64).max
        if len(rows) and (rows[0] < 0 or rows[-1] >= top or (np.diff(rows) <= 0).any()):
            raise self._error(name, f"ascending rows below {top}", f"{len(rows)} that are not")
        return rows

    def integer(self, name: str, least: int = 0, most: int | None = None) -> int:
        """Return a whole number of at least `least`, and at most `most` where that is given."""
        value = self._take(name)
        if type(value) is not int or value < least or (most is not None and value > most):
            upper = "on" if most is None else f"to {most}"
            raise self._error(name, f"a whole number from {least} {upper}", repr(value))
        return value

    def number(self, name: str) -> float:
        """Return a number."""
        value = self._take(name)
        if type(value) not in (int, float) or not np.isfinite(value):
            raise self._error(name, "a number", repr(value))
        return float(value)

    def texts(self, name: str, num: int | None = None) -> list[str]:
        """Return a list of texts, `num` of them where that is given."""
        values = self._take(name)
        if not isinstance(values, list) or not set(map(type, values)) <= {str}:
            raise self._error(name, "a list of texts", _kind(values))
        if num is not None and len(values) != num:
            raise self._error(name, f"{num} texts", str(len(values)))
        return values

    def flag(self, name: str) -> bool:
        """Return whether something is so."""
        value = self._take(name)
        if type(value) is not bool:
            raise self._error(name, "true or false", repr(value))
        return value

    def _take(self, name: str) -> Any:
        if name not in self._state:
            raise self._error(name, "it", "nothing")
        return self._state[name]

    def _error(self, name: str, expected: str, got: str) -> SnapshotError:
        return SnapshotError(f"{self.path}.{name}: expected {expected}, got {got}")


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    return type(value).__name__
