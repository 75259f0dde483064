"""Instruments of freshness: how soon what happens, and what is learned of it, changes answers."""

from __future__ import annotations

from monitoring.instruments import Maker

FRESHNESS_PATHS = ("history", "weights")
# From an event to what users see of it: the targets are 50 ms, 500 ms and 5 s.
FRESHNESS_BUCKETS_S = (
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0
)  # fmt: skip
# A delta holds the models for parts of a millisecond, or every request waits too long.
HOLD_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class FreshnessMetrics:
    """Deltas that came, and the time from an event to answers that know of it."""

    def __init__(self, make: Maker) -> None:
        self.deltas_applied = make.counter(
            "serving_deltas_applied_total", "Deltas that live models were led on by."
        )
        self.deltas_refused = make.counter(
            "serving_deltas_refused_total", "Deltas found unfit and not applied."
        )
        self.delta_gaps = make.counter(
            "serving_delta_gaps_total", "Times the next delta was gone, so a snapshot had to do."
        )
        self.delta_apply_seconds = make.histogram(
            "serving_delta_apply_seconds", "Time a delta held the models.", HOLD_BUCKETS_S
        )
        self.seconds = make.histogram(
            "serving_freshness_seconds",
            "Event time to visible in answers, through histories or through weights.",
            FRESHNESS_BUCKETS_S,
            path=FRESHNESS_PATHS,
        )
        self.missed = make.counter(
            "serving_freshness_missed_total",
            "Events and deltas that became visible later than the target.",
            path=FRESHNESS_PATHS,
        )

    def observe(self, path: str, seconds: float, target_s: float) -> None:
        """Take note of how long something took to become visible, and whether that is too long."""
        self.seconds.labels(path=path).observe(seconds)
        if seconds > target_s:
            self.missed.labels(path=path).inc()
