"""Where drift signals and field reports go: a file, a web hook, or whoever else wants them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Protocol

from monitoring.drift_signal import DriftSignal
from monitoring.field_report import FieldDistribution, FieldWindow
from monitoring.signal_store import SignalStore

logger = logging.getLogger(__name__)


class DriftSink(Protocol):
    """Takes what was found; it must neither raise nor keep its caller waiting."""

    def write_signals(self, signals: Sequence[DriftSignal]) -> None:
        """Take signals that are new, have grown or have ended."""

    def write_fields(
        self, windows: Sequence[FieldWindow], distributions: Sequence[FieldDistribution]
    ) -> None:
        """Take what a window of requests showed about fields."""


class StoreSink:
    """Writes everything to a file; a file that cannot be written costs records, not the trainer."""

    def __init__(self, store: SignalStore) -> None:
        self._store = store

    def write_signals(self, signals: Sequence[DriftSignal]) -> None:
        """Write signals."""
        _try(lambda: self._store.write(signals))

    def write_fields(
        self, windows: Sequence[FieldWindow], distributions: Sequence[FieldDistribution]
    ) -> None:
        """Write reports on fields."""
        _try(lambda: self._store.write_windows(windows))
        _try(lambda: self._store.write_distributions(distributions))


class ListSink:
    """Keeps signals in memory, each as it was last told, in the order they were first told."""

    def __init__(self) -> None:
        self._signals: dict[tuple[str, str, int], DriftSignal] = {}
        self.windows: list[FieldWindow] = []

    @property
    def signals(self) -> list[DriftSignal]:
        """Return all signals."""
        return list(self._signals.values())

    def write_signals(self, signals: Sequence[DriftSignal]) -> None:
        """Keep signals."""
        for signal in signals:
            self._signals[signal.stream, signal.detector, signal.since_ms] = signal

    def write_fields(
        self, windows: Sequence[FieldWindow], distributions: Sequence[FieldDistribution]
    ) -> None:
        """Keep the windows' numbers."""
        del distributions
        self.windows += windows


def _try(write: Callable[[], None]) -> None:
    try:
        write()
    except sqlite3.Error as error:
        logger.error("drift records not written", extra={"error": str(error)})
