"""Everything a trainer or a replay leads events through, built from settings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from app.journal_settings import decisive_settings
from app.learners import LearnerConfigs, Learners
from app.settings import Settings
from domain.clock import Clock
from domain.deltas import DeltaPublisher
from domain.errors import ConfigError, SnapshotError
from domain.event_log import EventLog, Positions
from domain.features import FeatureSchema
from monitoring.metrics import Metrics
from monitoring.session_ids import SessionIds
from snapshot.deltas import LocalDeltaStore
from snapshot.local_store import LocalSnapshotStore, Snapshot
from snapshot.manifest import Manifest
from stream.batcher import Batcher
from stream.checkpoint import JOURNAL, Checkpointer, CheckpointTargets, restore
from stream.deduplicator import Deduplicator
from stream.delta_publishing import DeltaPublishing, DeltaWatch
from stream.feature_store import FeatureStore
from stream.joiner import Joiner
from stream.journal import JournalFacts, StepJournal
from stream.journal_files import JournalFolder
from stream.memory_rewriting import MemoryRewriting
from stream.observer import LoopObserver
from stream.reactions import Reactions
from stream.train_loop import LoopParts, TrainLoop
from stream.trainer import Trainer, TrainerParts
from stream.watermark import Watermark

logger = logging.getLogger(__name__)


def build_loop(
    settings: Settings,
    schema: FeatureSchema,
    learners: Learners,
    metrics: Metrics,
    observers: Sequence[LoopObserver] = (),
    reactions: Reactions | None = None,
) -> TrainLoop:
    """Build a loop that has seen nothing yet."""
    parts = LoopParts(
        schema=schema,
        deduplicator=Deduplicator(settings.deduplicator),
        watermark=Watermark(settings.watermark),
        joiner=Joiner(schema, settings.joiner, settings.seed),
        sessions=SessionIds(settings.session_ids),
        feature_store=FeatureStore(schema, settings.feature_store),
        batcher=Batcher(settings.batcher),
        ranking=learners.ranking,
        memory=learners.memory,
        retrieval=learners.retrieval,
        observers=observers,
        reactions=reactions,
        rewriting=(
            MemoryRewriting(settings.memory_rewriting) if settings.memory_rewriting.window else None
        ),
    )
    return TrainLoop(parts, settings.train_loop, metrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerPlace:
    """Where a trainer works.

    Attributes:
        delta_publisher: where deltas go; None is the folder of the settings.
    """

    log: EventLog
    store: LocalSnapshotStore
    clock: Clock
    metrics: Metrics
    delta_publisher: DeltaPublisher | None = None


def build_trainer(settings: Settings, loop: TrainLoop, place: TrainerPlace) -> Trainer:
    """Build a trainer that goes on from the newest snapshot that is whole, or from the beginning.

    Without a snapshot it publishes one as soon as the log answers, so that servers can answer (from
    nothing learned) while the first events are on their way. Nothing is asked of the log here.

    Raises:
        ConfigError: the snapshot was made with another schema or other learners.
        SnapshotError: there are snapshots, but none is whole.
    """
    schema = loop.parts.schema
    facts = JournalFacts(decisive_settings(settings, schema), schema.hash)
    journal = StepJournal(
        JournalFolder(settings.data.journal), settings.journal, facts, place.metrics
    )
    manifest = _resume(settings, loop, place.store)
    positions = None if manifest is None else dict(manifest.positions)
    deltas = _deltas(settings, loop, place, positions or {})
    checkpointer = Checkpointer(
        loop,
        CheckpointTargets(
            store=place.store,
            log=place.log,
            journal=journal,
            deltas=deltas,
            extra={"learners": LearnerConfigs.of(settings).to_plain()},
        ),
        settings.checkpoint,
        place.clock,
        place.metrics,
    )
    if manifest is not None:
        journal.begin(
            dict(manifest.positions),
            steps=manifest.step,
            parent=manifest.snapshot_id,
            previous=manifest.extra.get(JOURNAL),
        )
    if deltas is not None:
        checkpointer.hasten()
    parts = TrainerParts(
        log=place.log,
        loop=loop,
        checkpointer=checkpointer,
        journal=journal,
        clock=place.clock,
        metrics=place.metrics,
    )
    return Trainer(parts, settings.trainer, positions)


def _deltas(
    settings: Settings, loop: TrainLoop, place: TrainerPlace, positions: Positions
) -> DeltaPublishing | None:
    """Begin a chain of deltas where the learners stand."""
    if not settings.deltas.every_ms:
        return None
    publisher = place.delta_publisher or LocalDeltaStore(settings.data.deltas, settings.delta_store)
    watch = DeltaWatch(clock=place.clock, metrics=place.metrics)
    deltas = DeltaPublishing(loop, publisher, settings.deltas, watch, positions)
    deltas.begin()
    return deltas


def _resume(settings: Settings, loop: TrainLoop, store: LocalSnapshotStore) -> Manifest | None:
    snapshot, damaged = store.load_newest_good()
    for line in damaged:
        logger.error("snapshot damaged", extra={"problem": line})
    if snapshot is None:
        if damaged:
            raise SnapshotError(f"no snapshot is whole; the newest: {damaged[0]}")
        return None
    _check_same(settings, loop.parts.schema, snapshot)
    restore(loop, dict(snapshot.states))
    logger.info(
        "resumed",
        extra={"snapshot": snapshot.manifest.snapshot_id, "step": loop.counts.steps},
    )
    return snapshot.manifest


def _check_same(settings: Settings, schema: FeatureSchema, snapshot: Snapshot) -> None:
    name = snapshot.manifest.snapshot_id
    if snapshot.manifest.schema_hash != schema.hash:
        raise ConfigError(
            f"schema: snapshot {name} was made with schema {snapshot.manifest.schema_hash}, the "
            f"settings declare {schema.hash}; use the old schema or another data.dir"
        )
    ours = LearnerConfigs.of(settings)
    theirs = LearnerConfigs.from_plain(snapshot.manifest.extra["learners"])
    for section in ("ranking", "memory", "retrieval", "seed"):
        if getattr(ours, section) != getattr(theirs, section):
            raise ConfigError(
                f"{section}: differs from what snapshot {name} was made with; use the old "
                "settings or another data.dir"
            )
