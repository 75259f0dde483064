"""Records of several partitions, merged by the time at which they were appended."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from domain.event_log import Record
from stream.bulk_objects import make_objects


class RecordBuffer:
    """Records fetched from one partition and not yet handed on, in order."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._times_ms: Sequence[int] = ()
        self._at = 0

    def __len__(self) -> int:
        return len(self._records) - self._at

    @property
    def time_ms(self) -> int:
        """Return when the next record was appended."""
        return self._times_ms[self._at]

    def fill(self, name: str, entries: Sequence[Any]) -> None:
        """Take what was fetched, after what is still here."""
        # An entry of kafka-python is a named tuple; taking columns is all done in C.
        columns = dict(zip(entries[0]._fields, zip(*entries, strict=True), strict=True))
        records = make_objects(
            Record,
            len(entries),
            partition=[name] * len(entries),
            offset=columns["offset"],
            key=[key.decode(errors="replace") if key else "" for key in columns["key"]],
            value=[value or b"" for value in columns["value"]],
        )
        self._records = [*self._records[self._at :], *records]
        self._times_ms = [*self._times_ms[self._at :], *columns["timestamp"]]
        self._at = 0

    def take_until(self, end_ms: float, at_end: bool, limit: int) -> list[Record]:
        """Hand on records until one was appended after `end_ms`, or at it unless `at_end`."""
        times_ms, start = self._times_ms, self._at
        last = min(start + limit, len(times_ms))
        at = start
        while at < last and (times_ms[at] < end_ms or (at_end and times_ms[at] == end_ms)):
            at += 1
        self._at = at
        return self._records[start:at]

    def clear(self) -> None:
        """Forget what was fetched."""
        self._records, self._times_ms, self._at = [], (), 0


def take_oldest(
    buffers: Mapping[str, RecordBuffer], max_records: int, is_starving: Callable[[str], bool]
) -> list[Record]:
    """Hand on the oldest records of all buffers, until one that will be filled again is empty.

    Each time the next record is the oldest of those that are first in their partition; of two
    equally old ones, that of the partition whose name comes first.

    `is_starving` says whether a partition whose buffer is empty has more records.
    """
    heads = [(buffer.time_ms, name) for name, buffer in buffers.items() if buffer]
    heapq.heapify(heads)
    records: list[Record] = []
    while heads and len(records) < max_records:
        name = heapq.heappop(heads)[1]
        buffer = buffers[name]
        # Runs, not single records: as long as the partition's next one is the oldest of all.
        end_ms, other = heads[0] if heads else (math.inf, "")
        records += buffer.take_until(end_ms, name < other, max_records - len(records))
        if buffer:
            heapq.heappush(heads, (buffer.time_ms, name))
        elif is_starving(name):
            break
    return records
