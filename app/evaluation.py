"""Is learning worth it: a live trainer beside a copy of itself that stopped learning."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.errors import ConfigError
from ranking.learner import RankingModel
from replay.prequential import Prequential
from replay.variants import FrozenVariant, MemoryVariant, OnlineVariant
from stream.train_loop import TrainLoop

_FOR_EVER_MS = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Whether, and how, a trainer compares itself with a frozen copy.

    Attributes:
        freeze_at_ms: event time at which a copy of the ranker stops learning and is scored beside
            the live one from then on; 0 is off.
        report: file that the comparison is written to when the trainer stops.
        window_ms: event time per point of its curves.
        max_examples: examples compared; what comes after is not recorded.
        next_item: whether a replay ranks next items by counting as well, over a grid of half-lives,
            and searches the index for some of them; it takes up to twice as long.
    """

    freeze_at_ms: int = 0
    report: str = ""
    window_ms: int = 5_000
    max_examples: int = 1_000_000
    next_item: bool = False

    def __post_init__(self) -> None:
        if self.freeze_at_ms and not self.report:
            raise ConfigError("evaluation.report must name a file when freeze_at_ms is set")
        for name in ("window_ms", "max_examples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluation.{name} must be positive, got {getattr(self, name)}")


class FrozenComparison:
    """Records what the live ranker and its frozen copy predict, and writes the comparison."""

    def __init__(self, config: EvaluationConfig, ranking: RankingModel) -> None:
        self._config = config
        frozen = FrozenVariant(
            ranking.copy, lambda demand: demand.request.time_ms >= config.freeze_at_ms
        )
        self.observer = Prequential([frozen, OnlineVariant(), MemoryVariant()], config.max_examples)

    def write(self, loop: TrainLoop) -> None:
        """Write the comparison as JSON."""
        config, seen = self._config, self.observer
        first_ms, last_ms = seen.span_ms()
        starts = range(config.freeze_at_ms, last_ms + 1, config.window_ms)
        earlier = range(config.freeze_at_ms - config.window_ms, first_ms - 1, -config.window_ms)
        report: dict[str, Any] = {
            "events": loop.counts.events,
            "examples": loop.counts.examples,
            "duplicates": loop.counts.duplicates,
            "late": loop.counts.late,
            "steps": loop.counts.steps,
            "freeze_at_ms": config.freeze_at_ms,
            "before": seen.between(0, config.freeze_at_ms),
            "after": seen.between(config.freeze_at_ms, _FOR_EVER_MS),
            "curve": [
                {"from_ms": start, "variants": seen.between(start, start + config.window_ms)}
                for start in [*reversed(earlier), *starts]
            ],
        }
        Path(config.report).write_text(json.dumps(report, indent=1) + "\n")
