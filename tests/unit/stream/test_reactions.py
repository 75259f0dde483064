"""What is done about drift: when, for how long, and the same after a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from domain.errors import ConfigError
from monitoring.drift_signal import DriftSignal
from monitoring.metrics import Metrics
from monitoring.reactions import ReactionList
from stream.reaction_config import (
    FasterLearning,
    HoldPromotion,
    ReactionsConfig,
    RebuildIndex,
    ShorterMemory,
    Trigger,
)
from stream.reactions import ReactionParts, Reactions

MINUTE_MS = 60_000


class Learner:
    """Writes down what reactions ask of a ranker, of towers and of a memory."""

    def __init__(self, *, forgets: bool = True) -> None:
        self.forgets = forgets
        self.asked: list[Any] = []

    def scale_learning_rate(self, factor: float) -> None:
        self.asked.append(("rate", factor))

    def scale_half_life(self, factor: float) -> None:
        self.asked.append(("half-life", factor))

    def reset(self) -> None:
        self.asked.append("reset")

    def rebuild_index(self) -> None:
        self.asked.append("rebuild")


class World:
    """Reactions of a configuration, on learners that write down what is asked of them."""

    def __init__(self, *, forgets: bool = True, **triggers: Trigger) -> None:
        self.ranking, self.retrieval = Learner(), Learner()
        self.memory = Learner(forgets=forgets)
        self.told = ReactionList()
        self.metrics = Metrics()
        parts = ReactionParts(
            ranking=self.ranking,
            retrieval=self.retrieval,
            memory=self.memory,
            metrics=self.metrics,
            sinks=[self.told],
        )
        self.reactions = Reactions(ReactionsConfig(**triggers), parts)  # type: ignore[arg-type]

    def is_on(self, reaction: str) -> float | None:
        name = "headrace_monitoring_reaction_on"
        return self.metrics.registry.get_sample_value(name, {"reaction": reaction})


LOUD = DriftSignal(
    stream="loss/online/click",
    kind="concept",
    detector="page_hinkley",
    time_ms=10 * MINUTE_MS,
    since_ms=9 * MINUTE_MS,
    before=0.2,
    after=0.4,
    deviations=8.0,
    points_before=100,
    points_after=10,
)
QUIET = replace(LOUD, deviations=2.0)


def test_nothing_is_done_unless_it_was_switched_on() -> None:
    world = World()
    world.reactions.write_signals([LOUD])
    assert world.told.reactions == []
    assert world.ranking.asked == world.memory.asked == []
    assert not world.reactions.holding
    assert world.reactions.take_roll_back_ms() is None


def test_faster_learning_lasts_for_its_time_and_ends() -> None:
    world = World(faster_learning=FasterLearning(enabled=True, factor=2.0, for_ms=5 * MINUTE_MS))
    world.reactions.write_signals([LOUD])
    assert world.ranking.asked == world.retrieval.asked == [("rate", 2.0)]
    assert world.is_on("faster_learning") == 1.0

    world.reactions.advance(15 * MINUTE_MS - 1)
    assert len(world.ranking.asked) == 1
    world.reactions.advance(15 * MINUTE_MS)
    assert world.ranking.asked == world.retrieval.asked == [("rate", 2.0), ("rate", 1.0)]
    assert world.is_on("faster_learning") == 0.0
    world.reactions.advance(16 * MINUTE_MS)
    assert len(world.ranking.asked) == 2


def test_what_was_done_is_told_with_its_cause() -> None:
    world = World(faster_learning=FasterLearning(enabled=True))
    world.reactions.write_signals([LOUD])
    (told,) = world.told.reactions
    assert (told.name, told.time_ms, told.until_ms) == (
        "faster_learning",
        10 * MINUTE_MS,
        20 * MINUTE_MS,
    )
    assert told.describe() == f"learns faster for 600 s, because {LOUD.describe()}"


def test_small_signal_is_left_alone_until_it_has_grown_and_answered_once() -> None:
    world = World(reset_memory=Trigger(enabled=True, pause_ms=0))
    world.reactions.write_signals([QUIET])
    assert world.memory.asked == []
    world.reactions.write_signals([LOUD])
    world.reactions.write_signals([replace(LOUD, deviations=12.0)])
    assert world.memory.asked == ["reset"]


def test_other_streams_are_left_alone() -> None:
    world = World(rebuild_index=RebuildIndex(enabled=True))
    world.reactions.write_signals([LOUD])
    assert world.retrieval.asked == []
    world.reactions.write_signals([replace(LOUD, stream="vectors/neighbours", kind="model")])
    assert world.retrieval.asked == ["rebuild"]


def test_second_signal_within_the_pause_is_not_answered() -> None:
    world = World(reset_memory=Trigger(enabled=True, pause_ms=5 * MINUTE_MS))
    for minute in (10, 14, 16):
        signal = replace(LOUD, time_ms=minute * MINUTE_MS, since_ms=(minute - 1) * MINUTE_MS)
        world.reactions.write_signals([signal])
    assert world.memory.asked == ["reset", "reset"]
    assert [one.time_ms for one in world.told.reactions] == [10 * MINUTE_MS, 16 * MINUTE_MS]


def test_nothing_new_is_served_until_every_signal_has_ended() -> None:
    world = World(hold_promotion=HoldPromotion(enabled=True, pause_ms=0))
    other = replace(LOUD, stream="dead_letters", kind="stream")
    world.reactions.write_signals([LOUD, other])
    assert world.reactions.holding
    world.reactions.write_signals([replace(LOUD, ended_ms=20 * MINUTE_MS)])
    assert world.reactions.holding
    world.reactions.write_signals([replace(other, ended_ms=21 * MINUTE_MS)])
    assert not world.reactions.holding
    assert world.is_on("hold_promotion") == 0.0


def test_what_is_held_waits_for_signals_that_came_within_the_pause_too() -> None:
    world = World(hold_promotion=HoldPromotion(enabled=True, pause_ms=60 * MINUTE_MS))
    other = replace(LOUD, stream="dead_letters", kind="stream", time_ms=11 * MINUTE_MS)
    world.reactions.write_signals([LOUD])
    world.reactions.write_signals([other])
    assert [one.stream for one in world.told.reactions] == [LOUD.stream], "held once"
    world.reactions.write_signals([replace(LOUD, ended_ms=20 * MINUTE_MS)])
    assert world.reactions.holding
    world.reactions.write_signals([replace(other, ended_ms=21 * MINUTE_MS)])
    assert not world.reactions.holding


def test_roll_back_is_asked_for_once_and_holds() -> None:
    world = World(roll_back=Trigger(enabled=True))
    world.reactions.write_signals([LOUD])
    assert world.reactions.take_roll_back_ms() == LOUD.since_ms
    assert world.reactions.take_roll_back_ms() is None
    assert world.reactions.holding


def test_restart_finds_in_force_what_was_in_force() -> None:
    triggers: dict[str, Trigger] = {
        "faster_learning": FasterLearning(enabled=True, factor=2.0),
        "shorter_memory": ShorterMemory(enabled=True, factor=0.5),
        "hold_promotion": HoldPromotion(enabled=True),
    }
    before, after = World(**triggers), World(**triggers)
    before.reactions.write_signals([LOUD])
    after.reactions.load(before.reactions.save())
    assert after.ranking.asked == after.retrieval.asked == [("rate", 2.0)]
    assert after.memory.asked == [("half-life", 0.5)]
    assert after.reactions.holding
    # The signal is found again by nobody; were it, it is answered already.
    after.reactions.write_signals([LOUD])
    assert after.told.reactions == []
    after.reactions.advance(20 * MINUTE_MS)
    assert after.ranking.asked[-1] == ("rate", 1.0)
    assert after.reactions.save()["until_ms"] == {}


def test_reaction_switched_off_meanwhile_is_not_in_force() -> None:
    before = World(faster_learning=FasterLearning(enabled=True))
    before.reactions.write_signals([LOUD])
    after = World(reset_memory=Trigger(enabled=True))
    after.reactions.load(before.reactions.save())
    assert after.ranking.asked == []


def test_memory_that_never_forgets_cannot_forget_faster() -> None:
    with pytest.raises(ConfigError, match=r"^reactions\.shorter_memory needs .*half_life_ms"):
        World(forgets=False, shorter_memory=ShorterMemory(enabled=True))


@pytest.mark.parametrize(
    ("triggers", "message"),
    [
        ({"reset_memory": Trigger(on=())}, r"^reactions\.reset_memory\.on must name"),
        ({"roll_back": Trigger(pause_ms=-1)}, r"^reactions\.roll_back\.pause_ms must not"),
        (
            {"roll_back": Trigger(min_severity="huge")},  # type: ignore[arg-type]
            r"^reactions\.roll_back\.min_severity must be one of small, medium, large, got 'huge'",
        ),
        (
            {"faster_learning": FasterLearning(factor=0.0)},
            r"^reactions\.faster_learning\.factor must be positive, got 0",
        ),
        (
            {"shorter_memory": ShorterMemory(for_ms=0)},
            r"^reactions\.shorter_memory\.for_ms must be at least 1, got 0",
        ),
    ],
)
def test_mistaken_setting_is_named(triggers: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ReactionsConfig(**triggers)
