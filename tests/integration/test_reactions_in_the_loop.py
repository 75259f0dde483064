"""Reactions to drift change what is learned and served, and do so again after a restart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.learners import LearnerConfigs, build_learners
from app.reactions_wiring import build_reactions
from app.settings import Settings
from app.trainer_wiring import build_loop
from domain.clock import ManualClock
from domain.events import Event
from monitoring.drift_signal import DriftSignal
from monitoring.metrics import Metrics
from snapshot.local_store import LocalSnapshotStore
from stream.checkpoint import CheckpointConfig, Checkpointer, CheckpointTargets, restore, states_of
from stream.reaction_config import (
    FasterLearning,
    HoldPromotion,
    ReactionsConfig,
    ShorterMemory,
    Trigger,
)
from stream.sqlite_log import SqliteLog
from stream.train_loop import TrainLoop
from tests.loop_worlds import hashes_of, lead, tiny_settings, tiny_world

ALL_THAT_IS_LEARNED = ReactionsConfig(
    faster_learning=FasterLearning(enabled=True, factor=5.0, for_ms=1_200_000),
    shorter_memory=ShorterMemory(enabled=True, for_ms=1_200_000),
    reset_memory=Trigger(enabled=True),
)
SCHEMA, EVENTS = tiny_world(120)
MIDDLE, RESTART = len(EVENTS) // 2, 2 * len(EVENTS) // 3
NOW_MS = EVENTS[MIDDLE].time_ms
SIGNAL = DriftSignal(
    stream="loss/online/click",
    kind="concept",
    detector="page_hinkley",
    time_ms=NOW_MS,
    since_ms=NOW_MS - 600_000,
    before=0.2,
    after=0.4,
    deviations=8.0,
    points_before=100,
    points_after=10,
)


def settings(reactions: ReactionsConfig) -> Settings:
    return tiny_settings().model_copy(update={"reactions": reactions})


def loop_with(reactions: ReactionsConfig) -> TrainLoop:
    given = settings(reactions)
    learners = build_learners(SCHEMA, LearnerConfigs.of(given))
    built = build_reactions(given, learners, Metrics())
    return build_loop(given, SCHEMA, learners, Metrics(), (), built)


def tell(loop: TrainLoop, signal: DriftSignal) -> None:
    if loop.parts.reactions is not None:
        loop.parts.reactions.write_signals([signal])


def led(reactions: ReactionsConfig, events: Sequence[Event] = EVENTS) -> TrainLoop:
    """A loop that hears of a signal in the middle of its events."""
    loop = lead(loop_with(reactions), events[:MIDDLE])
    tell(loop, SIGNAL)
    return lead(loop, events[MIDDLE:])


def test_reaction_changes_what_is_learned() -> None:
    left_alone, reacted = led(ReactionsConfig()), led(ALL_THAT_IS_LEARNED)
    before, after = hashes_of(left_alone), hashes_of(reacted)
    for component in ("ranking", "memory", "retrieval"):
        assert before[component] != after[component]


def test_restart_while_a_reaction_is_in_force_ends_with_the_same_bits() -> None:
    first = lead(loop_with(ALL_THAT_IS_LEARNED), EVENTS[:MIDDLE])
    tell(first, SIGNAL)
    lead(first, EVENTS[MIDDLE:RESTART])
    saved = states_of(first)
    assert saved["stream"]["reactions"]["until_ms"], "it must still be in force"
    second = loop_with(ALL_THAT_IS_LEARNED)
    restore(second, saved)
    lead(second, EVENTS[RESTART:])
    assert hashes_of(second) == hashes_of(led(ALL_THAT_IS_LEARNED))


@pytest.mark.parametrize("rolls_back", [False, True])
def test_what_is_served_waits_for_the_end_of_the_signal(tmp_path: Path, rolls_back: bool) -> None:
    loop = lead(
        loop_with(
            ReactionsConfig(
                hold_promotion=HoldPromotion(enabled=True),
                roll_back=Trigger(enabled=rolls_back),
            )
        ),
        EVENTS[: MIDDLE // 2],
    )
    store = LocalSnapshotStore(tmp_path / "snapshots")
    log = SqliteLog(tmp_path / "log.sqlite")
    checkpointer = Checkpointer(
        loop,
        CheckpointTargets(store=store, log=log),
        CheckpointConfig(),
        ManualClock(1),
        Metrics(),
    )
    early = checkpointer.checkpoint({})
    lead(loop, EVENTS[MIDDLE // 2 : MIDDLE])
    late = checkpointer.checkpoint({})
    assert store.current_id() == late

    signal = replace(SIGNAL, since_ms=loop.parts.watermark.newest_ms - 1)
    tell(loop, signal)
    checkpointer.roll_back_if_asked()
    assert store.current_id() == (early if rolls_back else late)
    lead(loop, EVENTS[MIDDLE:RESTART])
    held = checkpointer.checkpoint({})
    assert store.latest_id() == held
    assert store.current_id() == (early if rolls_back else late)

    tell(loop, replace(signal, ended_ms=NOW_MS + 1))
    lead(loop, EVENTS[RESTART:])
    promoted = checkpointer.checkpoint({})
    assert store.current_id() == promoted
    log.close()


def test_way_back_that_does_not_exist_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop = lead(loop_with(ReactionsConfig(roll_back=Trigger(enabled=True))), EVENTS[:MIDDLE])
    store = LocalSnapshotStore(tmp_path / "snapshots")
    log = SqliteLog(tmp_path / "log.sqlite")
    targets = CheckpointTargets(store=store, log=log)
    checkpointer = Checkpointer(loop, targets, CheckpointConfig(), ManualClock(1), Metrics())
    only = checkpointer.checkpoint({})
    tell(loop, replace(SIGNAL, since_ms=1))
    checkpointer.roll_back_if_asked()
    assert store.current_id() == only
    assert "no snapshot is that old" in caplog.text
    log.close()
