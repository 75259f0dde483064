"""Watermark: the event time before which we no longer wait for events."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

from domain.errors import ConfigError
from domain.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class WatermarkConfig:
    """How long we wait for events that are out of order.

    Attributes:
        allowed_lateness_ms: how far the watermark trails behind the newest event.
        max_jump_ms: an event further ahead of the newest one than this is not believed at once;
            0 believes every event.
        confirmations: how many more such events in a row make one of them believed.
    """

    allowed_lateness_ms: int = 10_000
    max_jump_ms: int = 60 * 60 * 1000
    confirmations: int = 8

    def __post_init__(self) -> None:
        for name, least in (("allowed_lateness_ms", 0), ("max_jump_ms", 0), ("confirmations", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"watermark.{name} must be at least {least}, got {getattr(self, name)}"
                )


class Watermark:
    """Follows the newest event time that can be believed; never goes back.

    One event with a broken clock must not move time: the watermark could never return, and every
    honest event after it would be late. So an event more than `max_jump_ms` ahead of the newest is
    only remembered. When `confirmations` more such events follow, with no event in between that
    moves time on in the ordinary way, the earliest of them is believed, and the rest are looked at
    again from there. That gets through the gap of a silent night, and through logs whose every
    step is longer than `max_jump_ms`, always trailing by the last `confirmations` events.

    The first event of all has nothing to be compared with: the watermark waits for the second.

    Attributes:
        late: events that were older than the watermark when they arrived.
        jumps: events that were not believed at once.

    >>> watermark = Watermark(WatermarkConfig(allowed_lateness_ms=10, max_jump_ms=100))
    >>> [watermark.observe(time_ms) for time_ms in (1_000, 1_050, 9_000_000, 1_060, 1_020)]
    [False, False, False, False, True]
    >>> watermark.time_ms, watermark.jumps, watermark.late
    (1050, 1, 1)
    """

    def __init__(self, config: WatermarkConfig | None = None) -> None:
        self._config = config or WatermarkConfig()
        self._newest_ms = 0
        self._num_events = 0  # counted up to 2
        self._suspects: list[int] = []  # ascending, at most `confirmations`
        self.late = 0
        self.jumps = 0

    @property
    def newest_ms(self) -> int:
        """Return the newest believed event time, 0 before the first event."""
        return self._newest_ms

    @property
    def time_ms(self) -> int:
        """Return the watermark, 0 before there is one."""
        if self._num_events < 2 and self._config.max_jump_ms:
            return 0
        return max(self._newest_ms - self._config.allowed_lateness_ms, 0)

    def observe(self, time_ms: int) -> bool:
        """Take in an event time; return whether the event is late."""
        late = time_ms < self.time_ms
        self.late += late
        if not self._config.max_jump_ms:
            self._newest_ms = max(self._newest_ms, time_ms)
        elif self._num_events < 2:
            self._begin(time_ms)
        elif time_ms > self._newest_ms + self._config.max_jump_ms:
            self._suspect(time_ms)
        elif time_ms > self._newest_ms:
            self._newest_ms = time_ms
            self._suspects.clear()
        return late

    def _begin(self, time_ms: int) -> None:
        """Take in the first two events: of two that are far apart, the earlier is believed."""
        self._num_events += 1
        if self._num_events == 1:
            self._newest_ms = time_ms
            return
        earlier, later = sorted((self._newest_ms, time_ms))
        self._newest_ms = earlier
        if later - earlier > self._config.max_jump_ms:
            self._suspect(later)
        else:
            self._newest_ms = later

    def _suspect(self, time_ms: int) -> None:
        self.jumps += 1
        insort(self._suspects, time_ms)
        if len(self._suspects) <= self._config.confirmations:
            return
        self._newest_ms = self._suspects.pop(0)
        while self._suspects and self._suspects[0] - self._newest_ms <= self._config.max_jump_ms:
            self._newest_ms = self._suspects.pop(0)

    def save(self) -> State:
        """Return everything `load` needs."""
        return {
            "newest_ms": self._newest_ms,
            "num_events": self._num_events,
            "suspects": list(self._suspects),
            "late": self.late,
            "jumps": self.jumps,
        }

    def load(self, state: State) -> None:
        """Become what `save` described."""
        self._newest_ms = state["newest_ms"]
        self._num_events = state["num_events"]
        self._suspects = list(state["suspects"])
        self.late = state["late"]
        self.jumps = state["jumps"]
