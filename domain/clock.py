"""The only source of time: event code asks a Clock, never the operating system.

`SystemClock` is for live processes; `ManualClock` for replays and tests, where processing time is
whatever the log says it is. A test keeps every other module from reading a clock of its own.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Processing time, a stopwatch and a way to wait."""

    def now_ms(self) -> int:
        """Return processing time in ms since 1970 UTC."""

    def stopwatch_s(self) -> float:
        """Return seconds on a clock that never goes back; only differences mean anything."""

    def sleep(self, seconds: float) -> None:
        """Wait for `seconds` of processing time."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return the machine's time in ms since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def stopwatch_s(self) -> float:
        """Return the machine's monotonic time in seconds."""
        return time.perf_counter()

    def cpu_s(self) -> float:
        """Return seconds of CPU time this process has used, whoever else uses the machine."""
        return time.process_time()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for `seconds`."""
        time.sleep(seconds)


class ManualClock:
    """A clock that moves only when told to; it never goes back.

    >>> clock = ManualClock(1_000)
    >>> clock.advance_to(2_500); clock.advance_to(2_000)
    >>> clock.now_ms()
    2500
    """

    def __init__(self, start_ms: int = 0) -> None:
        self._now_ms = start_ms

    def now_ms(self) -> int:
        """Return the time last set, in ms."""
        return self._now_ms

    def stopwatch_s(self) -> float:
        """Return the time last set, in seconds."""
        return self._now_ms / 1_000

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds` at once."""
        self._now_ms += int(seconds * 1_000)

    def advance_to(self, time_ms: int) -> None:
        """Move forward to `time_ms`; an earlier time changes nothing."""
        self._now_ms = max(self._now_ms, time_ms)
