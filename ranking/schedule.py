"""Step sizes for a stream that never ends: larger or smaller at first, never zero later."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from domain.errors import ConfigError

Kind = Literal["constant", "inverse_sqrt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """How the step sizes of dense weights and rows change with the steps taken."""

    kind: Kind = "constant"
    """"constant": the configured sizes. "inverse_sqrt": falling as 1 / sqrt(steps) from
    `decay_after` steps on, down to `floor`."""
    warmup_steps: int = 0
    """Steps over which sizes rise to the configured ones, in a straight line; 0 begins with
    them."""
    decay_after: int = 1_000
    """Steps after which "inverse_sqrt" begins to fall."""
    floor: float = 0.2
    """Smallest share of the configured sizes: with less, the model would stop following."""

    def __post_init__(self) -> None:
        if self.kind not in ("constant", "inverse_sqrt"):
            raise ConfigError(
                f"ranking.schedule.kind must be constant or inverse_sqrt, got {self.kind!r}"
            )
        if self.warmup_steps < 0:
            raise ConfigError(
                f"ranking.schedule.warmup_steps must not be negative, got {self.warmup_steps}"
            )
        if self.decay_after < 1:
            raise ConfigError(
                f"ranking.schedule.decay_after must be at least 1, got {self.decay_after}"
            )
        if not 0.0 < self.floor <= 1.0:
            raise ConfigError(
                f"ranking.schedule.floor must be above 0 and at most 1, got {self.floor}"
            )


def rate_factor(config: ScheduleConfig, steps: int) -> float:
    """Return the share of the configured step size for the step after `steps` were taken.

    >>> config = ScheduleConfig(kind="inverse_sqrt", warmup_steps=4, decay_after=100, floor=0.25)
    >>> [rate_factor(config, steps) for steps in (0, 3, 100, 400, 10_000_000)]
    [0.25, 1.0, 1.0, 0.5, 0.25]
    """
    warm = min(1.0, (steps + 1) / max(config.warmup_steps, 1))
    if config.kind == "constant" or steps <= config.decay_after:
        return warm
    return min(warm, max(config.floor, math.sqrt(config.decay_after / steps)))
