"""A field's values as counts over bins that are fixed once: constant memory, and counts add up.

The first values decide the bins. Categorical: the most frequent values get one each, all others
share a few by hash. Numeric: bins of equal count. From then on a sketch is a row of counts, and
those of an hour, a day or two trainers merge by addition.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from domain.events import FeatureValue
from domain.features import Kind
from domain.state import State

BINS = 32
OTHER_BINS = 8
TOP_VALUES = BINS - OTHER_BINS
NUMERIC_BINS = 16
_FIRST_VALUES = 4_096
"""Values, or different values, that a sketch keeps until its bins are fixed."""
_SEEN_SLOTS = 8_192
_MOST_SEEN = 0.5
"""Share of slots in use above which chance decides whether a value counts as seen."""


class Sketch(Protocol):
    """Counts one field's values; B bins."""

    unseen: int
    values: int

    def add(self, given: Sequence[FeatureValue | None]) -> int:
        """Count values; return how many were missing."""

    def fix(self) -> None:
        """Fix the bins; what was counted until then is counted again in them."""

    def take(self) -> NDArray[np.int64]:
        """Return the counts since the last time, int64 (B,), and start from zero."""

    def labels(self) -> tuple[str, ...]:
        """Return what the bins in use stand for."""

    def centres(self) -> NDArray[np.float64] | None:
        """Return where the bins stand, in standard deviations; None for values without order."""

    def save(self) -> State:
        """Return everything `load` needs."""

    def load(self, state: State) -> None:
        """Become what `save` described."""


def make_sketch(kind: Kind) -> Sketch:
    """Return an empty sketch for a field of this kind."""
    match kind:
        case "categorical" | "multi":
            return CategoricalSketch(several=kind == "multi")
        case "numeric" | "dense":
            return NumericSketch(vector=kind == "dense")


class CategoricalSketch:
    """Counts texts. A value counts as unseen once, when it comes for the first time of all.

    Attributes:
        unseen: values since the last `take` that had not been seen before.
        values: values since the last `take`.
    """

    def __init__(self, *, several: bool) -> None:
        self._several = several
        self._first: Counter[str] | None = Counter()
        self._top: dict[str, int] = {}
        self._count_B = np.zeros(BINS, np.int64)
        self._seen = np.zeros(_SEEN_SLOTS, np.bool_)
        self.unseen = 0
        self.values = 0

    @property
    def knows_unseen(self) -> bool:
        """Return whether `unseen` means anything: with too many values chance decides."""
        return float(self._seen.mean()) <= _MOST_SEEN

    def add(self, given: Sequence[FeatureValue | None]) -> int:
        """Count values; return how many were missing."""
        if self._several:
            present = [one for one in given if one]
            counted = Counter(str(value) for several in present for value in _texts(several))
        else:
            present = [one for one in given if one is not None]
            counted = Counter(present)  # type: ignore[arg-type]
        for value, count in counted.items():
            self.values += count
            code = zlib.crc32(str(value).encode())
            slot = code % _SEEN_SLOTS
            self.unseen += not self._seen[slot]
            self._seen[slot] = True
            if self._first is None:
                self._count_B[self._bin(value, code)] += count
            elif value in self._first or len(self._first) < _FIRST_VALUES:
                self._first[value] += count
        return len(given) - len(present)

    def fix(self) -> None:
        """Give the most frequent values a bin each; ties are broken by name."""
        assert self._first is not None, "bins are fixed once"
        ranked = sorted(self._first.items(), key=lambda item: (-item[1], item[0]))
        self._top = {value: place for place, (value, _) in enumerate(ranked[:TOP_VALUES])}
        first, self._first = self._first, None
        for value, count in first.items():
            self._count_B[self._bin(value, zlib.crc32(value.encode()))] += count

    def take(self) -> NDArray[np.int64]:
        """Return the counts since the last time, and start from zero."""
        counts, self._count_B = self._count_B, np.zeros(BINS, np.int64)
        self.unseen = self.values = 0
        return counts

    def labels(self) -> tuple[str, ...]:
        """Return the value of each bin, then "other"."""
        unused = TOP_VALUES - len(self._top)
        others = tuple(f"other {number}" for number in range(1, OTHER_BINS + 1))
        return (*self._top, *("",) * unused, *others)

    def centres(self) -> None:
        """Return None: texts have no order."""

    def save(self) -> State:
        """Return bins, counts and what was seen."""
        return {
            "first": None if self._first is None else [list(one) for one in self._first.items()],
            "top": list(self._top),
            "counts": self._count_B.copy(),
            "seen": np.packbits(self._seen),
            "unseen": self.unseen,
            "values": self.values,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        first = state["first"]
        self._first = None if first is None else Counter(dict(first))
        self._top = {value: place for place, value in enumerate(state["top"])}
        self._count_B = state["counts"].copy()
        self._seen = np.unpackbits(state["seen"]).astype(np.bool_)
        self.unseen, self.values = state["unseen"], state["values"]

    def _bin(self, value: str, code: int) -> int:
        place = self._top.get(value)
        return TOP_VALUES + code % OTHER_BINS if place is None else place


class NumericSketch:
    """Counts numbers, or the lengths of vectors, in bins of equal count.

    Attributes:
        unseen: always 0: a number that never came before says nothing.
        values: values since the last `take`.
    """

    knows_unseen = False

    def __init__(self, *, vector: bool) -> None:
        self._vector = vector
        self._first: list[float] | None = []
        self._edges = np.zeros(0)
        self._centre_B = np.zeros(BINS)
        self._count_B = np.zeros(BINS, np.int64)
        self.unseen = 0
        self.values = 0

    def add(self, given: Sequence[FeatureValue | None]) -> int:
        """Count values; return how many were missing or not finite."""
        numbers: list[Any] = [one for one in given if one is not None]
        if self._vector:
            numbers = [math.hypot(*one) for one in numbers]
        value_N = np.array(numbers, np.float64)
        value_N = value_N[np.isfinite(value_N)]
        self.values += len(value_N)
        if self._first is None:
            self._count(value_N)
        else:
            self._first += value_N[: _FIRST_VALUES - len(self._first)].tolist()
        return len(given) - len(value_N)

    def fix(self) -> None:
        """Put the edges between bins where they cut the first values into equal parts."""
        assert self._first is not None, "bins are fixed once"
        first_N, self._first = np.array(self._first), None
        if len(first_N):
            inner = np.quantile(first_N, np.arange(1, NUMERIC_BINS) / NUMERIC_BINS)
            self._edges = np.unique(inner)
            self._centre_B = _centres(first_N, self._edges)
        self._count(first_N)

    def take(self) -> NDArray[np.int64]:
        """Return the counts since the last time, and start from zero."""
        counts, self._count_B = self._count_B, np.zeros(BINS, np.int64)
        self.values = 0
        return counts

    def labels(self) -> tuple[str, ...]:
        """Return the interval of each bin."""
        edges = [-math.inf, *self._edges.tolist(), math.inf]
        used = [f"[{a:.4g}, {b:.4g})" for a, b in pairwise(edges)]
        return (*used, *("",) * (BINS - len(used)))

    def centres(self) -> NDArray[np.float64]:
        """Return the mean of the first values in each bin, in standard deviations."""
        return self._centre_B

    def save(self) -> State:
        """Return bins and counts."""
        return {
            "first": None if self._first is None else np.array(self._first, np.float64),
            "edges": self._edges.copy(),
            "centres": self._centre_B.copy(),
            "counts": self._count_B.copy(),
            "values": self.values,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._first = None if state["first"] is None else state["first"].tolist()
        self._edges, self._centre_B = state["edges"].copy(), state["centres"].copy()
        self._count_B, self.values = state["counts"].copy(), state["values"]

    def _count(self, value_N: NDArray[np.float64]) -> None:
        bins = np.searchsorted(self._edges, value_N, side="right")
        self._count_B += np.bincount(bins, minlength=BINS)


def _texts(several: FeatureValue) -> Iterable[object]:
    assert isinstance(several, tuple), several
    return several


def _centres(first_N: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each bin's values over the standard deviation of all; ascending."""
    bins = np.searchsorted(edges, first_N, side="right")
    count_B = np.bincount(bins, minlength=BINS)
    total_B = np.bincount(bins, first_N, minlength=BINS)
    deviation = float(first_N.std()) or 1.0
    stands_at = np.concatenate([edges[:1], edges])  # where an empty bin stands: at its edge
    fallback_B = np.full(BINS, edges[-1])
    fallback_B[: len(stands_at)] = stands_at
    centre_B = np.where(count_B > 0, total_B / np.maximum(count_B, 1), fallback_B)
    result: NDArray[np.float64] = np.maximum.accumulate(centre_B) / deviation
    return result
