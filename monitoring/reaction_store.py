"""Reactions on disk: a table of their own in the file of drift records.

A trainer that goes on from a snapshot does again what it had done since then, and writes the same
row again: name and event time are the key.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple, fields
from pathlib import Path

from domain.errors import ConfigError
from monitoring.reactions import Reaction

logger = logging.getLogger(__name__)

_NAMES = tuple(field.name for field in fields(Reaction))
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS reactions (name TEXT NOT NULL, time_ms INTEGER NOT NULL, "
    "stream TEXT NOT NULL, cause TEXT NOT NULL, until_ms INTEGER, PRIMARY KEY (name, time_ms))"
)
# Built from names of this file alone; whatever comes from outside is a bound value.
_WRITE = (
    f"INSERT OR REPLACE INTO reactions ({', '.join(_NAMES)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * len(_NAMES))})"
)
_READ = f"SELECT {', '.join(_NAMES)} FROM reactions ORDER BY time_ms DESC, name LIMIT ?"  # noqa: S608
_BUSY_MS = 250


class ReactionStore:
    """Writes reactions; a file that cannot be written costs records, not the trainer."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make what it lacks.

        Raises:
            ConfigError: it is none of ours.
        """
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            self._db.execute(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{path}: not a file of drift records: {error}") from error

    def write_reactions(self, reactions: Sequence[Reaction]) -> None:
        """Keep reactions; one that is there already is replaced."""
        try:
            self._db.executemany(_WRITE, [astuple(one) for one in reactions])
        except sqlite3.Error as error:
            logger.error("reactions not written", extra={"error": str(error)})

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def read_reactions(path: Path, limit: int = -1) -> list[Reaction]:
    """Return what was done, the newest first; nothing when nothing was ever written.

    Raises:
        ConfigError: there is no such file, or it is none of ours.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no drift records there; a trainer writes them as it runs")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            known = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'reactions'").fetchone()
            rows = db.execute(_READ, (limit,)).fetchall() if known else []
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{path}: not a file of drift records: {error}") from error
    return [Reaction(**dict(zip(_NAMES, row, strict=True))) for row in rows]
