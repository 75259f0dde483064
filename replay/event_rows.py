"""Rows of someone's own file: who, what, when and in which circumstances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from domain.errors import DatasetError
from domain.events import Features, FeatureValue
from domain.features import Field, Kind
from replay.column_table import ColumnTable
from replay.event_columns import EventFileColumns

_YEAR_3000_MS = 32_503_680_000_000
_MS_PER_S = 1_000
_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}


class EventRows:
    """Columns that every event file has, in order of time; equal times keep their file order.

    Attributes:
        order: int64 (N,), row of the file for each row here.
        times_ms: int64 (N,).
    """

    def __init__(self, table: ColumnTable, columns: EventFileColumns, limit: int | None) -> None:
        times_ms = _times_ms(table, columns)
        self.order = np.argsort(times_ms, kind="stable")[:limit]
        self.times_ms = times_ms[self.order]
        self.users: list[str] = self.take(table.ids(columns.user))
        self.items: list[str] = self.take(table.ids(columns.item))
        self._table = table

    def __len__(self) -> int:
        return len(self.order)

    def take(self, column: pa.ChunkedArray) -> list[Any]:
        """Return the values of a column of the file, in the order of the rows here."""
        values: list[Any] = column.take(pa.array(self.order)).to_pylist()
        return values

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Return a column of numbers, float64 (N,), in the order of the rows here."""
        return self._table.numbers(name)[self.order]

    def optional_numbers(self, name: str) -> list[float | None]:
        """Return a column of numbers in the order of the rows here, None where it is empty."""
        values: list[float | None] = []
        for row, value in enumerate(self.take(self._table.column(name))):
            try:
                number = None if value is None else float(value)
            except (TypeError, ValueError) as error:
                reason = f"column {name!r}: expected a number, got {value!r}"
                raise self.error(row, reason) from error
            if number is not None and not math.isfinite(number):
                raise self.error(row, f"column {name!r}: expected a finite number, got {number}")
            values.append(number)
        return values

    def error(self, row: int, reason: str) -> DatasetError:
        """Return an error that names the line of a row here."""
        return self._table.error(int(self.order[row]), reason)


def derived_fields(table: ColumnTable, names: Sequence[str]) -> tuple[Field, ...]:
    """Return a context field for each column, of a kind that fits what is in it.

    Numbers with a decimal point are numeric, lists of text are multi, lists of numbers (all of one
    length) dense. Everything else is categorical, whole numbers too: in logs they are mostly codes.
    """
    return tuple(_derived_field(table, name) for name in names)


def contexts(table: ColumnTable, rows: EventRows, fields: Sequence[Field]) -> list[Features]:
    """Return the context of each row; what is empty in the file is left out.

    Raises:
        DatasetError: a value does not fit its field.
    """
    columns = {field.name: _context_column(table, rows, field) for field in fields}
    return [
        {name: values[row] for name, values in columns.items() if values[row] is not None}
        for row in range(len(rows))
    ]


def _derived_field(table: ColumnTable, name: str) -> Field:
    column = table.column(name)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        if pa.types.is_string(column.type.value_type):
            return Field(name=name, entity="context", kind="multi", counted=True)
        size = pc.max(pc.list_value_length(column)).as_py() or 0
        return Field(name=name, entity="context", kind="dense", size=size)
    kind: Kind = "numeric" if _has_decimals(column) else "categorical"
    return Field(name=name, entity="context", kind=kind, counted=kind == "categorical")


def _has_decimals(column: pa.ChunkedArray) -> bool:
    """Return whether a column holds numbers that are not all written as whole ones."""
    if not pa.types.is_string(column.type):
        return bool(pa.types.is_floating(column.type))
    try:
        column.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    try:
        column.cast(pa.int64())
    except pa.ArrowInvalid:
        return True
    return False


def _context_column(table: ColumnTable, rows: EventRows, field: Field) -> list[Any]:
    match field.kind:
        case "categorical":
            return rows.take(table.text(field.name))
        case "numeric":
            return rows.optional_numbers(field.name)
        case _:
            raw = rows.take(table.column(field.name))
            return [_parts(rows, row, field, value) for row, value in enumerate(raw)]


def _parts(rows: EventRows, row: int, field: Field, value: object) -> FeatureValue | None:
    """Return several values: a list, or text with `|` between its parts."""
    if value is None:
        return None
    if isinstance(value, str):
        value = [part for part in value.split("|") if part]
    if field.kind == "multi" and isinstance(value, list):
        return tuple(str(part) for part in value)
    if isinstance(value, list) and len(value) == field.size:
        return tuple(float(part) for part in value)
    raise rows.error(row, f"column {field.name!r}: expected {field.kind}, got {value!r}")


def _times_ms(table: ColumnTable, columns: EventFileColumns) -> NDArray[np.int64]:
    name, unit = columns.time, columns.time_unit
    column = table.column(name)
    times_ms: NDArray[np.int64]
    if pa.types.is_timestamp(column.type):
        times_ms = _timestamps_ms(table, name, column)
    elif unit == "iso":
        texts = table.ids(name).to_pylist()
        times_ms = np.array([_iso_ms(table, row, text) for row, text in enumerate(texts)], np.int64)
    elif unit == "s":
        # seconds are often written with a fraction: double precision keeps the millisecond
        times_ms = np.rint(table.numbers(name) * _MS_PER_S).astype(np.int64)
    else:
        times_ms = table.integers(name) // _PER_MS[unit]
    outside = np.flatnonzero((times_ms <= 0) | (times_ms > _YEAR_3000_MS))
    if len(outside):
        row = int(outside[0])
        value = column[row].as_py()
        reason = f"column {name!r}: {value} is not between 1970 and 3000: is the time unit {unit}?"
        raise table.error(row, reason)
    return times_ms


def _timestamps_ms(table: ColumnTable, name: str, column: pa.ChunkedArray) -> NDArray[np.int64]:
    if column.null_count:
        row = pc.index(pc.is_null(column), True).as_py()
        raise table.error(row, f"column {name!r}: expected a time, got nothing")
    in_ms = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
    return np.asarray(in_ms.to_numpy(), np.int64)


def _iso_ms(table: ColumnTable, row: int, text: str) -> int:
    """Return ms since 1970 UTC; a time that names no zone is UTC."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise table.error(
            row, f"expected a time like 2024-05-01T12:00:00Z, got {text!r}"
        ) from error
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return round(when.timestamp() * _MS_PER_S)
