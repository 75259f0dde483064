"""What the demo does when: the world, its timing, and the settings that fit a two-minute life."""

from __future__ import annotations

from dataclasses import dataclass

from domain.errors import ConfigError
from replay.scenarios import Population, Scenario, TasteChange, Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """Timing of a demo with simulated users.

    Attributes:
        seconds: how long users come; their taste changes half-way.
        lists_per_second: lists shown per second, all users together.
        explored: share of the lists that a random policy shows instead of the server, so that
            quality is measured on more than what the models already like.
        list_size: items per list.
    """

    seconds: int = 100
    lists_per_second: float = 40.0
    explored: float = 0.5
    list_size: int = 10
    seed: int = 7

    def __post_init__(self) -> None:
        if self.seconds < 20:
            raise ConfigError(f"--seconds: at least 20 are needed to learn, got {self.seconds}")

    def scenario(self, start_ms: int) -> Scenario:
        """Return the world, beginning at `start_ms`; same seed, same world."""
        return Scenario(
            id="demo",
            description="everyone wants something else, half-way, from one moment to the next",
            seed=self.seed,
            start_ms=start_ms,
            duration_ms=self.seconds * 1_000,
            population=Population(num_users=600, num_items=1_500, newcomer_users=0.1),
            traffic=Traffic(
                list_size=self.list_size,
                feedback_delay_ms=300,
                max_feedback_delay_ms=1_500,
                # So many that everyone is there all the time: nothing but taste changes half-way.
                visitors=5_000,
            ),
            changes=(TasteChange(at=0.5),),
        )


# Users of the demo act within 1.5 s, so a label is known after 2.
FAST_LABELS = (
    "joiner.attribution_window_ms=2000",
    "watermark.allowed_lateness_ms=200",
    "batcher.linger_ms=500",
    "batcher.max_examples=64",
    "checkpoint.every_s=3",
    # Counters and memory forget within the demo's life, as they do within days in a real one.
    "ranking.counters.half_life_ms=20000",
    "memory.half_life_ms=20000",
    "snapshot.keep=3",
    "metrics.trainer_port=0",
    "metrics.server_port=0",
)
