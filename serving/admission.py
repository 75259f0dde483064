"""Who may come in, and until when: deadlines and bounded concurrency for the request path."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from domain.clock import Clock, SystemClock
from domain.errors import DeadlineExceededError, OverloadedError
from serving import cancellation

_ANSWER_S = 0.1
"""Time for an answer to be made and to travel."""

_FIRST_INSIDE_S = 0.1
"""How long requests are thought to stay before one has left."""

_NEWEST_WEIGHT = 0.1
"""Share of the newest request in the running mean of how long they stay."""

_LEAST_RETRY_S = 0.01
"""Sooner than this nobody needs to be asked to come again."""


_LOOK_S = 0.05
"""How often who waits for a turn looks whether its caller is still there."""


def answerable_s(deadline_s: float) -> float:
    """Return how long one may wait for something and still say in time that it did not come.

    >>> answerable_s(2.0), answerable_s(0.5)
    (1.9, 0.45)
    """
    return deadline_s - min(_ANSWER_S, deadline_s / 10)


class Deadline:
    """The moment after which an answer is of no use to the caller."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._end_s = clock.stopwatch_s() + seconds

    def remaining_s(self) -> float:
        """Return the seconds left, 0.0 when none are."""
        return max(self._end_s - self._clock.stopwatch_s(), 0.0)

    def check(self, stage: str) -> None:
        """Go on only while there is time, and somebody who waits.

        Raises:
            DeadlineExceededError: naming the stage that there was no time for.
            CallCancelledError: naming the stage that nobody waits for any more.
        """
        if self.remaining_s() <= 0.0:
            raise DeadlineExceededError(f"the deadline passed before {stage}")
        cancellation.check(stage)


class Admission:
    """Bounds how many requests are inside, and how many of them use the models at once.

    Refusing costs microseconds; letting everybody in costs everybody their deadline.
    """

    def __init__(self, max_concurrency: int, max_waiting: int, clock: Clock | None = None) -> None:
        self.capacity = max_concurrency + max_waiting
        self._turns = threading.BoundedSemaphore(max_concurrency)
        self._inside = 0
        self._inside_s = _FIRST_INSIDE_S
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Be one of at most `capacity` requests inside.

        Raises:
            OverloadedError: at once, when there are that many already; says when one of them will
                have left, going by how long they stayed lately.
        """
        with self._lock:
            if self._inside >= self.capacity:
                raise OverloadedError(
                    f"{self._inside} requests are running or waiting, which is the most allowed",
                    retry_after_s=max(self._inside_s, _LEAST_RETRY_S),
                )
            self._inside += 1
        entered_s = self._clock.stopwatch_s()
        try:
            yield
        finally:
            stayed_s = self._clock.stopwatch_s() - entered_s
            with self._lock:
                self._inside -= 1
                self._inside_s += _NEWEST_WEIGHT * (stayed_s - self._inside_s)

    @contextmanager
    def turn(self, deadline: Deadline) -> Iterator[None]:
        """Be one of at most `max_concurrency` requests that use the models.

        Raises:
            DeadlineExceededError: no turn came in time.
            CallCancelledError: the caller went away first, and so gives up its place.
        """
        while not self._turns.acquire(timeout=min(deadline.remaining_s(), _LOOK_S)):
            if deadline.remaining_s() <= 0.0:
                raise DeadlineExceededError("the deadline passed while waiting for a turn")
            cancellation.check("its turn came")
        try:
            yield
        finally:
            self._turns.release()
