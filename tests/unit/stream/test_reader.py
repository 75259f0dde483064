"""Reading ahead: the order of the log, a queue that cannot grow, and errors in their place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from domain.clock import SystemClock
from domain.errors import LogGapError, LogUnavailableError
from domain.event_log import EventLog, Positions, Record
from domain.events import UserUpdate
from monitoring.metrics import Metrics
from stream.codec import BadEvent, encode
from stream.columnar_build import encode_columnar
from stream.log_health import LogHealth
from stream.reader import Decoded, Reader, ReaderParts
from stream.trainer_config import TrainerConfig

P = "events/0"
SIZE = len(encode(UserUpdate(event_id="e000", time_ms=1_000, user_id="u")))


def _event(number: int) -> UserUpdate:
    return UserUpdate(event_id=f"e{number:03d}", time_ms=1_000, user_id="u")


class ListLog:
    """A log in a list; `when_read` is called before each read with the number of the read."""

    def __init__(self, values: list[bytes]) -> None:
        self.records = [Record(P, offset, "u", value) for offset, value in enumerate(values)]
        self.reads = self.asked_for_ends = 0
        self.when_read: Callable[[int], None] = lambda number: None
        self.idle = threading.Event()

    def read(self, positions: Positions, *, max_records: int, timeout_s: float) -> list[Record]:
        self.reads += 1
        self.when_read(self.reads)
        start = positions.get(P, 0)
        found = self.records[start : start + max_records]
        if not found:
            self.idle.wait(timeout_s)
        return found

    def end_positions(self) -> Positions:
        self.asked_for_ends += 1
        return {P: len(self.records)}


class Bench:
    """A reader on a list, and what is taken from it."""

    def __init__(self, values: list[bytes], **settings: Any) -> None:
        self.log = ListLog(values)
        self.metrics = Metrics()
        config = TrainerConfig(**{"poll_timeout_s": 0.05, **settings})
        clock = SystemClock()
        self.health = LogHealth(config, clock, self.metrics)
        parts = ReaderParts(
            log=cast(EventLog, self.log), health=self.health, clock=clock, metrics=self.metrics
        )
        self.reader = Reader(parts, config)

    def take(self) -> list[Decoded]:
        """The next chunk, however long it takes."""
        while (chunk := self.reader.take()) is None:
            pass
        return chunk

    def take_all(self) -> list[Decoded]:
        """Everything up to the end of the log."""
        return [one for chunk in iter(self.take, []) for one in chunk]

    def count(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"headrace_stream_{name}") or 0.0


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make_bench(values: list[bytes], **settings: Any) -> Bench:
        made.append(Bench(values, **settings))
        return made[-1]

    yield make_bench
    for bench in made:
        bench.reader.close()


def test_records_come_in_the_order_of_the_log_with_all_that_they_hold(make: Any) -> None:
    many = encode_columnar([_event(7), _event(8)])
    bench = make([encode(_event(0)), b"\xff\x00 garbage", many, encode(_event(9))], max_records=3)
    bench.reader.start({})
    taken = bench.take_all()
    assert [one.record.offset for one in taken] == [0, 1, 2, 3]
    assert [one.entries for one in taken[::2]] == [[_event(0)], [_event(7), _event(8)]]
    assert taken[3].entries == [_event(9)]
    (bad,) = taken[1].entries
    assert isinstance(bad, BadEvent)
    assert bad.value == b"\xff\x00 garbage"


def test_reading_begins_where_it_is_told_and_begins_anew_when_told_again(make: Any) -> None:
    bench = make([encode(_event(number)) for number in range(6)])
    bench.reader.start({P: 4})
    assert [one.record.offset for one in bench.take_all()] == [4, 5]
    bench.reader.start({P: 2})
    assert [one.record.offset for one in bench.take_all()] == [2, 3, 4, 5]


def test_end_of_the_log_is_told_behind_everything_before_it_and_reading_goes_on(make: Any) -> None:
    bench = make([encode(_event(0))])
    bench.reader.start({})
    assert [one.record.offset for one in bench.take()] == [0]
    assert bench.take() == []
    bench.log.records.append(Record(P, 1, "u", encode(_event(1))))
    while not (chunk := bench.take()):  # the end was told until there was more
        pass
    assert [one.record.offset for one in chunk] == [1]


def _wait_until_full(bench: Bench, events: float) -> None:
    done = threading.Event()
    while bench.count("queue_events") < events:
        done.wait(0.001)


@pytest.mark.parametrize(
    ("settings", "full", "reads"),
    [
        ({"queue_events": 10, "max_records": 4}, 8, 3),
        ({"queue_bytes": 5 * SIZE, "max_records": 4}, 4, 2),
        ({"queue_events": 3, "max_records": 100}, 3, 1),
    ],
)
def test_full_queue_pauses_the_reader(make: Any, settings: Any, full: int, reads: int) -> None:
    bench = make([encode(_event(number)) for number in range(100)], **settings)
    bench.reader.start({})
    _wait_until_full(bench, full)
    while bench.log.reads < reads:  # the last one waits for room
        threading.Event().wait(0.001)
    threading.Event().wait(0.05)
    assert bench.log.reads == reads
    assert bench.count("queue_events") == full
    assert bench.count("queue_bytes") == full * SIZE
    deepest = 0.0
    offsets: list[int] = []
    for chunk in iter(bench.take, []):
        offsets += [one.record.offset for one in chunk]
        deepest = max(deepest, bench.count("queue_events"))
    assert offsets == list(range(100))
    assert deepest <= full
    assert bench.count("queue_events") == bench.count("queue_bytes") == 0.0


def test_record_that_is_larger_than_the_queue_waits_alone(make: Any) -> None:
    large = encode_columnar([_event(number) for number in range(50)])
    bench = make([encode(_event(0)), large, encode(_event(99))], queue_events=5)
    bench.reader.start({})
    assert [len(one.entries) for chunk in iter(bench.take, []) for one in chunk] == [1, 50, 1]


def test_error_comes_behind_everything_that_was_read_before_it(make: Any) -> None:
    bench = make([encode(_event(number)) for number in range(6)], max_records=2)

    def fail_at_third(number: int) -> None:
        if number == 3:
            raise LogUnavailableError("the log is away")

    bench.log.when_read = fail_at_third
    bench.reader.start({})
    assert [one.record.offset for one in bench.take()] == [0, 1]
    assert [one.record.offset for one in bench.take()] == [2, 3]
    with pytest.raises(LogUnavailableError, match="the log is away"):
        bench.take()
    bench.reader.start({P: 4})
    assert [one.record.offset for one in bench.take_all()] == [4, 5]


def test_gap_is_raised_as_it_was_found(make: Any) -> None:
    bench = make([])

    def lose(number: int) -> None:
        raise LogGapError("the log", P, 3, 7, 9)

    bench.log.when_read = lose
    bench.reader.start({P: 3})
    with pytest.raises(LogGapError) as caught:
        bench.take()
    assert (caught.value.position, caught.value.beginning) == (3, 7)


def test_what_was_read_ahead_is_forgotten_when_reading_begins_anew(make: Any) -> None:
    bench = make([encode(_event(number)) for number in range(20)], queue_events=8, max_records=4)
    bench.reader.start({})
    _wait_until_full(bench, 8)
    bench.reader.start({P: 18})
    assert [one.record.offset for one in bench.take_all()] == [18, 19]


def test_closing_does_not_wait_for_somebody_to_take(make: Any) -> None:
    bench = make([encode(_event(number)) for number in range(100)], queue_events=4)
    bench.reader.start({})
    _wait_until_full(bench, 4)
    bench.reader.close()
    bench.reader.close()
    assert bench.count("queue_events") == 0.0
    assert not [one for one in threading.enumerate() if one.name == "reader"]


def test_ends_are_asked_for_once_a_second_not_at_every_read(make: Any) -> None:
    bench = make([encode(_event(number)) for number in range(100)], max_records=1)
    bench.reader.start({})
    assert len(bench.take_all()) == 100
    assert bench.reader.ends == {P: 100}
    assert bench.log.reads > 100
    assert bench.log.asked_for_ends < 20


def test_reads_are_counted(make: Any) -> None:
    bench = make([encode(_event(number)) for number in range(10)], max_records=4)
    bench.reader.start({})
    bench.take_all()
    bench.reader.close()
    assert bench.count("read_records_total") == 10
    assert bench.count("read_bytes_total") == 10 * SIZE
    assert bench.count("reads_total") == bench.log.reads >= 4
