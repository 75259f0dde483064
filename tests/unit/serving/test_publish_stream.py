"""A stream of published events without gRPC: what is read ahead, and how it ends."""

from __future__ import annotations

import threading

import pytest

from domain.errors import InvalidRequestError, LogUnavailableError, StoppingError
from domain.events import UserUpdate
from serving.impression_log import ImpressionLog, ImpressionLogConfig
from serving.publish import Publisher, PublisherConfig
from serving.publish_stream import PublishStream
from tests.unit.serving.running_server import until
from tests.unit.serving.worlds import CLOCK, SCHEMA, serving_metrics


class GatedLog:
    """A log that stores nothing until it is let."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.stored: list = []

    def append(self, events) -> None:
        assert self.open.wait(20)
        self.stored += events


class Stream:
    """A stream into a gated log, and everything around it."""

    def __init__(self, **config) -> None:
        self.log = GatedLog()
        self.impression_log = ImpressionLog(self.log, ImpressionLogConfig())
        self.impression_log.start()
        publisher = Publisher(
            self.impression_log, SCHEMA, CLOCK, PublisherConfig(**config), serving_metrics()
        )
        self.over, self.draining = threading.Event(), threading.Event()
        self.stream = PublishStream(publisher, self.over, self.draining)
        self.read: list[int] = []

    def asks(self, most: int, then: Exception | None = None):
        for number in range(most):
            self.read.append(number)
            event = UserUpdate(event_id=f"e{number}", time_ms=1, user_id="ann")
            yield number, lambda event=event: [event]
        if then is not None:
            raise then

    def close(self) -> None:
        self.log.open.set()
        self.impression_log.stop(5.0)


@pytest.fixture
def start():
    made = []

    def make(**config) -> Stream:
        made.append(Stream(**config))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_no_more_is_read_while_the_log_is_slow(start):
    stream = start(max_unacknowledged=2)
    acknowledged: list = []
    caller = threading.Thread(
        target=lambda: acknowledged.extend(stream.stream.acknowledge(stream.asks(50)))
    )
    caller.start()
    # One is waited for, two are in the queue, one has no room in it.
    until(lambda: len(stream.read) == 4)
    caller.join(0.3)
    assert len(stream.read) == 4
    assert acknowledged == []
    stream.log.open.set()
    caller.join(20)
    assert [one.number for one in acknowledged] == list(range(50))
    assert [event.event_id for event in stream.log.stored] == [f"e{n}" for n in range(50)]


def test_what_ends_the_requests_is_told_behind_the_last_acknowledgement(start):
    stream = start()
    stream.log.open.set()
    answers = stream.stream.acknowledge(stream.asks(2, then=InvalidRequestError("request", "bad")))
    assert [next(answers).number, next(answers).number] == [0, 1]
    with pytest.raises(InvalidRequestError):
        next(answers)


def test_log_that_does_not_answer_in_time_fails_the_request_and_not_the_stream(start):
    stream = start(log_timeout_ms=50)
    answers = stream.stream.acknowledge(stream.asks(2))
    first = next(answers)
    assert isinstance(first.error, LogUnavailableError)
    assert first.event_ids == ()
    assert next(answers).number == 1
    assert list(answers) == []


def test_stream_ends_when_the_server_drains_and_when_the_caller_has_gone(start):
    def nothing_more():
        yield from ()
        gone.wait(20)

    for end in ("draining", "over"):
        gone = threading.Event()
        stream = start()
        answers = stream.stream.acknowledge(nothing_more())
        getattr(stream, end).set()
        if end == "draining":
            with pytest.raises(StoppingError):
                next(answers)
        else:
            assert list(answers) == []
        gone.set()
