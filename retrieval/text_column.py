"""Texts of items, any number each, as one flat table of (row, text) pairs.

A row's texts stand next to each other. Describing a row anew writes off its old pairs and appends
new ones; once more pairs are written off than live, the table is made anew. So a change costs a
handful of writes, a question one pass over the pairs, and memory follows what is described now,
not what ever was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from domain.errors import SnapshotError
from domain.state import State
from domain.state_reading import StateReader
from retrieval.arrays import grown

_WRITTEN_OFF = -1
_FEW = 64


class TextColumn:
    """Which texts each row has.

    Shape legend: P = pairs, N = rows.
    """

    def __init__(self) -> None:
        self._code_of: dict[str, int] = {}
        self._rows_P = np.zeros(0, dtype=np.int32)
        self._codes_P = np.zeros(0, dtype=np.int32)
        self._num_pairs = 0
        self._num_written_off = 0
        self._start_N = np.zeros(0, dtype=np.int64)
        self._length_N = np.zeros(0, dtype=np.int32)

    @property
    def num_codes(self) -> int:
        """Return how many texts have a code, those of written-off pairs included."""
        return len(self._code_of)

    def grow(self, num_rows: int) -> None:
        """Make room for rows below `num_rows`; new ones have no texts."""
        self._start_N = grown(self._start_N, num_rows, 0)
        self._length_N = grown(self._length_N, num_rows, 0)

    def set(self, row: int, texts: Iterable[object]) -> None:
        """Replace the texts of a row; what is no text is left out."""
        codes = [
            self._code_of.setdefault(text, len(self._code_of))
            for text in texts
            if isinstance(text, str)
        ]
        old = slice(int(self._start_N[row]), int(self._start_N[row] + self._length_N[row]))
        self._codes_P[old] = _WRITTEN_OFF
        self._num_written_off += old.stop - old.start
        first, end = self._num_pairs, self._num_pairs + len(codes)
        self._rows_P = grown(self._rows_P, end, 0)
        self._codes_P = grown(self._codes_P, end, _WRITTEN_OFF)
        self._rows_P[first:end] = row
        self._codes_P[first:end] = codes
        self._start_N[row], self._length_N[row] = first, len(codes)
        self._num_pairs = end
        if self._num_written_off > end - self._num_written_off + _FEW:
            self.load(self.of_rows(np.arange(len(self._start_N))))

    def having(self, texts: Collection[str]) -> NDArray[np.bool_]:
        """Return which rows have at least one of some texts, with room for rows to come."""
        wanted_C = np.zeros(len(self._code_of) + 1, dtype=np.bool_)
        codes = [self._code_of[text] for text in texts if text in self._code_of]
        wanted_C[codes] = True
        # A code written off is -1 and so reads the last entry, which nobody wants.
        rows_P = self._rows_P[: self._num_pairs][wanted_C[self._codes_P[: self._num_pairs]]]
        bitmap_N = np.zeros(len(self._start_N), dtype=np.bool_)
        bitmap_N[rows_P] = True
        return bitmap_N

    def of_rows(self, rows: NDArray[np.int64]) -> State:
        """Return the texts of rows, the same however they came about."""
        length_R = self._length_N[rows]
        within_P = np.arange(int(length_R.sum())) - np.repeat(
            np.cumsum(length_R) - length_R, length_R
        )
        pairs_P = np.repeat(self._start_N[rows], length_R) + within_P
        used_U, first_U, code_P = np.unique(
            self._codes_P[pairs_P], return_index=True, return_inverse=True
        )
        by_first = np.argsort(first_U, kind="stable")
        rank_U = np.empty(len(used_U), dtype=np.int32)
        rank_U[by_first] = np.arange(len(used_U), dtype=np.int32)
        text_of = list(self._code_of)
        return {
            "vocabulary": [text_of[code] for code in used_U[by_first].tolist()],
            "codes": rank_U[code_P].astype(np.int32),
            "lengths": length_R.astype(np.int32),
        }

    def load(self, state: State) -> None:
        """Become what `of_rows` described, its first row being row 0."""
        self._code_of = {str(text): code for code, text in enumerate(state["vocabulary"])}
        self._codes_P = np.array(state["codes"], dtype=np.int32)
        self._length_N = np.array(state["lengths"], dtype=np.int32)
        self._start_N = np.cumsum(self._length_N, dtype=np.int64) - self._length_N
        self._rows_P = np.repeat(np.arange(len(self._length_N), dtype=np.int32), self._length_N)
        self._num_pairs, self._num_written_off = len(self._codes_P), 0


def texts_of(state: State) -> list[list[str]]:
    """Return the texts of each row that `TextColumn.of_rows` described."""
    texts = [state["vocabulary"][code] for code in state["codes"].tolist()]
    ends = np.cumsum(state["lengths"]).tolist()
    return [texts[end - length : end] for end, length in zip(ends, state["lengths"], strict=True)]


def read_texts(reader: StateReader, num_rows: int) -> State:
    """Check what `TextColumn.of_rows` returned for `num_rows` rows.

    Raises:
        SnapshotError: it is something else.
    """
    vocabulary = reader.texts("vocabulary")
    codes = reader.array("codes", np.int32, (None,))
    lengths = reader.array("lengths", np.int32, (num_rows,))
    if len(codes) and not 0 <= codes.min() <= codes.max() < len(vocabulary):
        raise SnapshotError(f"{reader.path}.codes: expected codes below {len(vocabulary)}")
    if (lengths < 0).any() or lengths.sum() != len(codes):
        raise SnapshotError(f"{reader.path}.lengths: expected lengths of {len(codes)} in all")
    return {"vocabulary": vocabulary, "codes": codes, "lengths": lengths}
