"""Columns of a CSV, Parquet or JSON-lines file, checked as they are taken."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
from numpy.typing import NDArray

from domain.errors import DatasetError

_TRUTH = {"true": "1", "false": "0"}


class ColumnTable:
    """A table file read into memory; whoever takes a column says what it must hold.

    Every mistake is a `DatasetError` that names the file and the line (Parquet: the row).
    """

    def __init__(self, path: Path, table: pa.Table, line_of: Callable[[int], str]) -> None:
        self.path = path
        self._table = table
        self._line_of = line_of

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def names(self) -> list[str]:
        """Return the column names, in file order."""
        return list(self._table.column_names)

    def error(self, row: int, reason: str) -> DatasetError:
        """Return an error that says where `row` (counted from 0) stands in the file."""
        return DatasetError(f"{self.path}:{self._line_of(row)}: {reason}")

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column as it was stored."""
        return self._table[name]

    def ids(self, name: str) -> pa.ChunkedArray:
        """Return a column as text; every row must have a value."""
        column = self.text(name)
        empty = pc.or_kleene(pc.is_null(column), pc.equal(column, ""))
        if pc.any(empty).as_py():
            row = pc.index(pc.fill_null(empty, True), True).as_py()
            raise self.error(row, f"column {name!r}: expected an id, got nothing")
        return column

    def text(self, name: str) -> pa.ChunkedArray:
        """Return a column as text, null where it is empty."""
        column = self._table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
            return column.cast(pa.string())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            return column.cast(pa.string())
        if pa.types.is_null(column.type):
            return column.cast(pa.string())
        raise DatasetError(
            f"{self.path}: column {name!r}: expected text or whole numbers, got {column.type}"
        )

    def integers(self, name: str) -> NDArray[np.int64]:
        """Return a column of whole numbers, int64 (N,)."""
        values = self._cast(name, pa.int64(), "a whole number", int)
        return np.asarray(values.to_numpy(), np.int64)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column of finite numbers, float64 (N,); false and true count as 0 and 1."""
        values = self._cast(name, pa.float64(), "a number", float)
        numbers = np.asarray(values.to_numpy(), np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            row = int(bad[0])
            raise self.error(row, f"column {name!r}: expected a number, got {numbers[row]}")
        return numbers

    def _cast(
        self, name: str, target: pa.DataType, expected: str, parse: Callable[[str], object]
    ) -> pa.ChunkedArray:
        column = self._table[name]
        if pa.types.is_string(column.type) and target == pa.float64():
            column = _truth_as_digits(column)
        try:
            cast = column.cast(target)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            for row, value in enumerate(column.to_pylist()):
                if not _parses(parse, value):
                    reason = f"column {name!r}: expected {expected}, got {value!r}"
                    raise self.error(row, reason) from error
            raise DatasetError(f"{self.path}: column {name!r}: {error}") from error
        if cast.null_count:
            row = pc.index(pc.is_null(cast), True).as_py()
            raise self.error(row, f"column {name!r}: expected {expected}, got nothing")
        return cast


def read_columns(path: Path, wanted: Sequence[str] = ()) -> ColumnTable:
    """Read a file by what its name ends in: .csv, .parquet, .jsonl or .ndjson.

    Args:
        path: the file.
        wanted: columns that must be there, the only ones read; none means all.

    Raises:
        DatasetError: the file or a column is missing, or a line cannot be read.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such file")
    readers = {
        ".csv": _read_csv,
        ".parquet": _read_parquet,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DatasetError(f"{path}: expected a file ending in {', '.join(readers)}")
    table = reader(path, wanted)
    if len(table) == 0:
        raise DatasetError(f"{path}: the file has no rows")
    return table


def _check_columns(path: Path, wanted: Sequence[str], names: Sequence[str]) -> None:
    for name in wanted:
        if name not in names:
            raise DatasetError(f"{path}: no column {name!r}; it has: {', '.join(names)}")


def _read_csv(path: Path, wanted: Sequence[str]) -> ColumnTable:
    """Read every column as text: what a column means is decided by who takes it."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names = next(csv.reader(file), [])
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: expected UTF-8 text: {error}") from error
    if not names:
        raise DatasetError(f"{path}: the file is empty")
    _check_columns(path, wanted, names)
    ragged: list[pa_csv.InvalidRow] = []

    def note(row: pa_csv.InvalidRow) -> str:
        ragged.append(row)
        return "skip"

    try:
        table = pa_csv.read_csv(
            path,
            # one thread, so that rows keep their numbers
            read_options=pa_csv.ReadOptions(use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in names},
                include_columns=list(wanted) or None,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )
    except pa.ArrowInvalid as error:
        raise DatasetError(f"{path}: {error}") from error
    if ragged:
        row = ragged[0]
        raise DatasetError(
            f"{path}:{_csv_line(path, row.number - 2)}: expected {row.expected_columns} columns, "
            f"got {row.actual_columns}"
        )
    return ColumnTable(path, table, lambda row: str(_csv_line(path, row)))


def _csv_line(path: Path, row: int) -> int:
    """Return the line on which a data row stands; only used to word an error."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        num_rows = -2
        for parts in reader:
            num_rows += bool(parts)
            if num_rows == row:
                return reader.line_num
    return row + 2


def _read_parquet(path: Path, wanted: Sequence[str]) -> ColumnTable:
    try:
        names = pa_parquet.read_schema(path).names
        _check_columns(path, wanted, names)
        table = pa_parquet.read_table(path, columns=list(wanted) or None)
    except pa.ArrowInvalid as error:
        raise DatasetError(f"{path}: not a Parquet file: {error}") from error
    return ColumnTable(path, table, lambda row: f"row {row + 1}")


def _read_json_lines(path: Path, wanted: Sequence[str]) -> ColumnTable:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows.append(_json_row(path, number, line))
                lines.append(number)
    names = tuple(wanted) or tuple(dict.fromkeys(name for row in rows for name in row))
    if rows:
        _check_columns(path, wanted, list(dict.fromkeys(name for row in rows for name in row)))
    columns = {name: _json_column(path, name, rows, lines) for name in names}
    return ColumnTable(path, pa.table(columns), lambda row: str(lines[row]))


def _json_row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
    except ValueError as error:
        raise DatasetError(f"{path}:{number}: expected one JSON object: {error}") from error
    if not isinstance(row, dict):
        raise DatasetError(f"{path}:{number}: expected one JSON object, got {type(row).__name__}")
    return row


def _json_column(
    path: Path, name: str, rows: Sequence[dict[str, Any]], lines: Sequence[int]
) -> pa.Array:
    values = [row.get(name) for row in rows]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        first = next(value for value in values if value is not None)
        kinds = (int, float) if type(first) in (int, float) else (type(first),)
        for line, value in zip(lines, values, strict=True):
            if value is not None and type(value) not in kinds:
                raise DatasetError(
                    f"{path}:{line}: column {name!r}: expected {type(first).__name__} as in the "
                    f"lines before, got {value!r}"
                ) from error
        raise DatasetError(f"{path}: column {name!r}: {error}") from error


def _truth_as_digits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    lower = pc.utf8_lower(column)
    for word, digit in _TRUTH.items():
        column = pc.if_else(pc.equal(lower, word), digit, column)
    return column


def _parses(parse: Callable[[str], object], value: object) -> bool:
    try:
        parse(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True
