"""Columns: many users' or items' data as few flat arrays, so that a snapshot stays small.

Strings are kept once each in a list, everything else in NumPy arrays.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from domain.events import Features, FeatureValue
from domain.features import Field
from domain.state import State

T = TypeVar("T")


def pack_strings(texts: Iterable[str]) -> State:
    """Return each distinct string once, and the numbers of the strings given.

    >>> state = pack_strings(["b", "a", "b"])
    >>> state["vocabulary"], state["codes"].tolist()
    (['b', 'a'], [0, 1, 0])
    """
    listed = list(texts)
    code_of = {text: code for code, text in enumerate(dict.fromkeys(listed))}
    codes = np.fromiter(map(code_of.__getitem__, listed), np.int32, len(listed))
    return {"vocabulary": list(code_of), "codes": codes}


def unpack_strings(state: State) -> list[str]:
    """Return the strings that `pack_strings` packed."""
    return list(map(state["vocabulary"].__getitem__, state["codes"].tolist()))


def join_rows(rows: Iterable[array[int]]) -> NDArray[np.int64]:
    """Return rows of int64 as one flat array."""
    return np.frombuffer(b"".join(rows), np.int64).copy()


def split_rows(flat: NDArray[np.int64], lengths: Sequence[int]) -> list[array[int]]:
    """Return rows of the given lengths, cut from a flat array."""
    raw = np.ascontiguousarray(flat, np.int64).tobytes()
    rows, start = [], 0
    for length in lengths:
        row = array("q")
        row.frombytes(raw[8 * start : 8 * (start + length)])
        rows.append(row)
        start += length
    return rows


def split_list(flat: Sequence[T], lengths: Iterable[int]) -> list[list[T]]:
    """Return lists of the given lengths, cut from a flat one."""
    rows, start = [], 0
    for length in lengths:
        rows.append(list(flat[start : start + length]))
        start += length
    return rows


def pack_features(fields: Sequence[Field], rows: Sequence[Features]) -> State:
    """Return features of many users or items as columns; a missing feature stays missing."""
    return {str(index): _pack_field(field, rows) for index, field in enumerate(fields)}


def unpack_features(
    fields: Sequence[Field], state: State, num_rows: int
) -> list[dict[str, FeatureValue]]:
    """Return the features that `pack_features` packed."""
    rows: list[dict[str, FeatureValue]] = [{} for _ in range(num_rows)]
    for index, field in enumerate(fields):
        column = state[str(index)]
        present = np.flatnonzero(column["present"]).tolist()
        for row, value in zip(present, _unpack_field(field, column), strict=True):
            rows[row][field.name] = value
    return rows


def _pack_field(field: Field, rows: Sequence[Features]) -> State:
    name = field.name
    given = [row.get(name) for row in rows]  # one look-up per row: this is most of a save
    values: list[Any] = [value for value in given if value is not None]
    column: State = {"present": np.array([value is not None for value in given], np.bool_)}
    match field.kind:
        case "categorical":
            column |= pack_strings(values)
        case "multi":
            column |= pack_strings(chain.from_iterable(values))
            column["lengths"] = np.array([len(value) for value in values], np.int64)
        case "numeric" | "dense":
            column["values"] = np.array(values, np.float64).reshape(len(values), field.size or 1)
    return column


def _unpack_field(field: Field, column: State) -> list[Any]:
    match field.kind:
        case "categorical":
            return unpack_strings(column)
        case "multi":
            texts = split_list(unpack_strings(column), column["lengths"].tolist())
            return [tuple(text) for text in texts]
        case "numeric":
            return [value for (value,) in column["values"].tolist()]
        case "dense":
            return [tuple(value) for value in column["values"].tolist()]
