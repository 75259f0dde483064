"""The recent past of every metric, in one SQLite file, so that curves exist without a Prometheus.

A sample is everything one process showed at one moment: a row of numbers whose names stand once in
another table. The last hour is kept as it was recorded, the day before by the minute, everything
older in steps of five minutes, and nothing beyond `keep_days`.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from domain.errors import ConfigError, RecordsError

Series: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels, the labels in the order of their names."""
Values: TypeAlias = NDArray[np.float64]

_FORM = 1
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_STEPS_MS = ((_HOUR_MS, 60_000), (_DAY_MS, 300_000))
"""From which age on only the last sample of every such step is kept."""
_TABLES = """
CREATE TABLE IF NOT EXISTS sources (
    source TEXT PRIMARY KEY, every_ms INTEGER, started_ms INTEGER, ended_ms INTEGER
);
CREATE TABLE IF NOT EXISTS layouts (layout_id INTEGER PRIMARY KEY, names TEXT UNIQUE);
CREATE TABLE IF NOT EXISTS samples (
    source TEXT, time_ms INTEGER, layout_id INTEGER, numbers BLOB, PRIMARY KEY (source, time_ms)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryConfig:
    """How the past of the metrics is kept.

    Attributes:
        every_s: time between two samples of a process; 0 keeps no past.
        keep_days: age at which samples are deleted.
    """

    every_s: float = 5.0
    keep_days: int = 15

    def __post_init__(self) -> None:
        if self.every_s and not 1 <= self.every_s <= 60:
            raise ConfigError(f"history.every_s must be 0 or lie in 1..60, got {self.every_s}")
        if self.keep_days < 1:
            raise ConfigError(f"history.keep_days must be at least 1, got {self.keep_days}")


@dataclass(frozen=True, slots=True)
class Source:
    """A process that keeps, or kept, samples here.

    Attributes:
        name: "trainer", or "server HOST:PORT".
        newest_ms: processing time of the newest sample.
        ended_ms: when it ended in order; None while it runs, and when it was killed.
    """

    name: str
    every_ms: int
    started_ms: int
    ended_ms: int | None
    newest_ms: int

    def is_running(self, now_ms: int) -> bool:
        """Return whether it still keeps samples: three may be late, on a machine that is busy."""
        return self.ended_ms is None and now_ms - self.newest_ms <= max(3 * self.every_ms, 15_000)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Samples of one process, oldest first.

    Attributes:
        times_ms: processing times, (N,).
        columns: values of each series, (N,); NaN where it was not shown.
    """

    times_ms: NDArray[np.int64]
    columns: Mapping[Series, Values]

    def __len__(self) -> int:
        return len(self.times_ms)

    def matching(self, name: str, **labels: str) -> list[tuple[dict[str, str], Values]]:
        """Return labels and values of every series of this name that has these labels."""
        wanted = labels.items()
        return [
            (dict(own), values)
            for (known, own), values in self.columns.items()
            if known == name and wanted <= dict(own).items()
        ]

    def get(self, name: str, **labels: str) -> Values:
        """Return the sum of the matching series, (N,); NaN where none of them was shown."""
        found = [values for _, values in self.matching(name, **labels)]
        if not found:
            return np.full(len(self), np.nan)
        stacked = np.stack(found)
        return np.where(np.isnan(stacked).all(axis=0), np.nan, np.nansum(stacked, axis=0))

    def last(self, name: str, **labels: str) -> float | None:
        """Return the newest sample's value, None when it has none."""
        values = self.get(name, **labels)
        return float(values[-1]) if len(values) and not np.isnan(values[-1]) else None


class MetricHistory:
    """Writes samples; one handle per thread."""

    def __init__(self, path: Path, config: HistoryConfig) -> None:
        """Open or create the file.

        Raises:
            RecordsError: it cannot be opened, or another version of Headrace made it.
        """
        self._path = path
        self._keep_ms = config.keep_days * _DAY_MS
        self._every_ms = int(config.every_s * 1_000)
        self._layouts: dict[str, int] = {}
        with _explained(path):
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_TABLES)
            form = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if form not in (0, _FORM):
                raise RecordsError(f"{path}: expected records of form {_FORM}, got form {form}")
            self._connection.execute(f"PRAGMA user_version = {_FORM}")

    def begin(self, source: str, now_ms: int) -> None:
        """Say that a process runs. Here and below, RecordsError says what the disk refused."""
        row = (source, self._every_ms, now_ms)
        with _explained(self._path):
            self._connection.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, NULL)", row)

    def end(self, source: str, now_ms: int) -> None:
        """Say that a process has ended in order."""
        row = (now_ms, source)
        with _explained(self._path):
            self._connection.execute("UPDATE sources SET ended_ms = ? WHERE source = ?", row)

    def write(self, source: str, now_ms: int, sample: Mapping[Series, float]) -> None:
        """Keep a sample."""
        names = json.dumps(list(sample))
        numbers = np.array(list(sample.values()), "<f8").tobytes()
        with _explained(self._path):
            row = (source, now_ms, self._layout_id(names), numbers)
            self._connection.execute("INSERT OR REPLACE INTO samples VALUES (?, ?, ?, ?)", row)

    def thin(self, now_ms: int) -> None:
        """Delete what is too old, or finer than its age deserves."""
        with _explained(self._path), self._connection as one_transaction:
            one_transaction.execute("BEGIN IMMEDIATE")
            one_transaction.execute(
                "DELETE FROM samples WHERE time_ms < ?", (now_ms - self._keep_ms,)
            )
            for age_ms, step_ms in _STEPS_MS:
                until_ms = (now_ms - age_ms) // step_ms * step_ms
                one_transaction.execute(
                    "DELETE FROM samples WHERE time_ms < ? AND (source, time_ms) NOT IN ("
                    "SELECT source, MAX(time_ms) FROM samples "
                    "WHERE time_ms < ? GROUP BY source, time_ms / ?)",
                    (until_ms, until_ms, step_ms),
                )
            one_transaction.execute(
                "DELETE FROM layouts WHERE layout_id NOT IN (SELECT layout_id FROM samples)"
            )
            one_transaction.execute(
                "DELETE FROM sources WHERE source NOT IN (SELECT source FROM samples) "
                "AND started_ms < ?",
                (now_ms - self._keep_ms,),
            )
        self._layouts = {}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _layout_id(self, names: str) -> int:
        if names not in self._layouts:
            self._connection.execute("INSERT OR IGNORE INTO layouts (names) VALUES (?)", (names,))
            found = self._connection.execute(
                "SELECT layout_id FROM layouts WHERE names = ?", (names,)
            )
            self._layouts = {names: found.fetchone()[0]}
        return self._layouts[names]


class HistoryReader:
    """Reads what was kept. Nothing is created: a folder without records has no sources."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sources(self) -> list[Source]:
        """Return every process that has samples, in order of name.

        Raises:
            RecordsError: the file is no history, or cannot be read.
        """
        rows = self._rows(
            "SELECT source, every_ms, started_ms, ended_ms, MAX(time_ms) "
            "FROM sources JOIN samples USING (source) GROUP BY source ORDER BY source"
        )
        return [Source(*row) for row in rows]

    def frame(self, source: str, since_ms: int, until_ms: int, max_samples: int = 400) -> Frame:
        """Return the samples of a process from `since_ms` to `until_ms`, both included.

        When there are more than `max_samples`, they are thinned evenly; the newest always stays.

        Raises:
            RecordsError: the file is no history, or cannot be read.
        """
        rows = self._rows(
            "SELECT time_ms, layout_id FROM samples WHERE source = ? AND time_ms BETWEEN ? AND ? "
            "ORDER BY time_ms",
            (source, since_ms, until_ms),
        )
        every = -(-len(rows) // max_samples) or 1
        times = [row[0] for row in rows[::-1][::every][::-1]]
        return self._read(source, times)

    def sample_near(self, source: str, time_ms: int, within_ms: int) -> Frame:
        """Return the sample nearest to a moment, alone in its frame; an empty one if none is near.

        Raises:
            RecordsError: the file is no history, or cannot be read.
        """
        rows = self._rows(
            "SELECT time_ms FROM samples WHERE source = ? AND time_ms BETWEEN ? AND ? "
            "ORDER BY ABS(time_ms - ?) LIMIT 1",
            (source, time_ms - within_ms, time_ms + within_ms, time_ms),
        )
        return self._read(source, [row[0] for row in rows])

    def _read(self, source: str, times: Sequence[int]) -> Frame:
        rows = self._rows(
            "SELECT time_ms, layout_id, numbers FROM samples WHERE source = ? "
            "AND time_ms IN (SELECT value FROM json_each(?)) ORDER BY time_ms",
            (source, json.dumps(times)),
        )
        layouts = {
            layout_id: [(name, tuple(map(tuple, labels))) for name, labels in json.loads(names)]
            for layout_id, names in self._rows("SELECT layout_id, names FROM layouts")
        }
        rows = [row for row in rows if row[1] in layouts]  # thinned between the two reads
        columns: dict[Series, Values] = {}
        for layout_id in {row[1] for row in rows}:
            own = [number for number, row in enumerate(rows) if row[1] == layout_id]
            block = np.stack([np.frombuffer(rows[number][2], "<f8") for number in own])
            for series, values in zip(layouts[layout_id], block.T, strict=True):
                if series not in columns:
                    columns[series] = np.full(len(rows), np.nan)
                columns[series][own] = values
        return Frame(np.array([row[0] for row in rows], np.int64), columns)

    def _rows(self, query: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        if not self._path.exists():
            return []
        # Where nothing can be written, nobody writes: SQLite need not look for a writer's files.
        mode = "mode=ro" if os.access(self._path.parent, os.W_OK) else "immutable=1"
        # A connection of its own each time: pages are drawn by several threads, and rarely.
        with (
            _explained(self._path),
            closing(sqlite3.connect(f"{self._path.as_uri()}?{mode}", uri=True, timeout=5.0)) as own,
        ):
            return own.execute(query, parameters).fetchall()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise RecordsError(f"{path}: the records cannot be used: {error}") from error
