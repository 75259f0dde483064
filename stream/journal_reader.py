"""The records of a log, in the order that a journal tells."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from domain.errors import JournalError
from domain.event_log import EventLog, Record
from stream.journal_files import Segment

_AT_ONCE = 2_000
_TIMEOUT_S = 1.0


class RunReader:
    """Reads each partition ahead on its own, so that memory is bounded whatever the order is."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._ends = log.end_positions()
        self._ahead: dict[str, deque[Record]] = {}

    def records(self, segment: Segment) -> Iterator[Record]:
        """Yield the records of a segment in its order.

        Raises:
            JournalError: the log does not hold one of them any more.
        """
        for run in segment.runs:
            for offset in range(run.first, run.first + run.length):
                yield self._take(run.partition, offset)

    def _take(self, partition: str, offset: int) -> Record:
        ahead = self._ahead.setdefault(partition, deque())
        while ahead and ahead[0].offset < offset:
            ahead.popleft()
        if not ahead:
            # The others stand at their ends, where nothing is: this partition comes alone.
            positions = {**self._ends, partition: offset}
            found = self._log.read(positions, max_records=_AT_ONCE, timeout_s=_TIMEOUT_S)
            ahead.extend(record for record in found if record.partition == partition)
        if not ahead or ahead[0].offset != offset:
            raise JournalError(
                f"the log no longer holds {partition}@{offset}, which was learned (a compacted "
                "topic keeps only the newest record of a key)"
            )
        return ahead.popleft()
