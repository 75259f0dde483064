"""Drift signals as they are written: the records of the data folder, followed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

from domain.errors import ConfigError, RecordsError, StoppingError
from monitoring.drift_signal import SEVERITIES, DriftKind, DriftSignal, Severity
from monitoring.signal_store import SignalStore

MAX_SIGNALS = 1_000
"""Newest signals that are looked at each time, and remembered as told."""

_POLL_S = 0.25
"""How often the records are looked at; looking costs microseconds while nothing was written."""

_Key: TypeAlias = tuple[str, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalQuery:
    """Which signals are wanted.

    Attributes:
        since_ms: noticed at this event time or later.
        stream: of this stream, or of all that begin with it when it ends in "/"; None is all.
        kind: of this kind; None is all.
        min_severity: at least so severe.
        live_only: of those that are there at the beginning, only such as have not ended.
    """

    since_ms: int = 0
    stream: str | None = None
    kind: DriftKind | None = None
    min_severity: Severity = "small"
    live_only: bool = False


class SignalFeed:
    """Follows the signals in a file that a trainer writes, or will write."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def watch(
        self, query: SignalQuery, over: threading.Event, draining: threading.Event
    ) -> Iterator[DriftSignal]:
        """Yield the signals that are there, oldest first, then each new or changed one.

        Ends when `over` is set.

        Raises:
            RecordsError: the file cannot be read.
            StoppingError: `draining` is set.
        """
        told: dict[_Key, DriftSignal] = {}
        is_first = True
        with _Records(self._path) as records:
            while not over.wait(0.0 if is_first else _POLL_S):
                if draining.is_set():
                    raise StoppingError("the server is stopping; watch again")
                found = records.changed(query)
                if found is not None:
                    news = [one for one in found if told.get(_key(one)) != one]
                    told = {_key(one): one for one in found}
                    if is_first and query.live_only:
                        news = [one for one in news if one.ended_ms is None]
                    yield from news
                is_first = False


class _Records:
    """The file of signals, opened once it is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._store: SignalStore | None = None
        self._version = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()

    def _opened(self) -> SignalStore | None:
        """Return the file once a trainer has made it, which takes it a moment."""
        if not self._path.exists():
            return None
        try:
            return SignalStore(self._path, read_only=True)
        except ConfigError as error:
            if "no such table" in str(error.__cause__):
                return None
            raise

    def changed(self, query: SignalQuery) -> list[DriftSignal] | None:
        """Return the newest signals that are wanted, oldest first; None: nothing was written."""
        try:
            if self._store is None:
                self._store = self._opened()
            if self._store is None:
                return None
            version = self._store.version()
            if version == self._version:
                return None
            found = self._store.list(
                since_ms=query.since_ms, stream=query.stream, kind=query.kind, limit=MAX_SIGNALS
            )
        except (ConfigError, sqlite3.Error) as error:
            raise RecordsError(f"{self._path.name} cannot be read: {error}") from error
        self._version = version
        least = SEVERITIES.index(query.min_severity)
        return [one for one in reversed(found) if SEVERITIES.index(one.severity) >= least]


def _key(signal: DriftSignal) -> _Key:
    return (signal.stream, signal.detector, signal.since_ms)
