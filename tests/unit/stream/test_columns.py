from __future__ import annotations

from array import array

from domain.features import Field
from stream.columns import (
    join_rows,
    pack_features,
    pack_strings,
    split_list,
    split_rows,
    unpack_features,
    unpack_strings,
)

FIELDS = (
    Field(name="country", entity="user", kind="categorical"),
    Field(name="age", entity="user", kind="numeric"),
    Field(name="tags", entity="user", kind="multi"),
    Field(name="face", entity="user", kind="dense", size=2),
)


def test_features_come_back_when_some_are_missing() -> None:
    rows = [
        {"country": "at", "age": 3.0, "tags": ("x", "y", "x"), "face": (0.1, -2.0)},
        {},
        {"country": "at", "tags": ()},
        {"face": (1.0, 2.0), "age": 0.1},
    ]
    assert unpack_features(FIELDS, pack_features(FIELDS, rows), 4) == rows


def test_nothing_comes_back_when_there_are_no_rows() -> None:
    assert unpack_features(FIELDS, pack_features(FIELDS, []), 0) == []
    assert unpack_strings(pack_strings([])) == []
    assert split_rows(join_rows([]), []) == []


def test_rows_and_lists_come_back_with_their_lengths() -> None:
    rows = [array("q", [1, -(2**62)]), array("q"), array("q", [3])]
    assert split_rows(join_rows(rows), [2, 0, 1]) == rows
    assert split_list("abcd", [1, 0, 3]) == [["a"], [], ["b", "c", "d"]]
