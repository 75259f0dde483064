"""A producer to be killed, and to see the broker killed: appends a simulated stream at a rate.

An id is written to a file of its own only after the log has acknowledged the event. Killed and
started again, it goes on behind the last line of that file, so what was on its way is sent twice.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from domain.errors import LogUnavailableError
from domain.event_log import EventLog
from replay.simulator import simulate
from replay.stream_noise import Arrival
from tests.faults.backends import KafkaTestLog, SqliteTestLog, TestLog, append_arrivals, opened
from tests.faults.fault_worlds import Stream

_BATCH = 5
_RETRY_S = 0.1
_BROKEN = "-"
"""What stands in the file for a record that is no event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to append, where, and how fast.

    Attributes:
        acknowledged: file that gets a line for every record that the log has.
        rate: records per second.
    """

    stream: Stream
    backend: str
    place: str
    name: str
    acknowledged: str
    rate: float

    def to_json(self) -> str:
        """Return what `main` takes."""
        return json.dumps(asdict(self))


def order(stream: Stream, test_log: TestLog, acknowledged: Path, rate: float) -> Order:
    """Return the order to append a stream to a log."""
    place, name = (
        (test_log.bootstrap, test_log.prefix)
        if isinstance(test_log, KafkaTestLog)
        else (test_log.url.removeprefix("sqlite://"), "")
    )
    return Order(
        stream=stream,
        backend=test_log.backend,
        place=place,
        name=name,
        acknowledged=str(acknowledged),
        rate=rate,
    )


def acknowledged_ids(path: Path) -> list[str]:
    """Return the ids of events that a producer was told are stored."""
    return [line for line in _lines(path) if line != _BROKEN]


def main(arguments: Sequence[str]) -> int:
    """Append until all is stored."""
    fields = json.loads(arguments[0])
    task = Order(**{**fields, "stream": Stream(**fields["stream"])})
    arrivals = list(simulate(task.stream.scenario))
    path = Path(task.acknowledged)
    with opened(_log_of(task)) as log, path.open("ab", buffering=0) as sink:
        done = len(_lines(path))
        while done < len(arrivals):
            batch = arrivals[done : done + _BATCH]
            _append_at_last(log, batch)
            sink.write("".join(f"{_id_of(arrival)}\n" for arrival in batch).encode())
            done += len(batch)
            time.sleep(len(batch) / task.rate)
    return 0


def _append_at_last(log: EventLog, batch: Sequence[Arrival]) -> None:
    while True:
        try:
            append_arrivals(log, batch)
        except LogUnavailableError as error:
            print(f"again: {error}", file=sys.stderr, flush=True)
            time.sleep(_RETRY_S)
        else:
            return


def _id_of(arrival: Arrival) -> str:
    return _BROKEN if arrival.event is None else arrival.event.event_id


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _log_of(task: Order) -> TestLog:
    if task.backend == "kafka":
        return KafkaTestLog(task.place, task.name)
    return SqliteTestLog(Path(task.place))
