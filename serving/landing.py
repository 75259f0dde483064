"""Stored events to the live feature store at once, ahead of the tail.

Whoever was told that an action is stored may ask in the same millisecond, so the tail, which reads
the log in turns, is too late. What is stored through this server is therefore taken in before it is
acknowledged; when the tail comes to it, its id is known and it changes nothing. Other servers learn
of it from their own tails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from domain.clock import Clock
from domain.events import Event, Impression
from monitoring.freshness_metrics import FreshnessMetrics
from serving.apply_events import Applied, Arrival, apply_arrivals
from serving.live_models import LiveModels, LiveModelSlot

_MOST_PENDING = 20_000
"""Events remembered until the tail has read them, for the next bundle of models. More of them mean
that the log takes events and gives none back; the oldest are then left to the tail."""


class Landing:
    """Takes stored events in; safe from several threads.

    Args:
        target_s: age of an event above which it counts as late.
    """

    def __init__(
        self, slot: LiveModelSlot, clock: Clock, target_s: float, metrics: FreshnessMetrics
    ) -> None:
        self._slot = slot
        self._clock = clock
        self._target_s = target_s
        self._metrics = metrics
        self._lock = threading.Lock()
        self._pending: dict[str, Event] = {}

    @property
    def num_pending(self) -> int:
        """Return how many events the tail has not come to yet."""
        return len(self._pending)

    def land(self, events: Sequence[Event]) -> None:
        """Take events in that the log has just stored; shown lists are left to the tail."""
        own = [event for event in events if not isinstance(event, Impression)]
        if not own:
            return
        with self._lock:
            for event in own:
                self._pending[event.event_id] = event
            for event_id in list(islice(self._pending, max(self.num_pending - _MOST_PENDING, 0))):
                del self._pending[event_id]
            models = self._slot.live
            if models is not None:
                self.show(apply_arrivals(models, map(Arrival, own)))

    def passed(self, event_ids: Iterable[str]) -> None:
        """Forget events that the tail has read."""
        with self._lock:
            for event_id in event_ids:
                self._pending.pop(event_id, None)

    def hand_over(self, models: LiveModels, swap: Callable[[], None]) -> None:
        """Take what the tail has not read into a new bundle, and make it live."""
        with self._lock:
            apply_arrivals(models, map(Arrival, self._pending.values()))
            swap()

    def show(self, applied: Applied) -> None:
        """Note how old events were when histories and catalog had them."""
        now_ms = self._clock.now_ms()
        for time_ms in applied.times_ms:
            self._metrics.observe("history", max(now_ms - time_ms, 0) / 1_000, self._target_s)
