"""Drift signals and field reports on disk: one SQLite file, one writer, any number of readers.

    signals               one row per change: stream, detector and since_ms are the key, so a
                          trainer that goes on from a snapshot writes the same rows again, not
                          second ones
    field_windows         one row per field and window, see `FieldWindow`
    field_distributions   one row per field and role, the newest, see `FieldDistribution`

Times are ms since 1970 UTC, event time. A column that `DriftSignal`, `FieldWindow` or
`FieldDistribution` has means what it says there; `severity`, `size` and `sentence` are written
beside them for readers that speak only SQL.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

from domain.errors import ConfigError
from monitoring.drift_signal import (
    DRIFT_KINDS,
    DriftKind,
    DriftSignal,
    contributors_from,
)
from monitoring.field_report import FieldDistribution, FieldWindow

FILE_NAME = "drift.sqlite"
"""Name of the file in the data folder."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS signals (
    stream TEXT NOT NULL, kind TEXT NOT NULL, detector TEXT NOT NULL,
    time_ms INTEGER NOT NULL, since_ms INTEGER NOT NULL, before REAL NOT NULL, after REAL NOT NULL,
    deviations REAL NOT NULL, points_before INTEGER NOT NULL, points_after INTEGER NOT NULL,
    ended_ms INTEGER, measure TEXT NOT NULL, compared_with TEXT NOT NULL,
    contributors TEXT NOT NULL, size REAL NOT NULL, severity TEXT NOT NULL, sentence TEXT NOT NULL,
    PRIMARY KEY (stream, detector, since_ms));
CREATE INDEX IF NOT EXISTS signals_by_time ON signals (time_ms);
CREATE TABLE IF NOT EXISTS field_windows (
    field TEXT NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL,
    examples INTEGER NOT NULL, missing REAL, unseen REAL, psi_reference REAL, psi_day REAL,
    distance_reference REAL, distance_day REAL, PRIMARY KEY (field, ended_ms));
CREATE INDEX IF NOT EXISTS field_windows_by_time ON field_windows (ended_ms);
CREATE TABLE IF NOT EXISTS field_distributions (
    field TEXT NOT NULL, role TEXT NOT NULL, ended_ms INTEGER NOT NULL, labels TEXT NOT NULL,
    counts TEXT NOT NULL, PRIMARY KEY (field, role));
"""
_SIGNAL_FIELDS = tuple(field.name for field in fields(DriftSignal))
_SIGNAL_COLUMNS = (*_SIGNAL_FIELDS, "size", "severity", "sentence")
_WINDOW_COLUMNS = tuple(field.name for field in fields(FieldWindow))
_DISTRIBUTION_COLUMNS = tuple(field.name for field in fields(FieldDistribution))
_BUSY_MS = 250
_GIVEN = ", ".join("?" * len(_SIGNAL_COLUMNS))
_RENEWED = ", ".join(
    f"{name} = excluded.{name}"
    for name in _SIGNAL_COLUMNS
    if name not in ("stream", "detector", "since_ms", "ended_ms")
)
# Built from names of this file alone; whatever comes from outside is a bound value.
_WRITE_SIGNAL = (
    f"INSERT INTO signals ({', '.join(_SIGNAL_COLUMNS)}) VALUES ({_GIVEN}) "  # noqa: S608
    f"ON CONFLICT (stream, detector, since_ms) DO UPDATE SET {_RENEWED}, "
    "ended_ms = coalesce(excluded.ended_ms, ended_ms)"
)
_READ_SIGNALS = f"SELECT {', '.join(_SIGNAL_FIELDS)} FROM signals"  # noqa: S608
_READ_WINDOWS = f"SELECT {', '.join(_WINDOW_COLUMNS)} FROM field_windows"  # noqa: S608
_READ_DISTRIBUTIONS = f"SELECT {', '.join(_DISTRIBUTION_COLUMNS)} FROM field_distributions"  # noqa: S608

_Signals: TypeAlias = list[DriftSignal]
_Windows: TypeAlias = list[FieldWindow]
_Distributions: TypeAlias = list[FieldDistribution]
_Rows: TypeAlias = list[tuple[Any, ...]]
_Values: TypeAlias = list[Any]
# Named here because within the class `list` is the method.


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalStoreConfig:
    """How much is kept.

    Attributes:
        max_signals: signals kept; the oldest give way.
        keep_windows_ms: event time for which reports on fields are kept.
    """

    max_signals: int = 100_000
    keep_windows_ms: int = 14 * 24 * 60 * 60 * 1000

    def __post_init__(self) -> None:
        for key in ("max_signals", "keep_windows_ms"):
            if getattr(self, key) < 1:
                raise ConfigError(f"drift.store.{key} must be positive, got {getattr(self, key)}")


class SignalStore:
    """Writes and reads the file; errors of SQLite (a full disk, a locked file) are the caller's."""

    def __init__(
        self, path: Path, config: SignalStoreConfig | None = None, *, read_only: bool = False
    ) -> None:
        """Open the file, and make it unless it is only to be read.

        Raises:
            ConfigError: the file does not exist and is only to be read, or it is none of ours.
        """
        self._config = config or SignalStoreConfig()
        if read_only and not path.exists():
            raise ConfigError(f"{path}: no drift records there; a trainer writes them as it runs")
        mode = "ro" if read_only else "rwc"
        try:
            self._db = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            self._db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            if not read_only:
                # Readers never wait for the writer, and a commit is one append.
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.executescript(_SCHEMA)
            self._db.execute("SELECT count(*) FROM signals").fetchone()
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{path}: not a file of drift records: {error}") from error

    def write(self, signals: Sequence[DriftSignal]) -> None:
        """Keep signals; one that is there already is replaced, and an end once known stays."""
        if not signals:
            return
        self._in_one_go(
            _WRITE_SIGNAL,
            [_signal_row(signal) for signal in signals],
            "DELETE FROM signals WHERE rowid IN (SELECT rowid FROM signals "
            "ORDER BY time_ms DESC, rowid DESC LIMIT -1 OFFSET ?)",
            (self._config.max_signals,),
        )

    def list(
        self,
        *,
        since_ms: int | None = None,
        stream: str | None = None,
        kind: DriftKind | None = None,
        live: bool = False,
        limit: int | None = None,
    ) -> _Signals:
        """Return signals, the newest first.

        Args:
            since_ms: only those noticed at this event time or later.
            stream: only those of this stream, or of all that begin with it when it ends in "/".
            kind: only those of this kind.
            live: only those that have not ended.
            limit: at most so many.
        """
        where = ["1"]
        values: _Values = []
        if since_ms is not None:
            where.append("time_ms >= ?")
            values.append(since_ms)
        if stream is not None:
            where.append("substr(stream, 1, ?) = ?" if stream.endswith("/") else "stream = ?")
            values += [len(stream), stream] if stream.endswith("/") else [stream]
        if kind is not None:
            assert kind in DRIFT_KINDS, kind
            where.append("kind = ?")
            values.append(kind)
        if live:
            where.append("ended_ms IS NULL")
        rows = self._rows(
            f"{_READ_SIGNALS} WHERE {' AND '.join(where)} "
            "ORDER BY time_ms DESC, stream, detector, since_ms LIMIT ?",
            (*values, -1 if limit is None else limit),
        )
        return [_signal(row) for row in rows]

    def write_windows(self, windows: Sequence[FieldWindow]) -> None:
        """Keep what was seen of fields; windows that are there already are replaced."""
        if not windows:
            return
        newest_ms = max(window.ended_ms for window in windows)
        self._in_one_go(
            _upsert("field_windows", _WINDOW_COLUMNS),
            [astuple(window) for window in windows],
            "DELETE FROM field_windows WHERE ended_ms < ?",
            (newest_ms - self._config.keep_windows_ms,),
        )

    def windows(self, *, since_ms: int = 0, field: str | None = None) -> _Windows:
        """Return reports on fields that ended at `since_ms` or later, oldest first."""
        rows = self._rows(
            f"{_READ_WINDOWS} WHERE ended_ms >= ? AND (? IS NULL OR field = ?) "
            "ORDER BY ended_ms, field",
            (since_ms, field, field),
        )
        return [FieldWindow(**dict(zip(_WINDOW_COLUMNS, row, strict=True))) for row in rows]

    def write_distributions(self, distributions: Sequence[FieldDistribution]) -> None:
        """Keep the newest distribution of each field and role."""
        self._in_one_go(
            _upsert("field_distributions", _DISTRIBUTION_COLUMNS),
            [
                (one.field, one.role, one.ended_ms, json.dumps(one.labels), json.dumps(one.counts))
                for one in distributions
            ],
        )

    def distributions(self, field: str) -> _Distributions:
        """Return the newest distributions of one field: reference, last day and now."""
        rows = self._rows(
            f"{_READ_DISTRIBUTIONS} WHERE field = ? ORDER BY role DESC",
            (field,),
        )
        return [
            FieldDistribution(
                field=name,
                role=role,
                ended_ms=ended_ms,
                labels=tuple(json.loads(labels)),
                counts=tuple(json.loads(counts)),
            )
            for name, role, ended_ms, labels, counts in rows
        ]

    def version(self) -> int:
        """Return a number that is another one whenever somebody else has written since."""
        return int(self._rows("PRAGMA data_version", ())[0][0])

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._db.close()

    def _rows(self, query: str, values: Sequence[Any]) -> _Rows:
        with closing(self._db.execute(query, tuple(values))) as cursor:
            return cursor.fetchall()

    def _in_one_go(
        self, query: str, rows: Sequence[Sequence[Any]], then: str = "", given: Sequence[Any] = ()
    ) -> None:
        """Write all rows or none, so that readers never see half a window."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(query, rows)
            if then:
                self._db.execute(then, given)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _upsert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" * len(columns))
    return f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608


def _signal_row(signal: DriftSignal) -> tuple[Any, ...]:
    plain = [
        json.dumps(signal.contributors) if name == "contributors" else getattr(signal, name)
        for name in _SIGNAL_FIELDS
    ]
    return (*plain, signal.size, signal.severity, signal.describe())


def _signal(row: Sequence[Any]) -> DriftSignal:
    given = dict(zip(_SIGNAL_FIELDS, row, strict=True))
    given["contributors"] = contributors_from(json.loads(given["contributors"]))
    return DriftSignal(**given)
