"""What the trainer does by itself about drift, where the settings say so.

Reactions are a function of the log and the settings: they are decided in the loop, on event time,
from signals that are found in the loop. So a replay with the same settings does the same at the
same place, and so does a trainer that goes on from a snapshot. What concerns serving alone (which
snapshot is current) is only asked for here and done by whoever publishes snapshots.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from domain.errors import ConfigError
from domain.state import State
from monitoring.drift_signal import SEVERITIES, DriftSignal
from monitoring.field_report import FieldDistribution, FieldWindow
from monitoring.metrics import Metrics
from monitoring.reactions import REACTIONS, Reaction, ReactionName, ReactionSink
from stream.reaction_config import ReactionsConfig, TimedTrigger, Trigger

logger = logging.getLogger(__name__)

_SERVING: tuple[ReactionName, ...] = ("hold_promotion", "roll_back")
_NEVER_MS = -(2**63)


class LearnsAtARate(Protocol):
    """A learner whose steps can be made larger for a while."""

    def scale_learning_rate(self, factor: float) -> None:
        """Multiply the configured learning rates by this from now on; 1 is as configured."""


class Towers(LearnsAtARate, Protocol):
    """A retrieval learner, as far as reactions go."""

    def rebuild_index(self) -> None:
        """Build the index anew from the vectors as they are."""


class Memory(Protocol):
    """An error memory, as far as reactions go."""

    def reset(self) -> None:
        """Forget what was written."""

    def scale_half_life(self, factor: float) -> None:
        """Multiply the configured half-life by this from now on; 1 is as configured."""

    @property
    def forgets(self) -> bool:
        """Return whether there is a half-life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactionParts:
    """What reactions act on, and who hears of them."""

    ranking: LearnsAtARate
    retrieval: Towers
    memory: Memory
    metrics: Metrics
    sinks: Sequence[ReactionSink] = field(default=())


class Reactions:
    """Hears of drift signals and does what the settings say; a `DriftSink`."""

    def __init__(self, config: ReactionsConfig, parts: ReactionParts) -> None:
        if config.shorter_memory.enabled and not parts.memory.forgets:
            raise ConfigError(
                "reactions.shorter_memory needs a memory that forgets: memory.half_life_ms is unset"
            )
        self._parts = parts
        self._triggers: dict[ReactionName, Trigger] = {
            name: getattr(config, name) for name in REACTIONS if getattr(config, name).enabled
        }
        self._newest_ms = _NEVER_MS
        self._done_ms: dict[ReactionName, int] = {}
        self._until_ms: dict[ReactionName, int] = {}
        self._answered: dict[ReactionName, set[str]] = {name: set() for name in self._triggers}
        self._roll_back_ms: int | None = None

    @property
    def holding(self) -> bool:
        """Return whether new snapshots are not to be served for now."""
        return any(self._answered[name] for name in _SERVING if name in self._answered)

    def take_roll_back_ms(self) -> int | None:
        """Return once, when it is asked for, the event time before which all was well."""
        asked, self._roll_back_ms = self._roll_back_ms, None
        return asked

    def write_signals(self, signals: Sequence[DriftSignal]) -> None:
        """Answer signals that are new or have grown; take note of those that have ended."""
        for signal in signals:
            for name, trigger in self._triggers.items():
                if signal.ended_ms is not None:
                    self._answered[name].discard(_key(signal))
                elif self._concerns(name, trigger, signal):
                    if name in _SERVING and self._answered[name]:
                        # What is held already is held until this signal has ended, too.
                        self._answered[name].add(_key(signal))
                    elif self._is_rested(name, trigger, signal):
                        self._react(name, trigger, signal)
        self._report()

    def write_fields(
        self, windows: Sequence[FieldWindow], distributions: Sequence[FieldDistribution]
    ) -> None:
        """Do nothing: reactions answer signals."""

    def advance(self, newest_ms: int) -> None:
        """End what has lasted long enough; called before every learning step."""
        self._newest_ms = max(self._newest_ms, newest_ms)
        ended = [name for name, until_ms in self._until_ms.items() if self._newest_ms >= until_ms]
        for name in ended:
            del self._until_ms[name]
            self._scale(name, 1.0)
            logger.info("reaction ended", extra={"reaction": name, "time_ms": self._newest_ms})
        if ended:
            self._report()

    def _concerns(self, name: ReactionName, trigger: Trigger, signal: DriftSignal) -> bool:
        """Return whether a signal is one to answer that was not answered yet."""
        return (
            signal.stream.startswith(trigger.on)
            and SEVERITIES.index(signal.severity) >= SEVERITIES.index(trigger.min_severity)
            and _key(signal) not in self._answered[name]
        )

    def _is_rested(self, name: ReactionName, trigger: Trigger, signal: DriftSignal) -> bool:
        return signal.time_ms - self._done_ms.get(name, _NEVER_MS) >= trigger.pause_ms

    def _react(self, name: ReactionName, trigger: Trigger, signal: DriftSignal) -> None:
        now_ms = signal.time_ms
        self._answered[name].add(_key(signal))
        self._done_ms[name] = now_ms
        until_ms = None
        if isinstance(trigger, TimedTrigger):
            until_ms = self._until_ms[name] = now_ms + trigger.for_ms
            self._scale(name, trigger.factor)
        match name:
            case "reset_memory":
                self._parts.memory.reset()
            case "rebuild_index":
                self._parts.retrieval.rebuild_index()
            case "roll_back":
                self._roll_back_ms = signal.since_ms
        reaction = Reaction(
            name=name,
            time_ms=now_ms,
            stream=signal.stream,
            cause=signal.describe(),
            until_ms=until_ms,
        )
        self._parts.metrics.monitoring.reactions.done.labels(reaction=name).inc()
        logger.warning(
            f"reaction to drift: {reaction.describe()}",
            extra={"reaction": name, "stream": signal.stream, "time_ms": now_ms},
        )
        for sink in self._parts.sinks:
            sink.write_reactions([reaction])

    def _scale(self, name: ReactionName, factor: float) -> None:
        if name == "faster_learning":
            self._parts.ranking.scale_learning_rate(factor)
            self._parts.retrieval.scale_learning_rate(factor)
        else:
            self._parts.memory.scale_half_life(factor)

    def _report(self) -> None:
        for name in self._triggers:
            is_on = name in self._until_ms or (name in _SERVING and bool(self._answered[name]))
            self._parts.metrics.monitoring.reactions.on.labels(reaction=name).set(is_on)

    def save(self) -> State:
        """Return what must survive a restart."""
        return {
            "newest_ms": self._newest_ms,
            "done_ms": dict(self._done_ms),
            "until_ms": dict(self._until_ms),
            "answered": {name: sorted(keys) for name, keys in self._answered.items()},
        }

    def load(self, state: State) -> None:
        """Become what `save` described, as far as today's settings have the same reactions."""
        self._newest_ms = state["newest_ms"]
        self._done_ms = {one: ms for one, ms in state["done_ms"].items() if one in self._triggers}
        self._until_ms = {one: ms for one, ms in state["until_ms"].items() if one in self._triggers}
        self._answered = {name: set(state["answered"].get(name, ())) for name in self._triggers}
        for name in self._until_ms:
            trigger = self._triggers[name]
            assert isinstance(trigger, TimedTrigger)
            self._scale(name, trigger.factor)
        self._report()


def _key(signal: DriftSignal) -> str:
    return f"{signal.stream} {signal.detector} {signal.since_ms}"
