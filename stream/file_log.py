"""The recorded event log: files that were written once and are only read.

A log is one file, or the event files of one folder in name order, read as one partition. The forms
of a file, and how to write one, are in `stream.event_file`. Records have no key: it can be had from
the event. Dead letters and commits live as long as the object: nothing is written to the files.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

from domain.clock import Clock, SystemClock
from domain.errors import LogError, LogGapError, LogPositionError
from domain.event_log import DeadLetter, Positions, Record
from domain.events import Event
from stream.event_file import SUFFIXES, is_event_file, open_event_file, write_event_file

__all__ = ["PARTITION", "FileLog", "write_event_file"]

PARTITION = "file/0"
"""The only partition of a recorded log."""


class FileLog:
    """A recorded log; not to be shared by threads.

    Raises:
        LogError: there is no such file or folder, it holds no event file, or one is damaged.
    """

    def __init__(self, path: Path | str, *, clock: Clock | None = None) -> None:
        self._path = Path(path)
        self._clock = clock or SystemClock()
        self._files = [open_event_file(file) for file in _event_files(self._path)]
        self._starts = [0, *itertools.accumulate(file.num_records for file in self._files)]
        self._committed: Positions = {}
        self._dead_letters: dict[str, DeadLetter] = {}
        self._closed = False

    def append(self, events: Sequence[Event]) -> None:
        """Refuse: a recorded log is read only."""
        raise LogError(f"{self._path}: a recorded log is read only; write_event_file makes one")

    def append_raw(self, records: Sequence[tuple[str, bytes]]) -> None:
        """Refuse: a recorded log is read only."""
        raise LogError(f"{self._path}: a recorded log is read only; write_event_file makes one")

    def read(self, positions: Positions, *, max_records: int, timeout_s: float) -> list[Record]:
        """Return up to `max_records` records from the position on; see `EventLog.read`.

        At the end nothing can arrive any more. The wait is kept all the same, so that a caller who
        asks again and again does not keep a core busy.
        """
        assert max_records > 0, max_records
        start = self._start(positions)
        records: list[Record] = []
        while len(records) < max_records and start < self._starts[-1]:
            index = bisect_right(self._starts, start) - 1
            file, first = self._files[index], self._starts[index]
            values = file.read(start - first, max_records - len(records))
            records += [
                Record(PARTITION, offset, "", value) for offset, value in enumerate(values, start)
            ]
            start += len(values)
        if not records:
            self._clock.sleep(timeout_s)
        return records

    def beginning_positions(self) -> Positions:
        """Return offset 0."""
        self._reject_closed()
        return {PARTITION: 0}

    def end_positions(self) -> Positions:
        """Return the number of records in all files."""
        self._reject_closed()
        return {PARTITION: self._starts[-1]}

    def commit(self, positions: Positions) -> None:
        """Remember positions as long as the object lives."""
        self._committed |= positions

    def committed(self) -> Positions:
        """Return what was last committed to this object."""
        return dict(self._committed)

    def dead_letter(self, letter: DeadLetter) -> None:
        """Keep a record aside as long as the object lives."""
        self._dead_letters.setdefault(letter.where, letter)

    def dead_letters(self) -> list[DeadLetter]:
        """Return the dead letters given to this object, oldest first."""
        return list(self._dead_letters.values())

    def append_again(self, letters: Sequence[DeadLetter]) -> None:
        """Refuse: a recorded log is read only."""
        raise LogError(f"{self._path}: a recorded log is read only; nothing is redriven into it")

    def mark_redriven(self, letters: Sequence[DeadLetter], time_ms: int) -> None:
        """Refuse: what is read only cannot have been appended to."""
        raise LogError(f"{self._path}: a recorded log is read only; nothing is redriven into it")

    def close(self) -> None:
        """Close the files; may be called twice."""
        self._closed = True
        for file in self._files:
            file.close()

    def _start(self, positions: Positions) -> int:
        self._reject_closed()
        for partition in positions:
            if partition != PARTITION:
                raise LogPositionError(
                    f"{self._path}: has one partition, {PARTITION}, and was asked for {partition}"
                )
        start = positions.get(PARTITION, 0)
        if not 0 <= start <= self._starts[-1]:
            raise LogGapError(str(self._path), PARTITION, start, 0, self._starts[-1])
        return start

    def _reject_closed(self) -> None:
        if self._closed:
            raise LogError(f"{self._path}: the log is closed")


def _event_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    # Other files may lie beside the events: notes, a schema, a file still being written.
    files = sorted(file for file in path.iterdir() if is_event_file(file))
    if not files:
        raise LogError(f"{path}: expected files that end in {', '.join(SUFFIXES)}, found none")
    return files
