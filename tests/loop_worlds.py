"""Tiny worlds led through the real train loop: small models, short streams, and what to ask them.

Everything is real but its size, so that a test of the loop is a test of what runs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.learners import LearnerConfigs, build_learners
from app.settings import Settings, load_settings
from app.trainer_wiring import build_loop
from domain.errors import DecodeError, SchemaError
from domain.events import Event, Feedback
from domain.features import FeatureSchema
from domain.state import State, state_hash
from monitoring.metrics import Metrics
from replay.scenarios import Noise, Population, Scenario, Traffic
from replay.simulator import SimulatedDataset
from stream.checkpoint import restore, states_of
from stream.live_quality import LiveQuality
from stream.observer import LoopObserver
from stream.train_loop import TrainLoop

SMALL_MODELS = (
    "ranking.hidden=[16,8]",
    "ranking.table.dimension=4",
    "ranking.backbone.width=8",
    "ranking.backbone.heads=1",
    "ranking.backbone.head_width=8",
    "ranking.device=cpu",
    "retrieval.tower.width=8",
    "retrieval.tower.num_blocks=1",
    "retrieval.negatives.reservoir=64",
    "memory.num_arrays=4",
    "memory.num_bits=6",
    "prequential_quality.window=500",
    "prequential_quality.score_buckets=64",
)
"""Settings under which a step takes a few milliseconds; `--set` takes them too."""


def tiny_settings(*overrides: str) -> Settings:
    """Settings with small models and small batches; labels are settled after six minutes."""
    return load_settings(
        None,
        [
            *SMALL_MODELS,
            "batcher.max_examples=40",
            "batcher.linger_ms=60_000",
            "joiner.attribution_window_ms=360_000",
            "joiner.fast_delay_ms=20_000",
            # On a clock that ticks with every look, one after each record would be cut otherwise.
            "deltas.every_ms=30_000",
            *overrides,
        ],
    )


def tiny_scenario(num_lists: int = 120, *, seed: int = 1, noise: Noise | None = None) -> Scenario:
    """Twenty users are shown lists of five out of forty items, within two hours."""
    return Scenario(
        id="tiny",
        description="small enough to be led through the loop in a second",
        seed=seed,
        duration_ms=2 * 3_600_000,
        population=Population(num_users=20, num_items=40, num_categories=4, style_size=4),
        traffic=Traffic(num_lists=num_lists, list_size=5),
        noise=noise or Noise(),
    )


def tiny_world(
    num_lists: int = 120, *, seed: int = 1, noise: Noise | None = None
) -> tuple[FeatureSchema, list[Event]]:
    """The schema and the events, in order of arrival, of a tiny scenario."""
    dataset = SimulatedDataset(tiny_scenario(num_lists, seed=seed, noise=noise))
    return dataset.schema, list(dataset.events())


def with_organic(events: Iterable[Event], every: int = 3) -> list[Event]:
    """The same events, but every so many pieces of feedback name no impression."""
    changed: list[Event] = []
    num_feedback = 0
    for event in events:
        if isinstance(event, Feedback):
            num_feedback += 1
            if num_feedback % every == 0:
                event = replace(event, impression_id=None)
        changed.append(event)
    return changed


def make_loop(
    schema: FeatureSchema,
    settings: Settings | None = None,
    observers: Sequence[LoopObserver] = (),
) -> TrainLoop:
    """A loop that has seen nothing yet, with the learners the settings ask for."""
    settings = settings or tiny_settings()
    learners = build_learners(schema, LearnerConfigs.of(settings))
    return build_loop(settings, schema, learners, Metrics(), observers)


def live_quality(schema: FeatureSchema, settings: Settings) -> LiveQuality:
    """The observer that a trainer has."""
    return LiveQuality(
        schema,
        settings.prequential_quality,
        settings.prequential_ranks,
        Metrics(),
    )


def lead(loop: TrainLoop, events: Iterable[Event]) -> TrainLoop:
    """Lead events through a loop, passing over what a trainer would set aside."""
    for event in events:
        try:
            loop.process(event)
        except (DecodeError, SchemaError):
            loop.set_aside()
    return loop


def everything_of(loop: TrainLoop) -> dict[str, State]:
    """All states of a snapshot, in memory of their own, as a snapshot on disk has it."""
    return copy.deepcopy(states_of(loop))


def hashes_of(loop: TrainLoop) -> dict[str, str]:
    """A hash for each component of a snapshot, so that a difference says where it lies."""
    return {name: state_hash(state) for name, state in states_of(loop).items()}


def restored(loop: TrainLoop, states: dict[str, State]) -> TrainLoop:
    """`loop` after it became what `states` describe."""
    restore(loop, states)
    return loop
