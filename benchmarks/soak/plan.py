"""What a soak is made of: a world of fixed size, a steady rate, and bounds that fill up early."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from replay.scenarios import Population, Scenario, Traffic

PARTITIONS = 4

# Every buffer of the trainer that grows with the events seen has a bound. At 500 events a second
# the defaults are reached after half an hour (a million event ids) or more; these within five
# minutes, so that all but the first minutes of a soak show a trainer whose buffers are full.
SETTINGS = (
    "deduplicator.max_ids=100_000",
    "deduplicator.horizon_ms=180_000",
    "joiner.attribution_window_ms=60_000",
    "joiner.max_closed=20_000",
    "watermark.allowed_lateness_ms=2_000",
    "batcher.linger_ms=5_000",
    "feature_store.seen_length=64",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakPlan:
    """Traffic of a soak.

    Attributes:
        rate: events per second: half through gRPC, half straight to Kafka.
        recommend_rate: Recommend calls per second beside them.
        start_ms: when the first user comes.
    """

    minutes: float
    rate: float
    start_ms: int
    recommend_rate: float = 4.0
    seed: int = 1

    @property
    def scenario(self) -> Scenario:
        """Return a world that neither grows nor shrinks nor changes its taste."""
        duration_s = 60.0 * self.minutes
        return Scenario(
            id="soak",
            description="500 users and 1,000 items, always the same",
            seed=self.seed,
            start_ms=self.start_ms,
            duration_ms=int(1_000 * duration_s),
            population=Population(
                num_users=500, newcomer_users=0.0, newcomer_items=0.0, withdrawn_items=0.0
            ),
            traffic=Traffic(
                num_lists=int(duration_s * self.rate / _EVENTS_PER_LIST),
                list_size=10,
                feedback_delay_ms=10_000,
                max_feedback_delay_ms=50_000,
                # One list a visit: the rate is the same from the first minute to the last.
                lists_per_session=1.0,
            ),
        )

    def write(self, path: Path) -> None:
        """Write the plan for the processes that make the traffic."""
        path.write_text(json.dumps(asdict(self)))


_EVENTS_PER_LIST = 4.43
"""A list of ten items is one event, and 3.43 clicks and likes come of it in this world: counted."""


def read_plan(path: Path) -> SoakPlan:
    """Return what `SoakPlan.write` wrote."""
    return SoakPlan(**json.loads(path.read_text()))
