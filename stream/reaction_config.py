"""Which drift signals the trainer answers by itself, and how. Everything is off by default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from domain.errors import ConfigError
from monitoring.drift_signal import SEVERITIES, Severity

_QUALITY = ("loss/", "ne/", "auc/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """What a reaction answers.

    Attributes:
        enabled: one line switches it on.
        on: beginnings of the names of streams whose signals it answers.
        min_severity: smaller signals are left alone: small, medium or large.
        pause_ms: event time between two of these reactions, whatever happens.
    """

    enabled: bool = False
    on: tuple[str, ...] = _QUALITY
    min_severity: Severity = "large"
    pause_ms: int = 600_000

    def check(self, key: str) -> None:
        """Raise ConfigError when a value is out of range."""
        if not self.on or not all(self.on):
            raise ConfigError(f"{key}.on must name at least one stream, got {list(self.on)}")
        if self.min_severity not in SEVERITIES:
            raise ConfigError(
                f"{key}.min_severity must be one of {', '.join(SEVERITIES)}, "
                f"got {self.min_severity!r}"
            )
        if self.pause_ms < 0:
            raise ConfigError(f"{key}.pause_ms must not be negative, got {self.pause_ms}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedTrigger(Trigger):
    """A trigger of something that lasts for a while and then ends by itself.

    Attributes:
        factor: what is multiplied meanwhile.
        for_ms: event time that it lasts.
    """

    factor: float = 1.0
    for_ms: int = 600_000

    def check(self, key: str) -> None:
        """Raise ConfigError when a value is out of range."""
        # A dataclass with slots is a new class: `super()` without arguments knows the old one.
        Trigger.check(self, key)
        if not (0.0 < self.factor < math.inf):
            raise ConfigError(f"{key}.factor must be positive, got {self.factor}")
        if self.for_ms < 1:
            raise ConfigError(f"{key}.for_ms must be at least 1, got {self.for_ms}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FasterLearning(TimedTrigger):
    """Multiplies the learning rates of ranker and towers."""

    factor: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShorterMemory(TimedTrigger):
    """Multiplies the half-life of the error memory."""

    factor: float = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildIndex(Trigger):
    """Builds the retrieval index anew."""

    on: tuple[str, ...] = ("vectors/",)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldPromotion(Trigger):
    """Keeps what is served as it is until the signals have ended."""

    on: tuple[str, ...] = (*_QUALITY, "calibration/", "field/", "dead_letters")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactionsConfig:
    """What the trainer does by itself about drift.

    Attributes:
        faster_learning: learns with larger steps for a while.
        shorter_memory: lets the error memory forget faster for a while.
        reset_memory: empties the error memory.
        rebuild_index: builds the retrieval index anew.
        hold_promotion: keeps what is served as it is until the signals have ended.
        roll_back: serves the newest snapshot from before the change, until the signals have ended.
    """

    faster_learning: FasterLearning = field(default_factory=FasterLearning)
    shorter_memory: ShorterMemory = field(default_factory=ShorterMemory)
    reset_memory: Trigger = field(default_factory=Trigger)
    rebuild_index: RebuildIndex = field(default_factory=RebuildIndex)
    hold_promotion: HoldPromotion = field(default_factory=HoldPromotion)
    roll_back: Trigger = field(default_factory=Trigger)

    def __post_init__(self) -> None:
        for name in self.__slots__:
            getattr(self, name).check(f"reactions.{name}")
