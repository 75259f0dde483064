"""An event log as a dataset: what stands in it when the replay begins, partition by partition."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from domain.errors import DatasetError
from domain.event_log import EventLog, Positions, advance
from domain.events import Event
from domain.features import FeatureSchema
from replay.dataset import JoinerHints
from stream.bulk_decode import decode_records
from stream.codec import BadEvent

_READ = 5_000


class LogDataset:
    """A log's events in the order a trainer would read them; later ones are left alone.

    Within a partition that is the order of the log. Records that are no events are passed over and
    counted: a trainer sets them aside.
    """

    joiner_hints = JoinerHints()

    def __init__(
        self,
        name: str,
        schema: FeatureSchema,
        open_log: Callable[[], EventLog],
        start: Positions | None = None,
    ) -> None:
        """Read a log.

        Args:
            name: what reports call it, its URL.
            schema: the schema its events were declared with.
            open_log: opens the log; each pass over the events opens it anew.
            start: positions to begin at; a partition that they leave out is read from its
                beginning. None reads everything.

        Raises:
            DatasetError: the log does not hold what stands there.
        """
        self.name = name
        self.schema = schema
        self._open_log = open_log
        self.undecodable = 0
        log = open_log()
        self._begin, self._ends = log.beginning_positions(), log.end_positions()
        log.close()
        self._check(start or {}, self._begin)
        self._start = start or {}

    @property
    def num_events_hint(self) -> int:
        """Return the number of records that are read."""
        begin = {**self._begin, **self._start}
        return sum(max(end - begin.get(name, 0), 0) for name, end in self._ends.items())

    @property
    def ends(self) -> Positions:
        """Return how far the log is read."""
        return self._ends

    def end_at(self, ends: Positions) -> None:
        """Read the log as far as another replay did, who opened it when it was shorter.

        Raises:
            DatasetError: the log does not reach that far.
        """
        for partition, offset in ends.items():
            if self._ends.get(partition, 0) < offset:
                raise DatasetError(
                    f"{self.name}: expected {partition} to reach offset {offset}, it ends at "
                    f"{self._ends.get(partition, 0)}: it is another log"
                )
        self._ends = dict(ends)

    def _check(self, start: Positions, begin: Positions) -> None:
        for partition, offset in start.items():
            first, end = begin.get(partition, 0), self._ends.get(partition, 0)
            if not first <= offset <= end:
                raise DatasetError(
                    f"{self.name}: expected {partition} to hold offset {offset}, it holds {first} "
                    f"to {end}: records were deleted, or it is another log"
                )

    def events(self) -> Iterator[Event]:
        """Return the events that stood in the log when it was opened first."""
        self.undecodable = 0
        log = self._open_log()
        try:
            positions = {**log.beginning_positions(), **self._start}
            while any(positions.get(name, 0) < end for name, end in self._ends.items()):
                records = log.read(positions, max_records=_READ, timeout_s=0.0)
                if not records:
                    return
                inside = [one for one in records if one.offset < self._ends.get(one.partition, 0)]
                for entries in decode_records([one.value for one in inside]):
                    for entry in entries:
                        if isinstance(entry, BadEvent):
                            self.undecodable += 1
                        else:
                            yield entry
                positions = advance(positions, records)
        finally:
            log.close()
