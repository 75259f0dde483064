"""Every mistake in a table file is named with its file and line."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from domain.errors import DatasetError
from replay.column_table import ColumnTable, read_columns


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, name: str, text: str) -> ColumnTable:
    return read_columns(written(folder, name, text))


def test_read_columns_gives_the_same_values_in_every_format(tmp_path: Path) -> None:
    csv = read(tmp_path, "t.csv", "user,n,x\nu1,1,0.5\nu2,2,1.5\n")
    lines = read(tmp_path, "t.jsonl", '{"user":"u1","n":1,"x":0.5}\n{"user":"u2","n":2,"x":1.5}\n')
    pa_parquet.write_table(
        pa.table({"user": ["u1", "u2"], "n": [1, 2], "x": [0.5, 1.5]}), tmp_path / "t.parquet"
    )
    for table in (csv, lines, read_columns(tmp_path / "t.parquet")):
        assert table.ids("user").to_pylist() == ["u1", "u2"]
        assert table.ids("n").to_pylist() == ["1", "2"]
        assert table.integers("n").tolist() == [1, 2]
        assert table.numbers("x").tolist() == [0.5, 1.5]


def test_read_columns_keeps_leading_zeros_of_ids(tmp_path: Path) -> None:
    assert read(tmp_path, "t.csv", "film\n0104257\n").ids("film").to_pylist() == ["0104257"]


def test_numbers_count_truth_as_one_in_every_format(tmp_path: Path) -> None:
    csv = read(tmp_path, "t.csv", "y\nTrue\nfalse\n1\n")
    lines = read(tmp_path, "t.jsonl", '{"y":true}\n{"y":false}\n{"y":true}\n')
    assert csv.numbers("y").tolist() == [1.0, 0.0, 1.0]
    assert lines.numbers("y").tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("name", "text", "column", "line"),
    [
        ("t.csv", "a,b\n1,x\n\n2,\n", "b", ":4:"),
        ("t.jsonl", '{"a":1,"b":"x"}\n\n{"a":2}\n', "b", ":3:"),
    ],
)
def test_ids_name_the_line_that_has_none(
    tmp_path: Path, name: str, text: str, column: str, line: str
) -> None:
    with pytest.raises(DatasetError, match="expected an id") as error:
        read(tmp_path, name, text).ids(column)
    assert f"{name}{line}" in str(error.value)


def test_integers_name_the_line_that_is_no_whole_number(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"t\.csv:3: column 'a': .*whole number, got 'two'"):
        read(tmp_path, "t.csv", "a\n1\ntwo\n").integers("a")
    with pytest.raises(DatasetError, match=r"t\.csv:3: column 'a': .*got nothing"):
        read(tmp_path, "t.csv", "a,b\n1,1\n,1\n").integers("a")


def test_numbers_name_the_line_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"t\.csv:2: column 'a': expected a number, got nan"):
        read(tmp_path, "t.csv", "a\nnan\n").numbers("a")


def test_read_columns_names_the_line_after_a_quoted_line_break(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"t\.csv:4: expected 2 columns, got 1"):
        read(tmp_path, "t.csv", 'a,b\n1,"two\nlines"\n3\n')


def test_read_columns_names_the_json_line_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"t\.jsonl:2: expected one JSON object"):
        read(tmp_path, "t.jsonl", '{"a":1}\n{"a":\n')
    with pytest.raises(DatasetError, match=r"t\.jsonl:1: expected one JSON object, got list"):
        read(tmp_path, "t.jsonl", "[1]\n")
    with pytest.raises(DatasetError, match=r"t\.jsonl:2: column 'a': expected int as in the"):
        read(tmp_path, "t.jsonl", '{"a":1}\n{"a":"x"}\n')


def test_read_columns_names_the_row_of_a_parquet_file(tmp_path: Path) -> None:
    pa_parquet.write_table(pa.table({"a": ["u", None]}), tmp_path / "t.parquet")
    with pytest.raises(DatasetError, match=r"t\.parquet:row 2: column 'a': expected an id"):
        read_columns(tmp_path / "t.parquet").ids("a")


def test_read_columns_lists_what_is_there_when_a_column_is_missing(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "a,b\n1,2\n")
    with pytest.raises(DatasetError, match=r"t\.csv: no column 'c'; it has: a, b"):
        read_columns(path, ("a", "c"))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("t.csv", "", "the file is empty"),
        ("t.csv", "a,b\n", "the file has no rows"),
        ("t.jsonl", "\n", "the file has no rows"),
        ("t.txt", "a", "expected a file ending in"),
        ("t.parquet", "no", "not a Parquet file"),
    ],
)
def test_read_columns_refuses_what_holds_no_table(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    with pytest.raises(DatasetError, match=reason):
        read(tmp_path, name, text)


def test_read_columns_refuses_what_is_not_utf8(tmp_path: Path) -> None:
    for name, content in (("t.csv", b"a\n\xff\n"), ("t.jsonl", b'{"a":"\xff"}\n')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match=name):
            read_columns(tmp_path / name)


def test_read_columns_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such file"):
        read_columns(tmp_path / "gone.csv")
