"""Everything a server answers with, built from settings and snapshots."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from app.learners import LearnerConfigs, build_learners
from app.settings import Settings
from app.snapshot_desk import LocalSnapshotDesk
from domain.clock import Clock
from domain.errors import LogUnavailableError
from domain.event_log import EventLog
from domain.features import FeatureSchema, schema_from_mapping
from monitoring.metrics import Metrics
from monitoring.signal_store import FILE_NAME
from serving.impression_log import ImpressionLog
from serving.live_models import LiveModels, LiveModelSlot
from serving.publish import Publisher
from serving.recommend import Recommender
from serving.server import ServerHandle, Services, create_server
from serving.signal_feed import SignalFeed
from serving.tail import LogTail
from serving.watcher import SnapshotWatcher, WatcherParts
from snapshot.local_store import LocalSnapshotStore, Snapshot
from stream.deduplicator import Deduplicator
from stream.feature_store import FeatureStore
from stream.open_log import open_log

_logger = logging.getLogger(__name__)

_LAST_WRITES_S = 5.0
"""Longest wait, when stopping, for events that were taken in but not yet stored."""


class StoredModels:
    """Live models from the snapshots of a store."""

    def __init__(self, store: LocalSnapshotStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def current_id(self) -> str | None:
        """Return the id of the snapshot to serve, None when there is none."""
        return self._store.current_id()

    def earlier_ids(self, snapshot_id: str) -> list[str]:
        """Return the ids of the snapshots before one, newest first."""
        return [one for one in reversed(self._store.ids()) if one < snapshot_id]

    def load_models(self, snapshot_id: str) -> LiveModels:
        """Build models of their own from a verified snapshot.

        Raises:
            SnapshotError: it does not verify, or this version cannot read it.
        """
        return live_models(self._store.load(snapshot_id), self._settings)


def live_models(snapshot: Snapshot, settings: Settings) -> LiveModels:
    """Build models from a snapshot; schema and learners are those it was made with."""
    manifest, states = snapshot.manifest, snapshot.states
    schema = schema_from_mapping(manifest.extra["schema"])
    learners = build_learners(schema, LearnerConfigs.from_plain(manifest.extra["learners"]))
    learners.ranking.load(states["ranking"])
    learners.memory.load(states["memory"])
    learners.retrieval.load(states["retrieval"])
    feature_store = FeatureStore(schema, settings.feature_store)
    feature_store.load(states["stream"]["feature_store"])
    deduplicator = Deduplicator(settings.deduplicator)
    deduplicator.load(states["stream"]["deduplicator"])
    return LiveModels(
        snapshot_id=manifest.snapshot_id,
        event_time_ms=manifest.event_time_ms,
        positions=dict(manifest.positions),
        schema=schema,
        retriever=learners.retrieval,
        ranker=learners.ranking,
        memory=learners.memory,
        feature_store=feature_store,
        deduplicator=deduplicator,
    )


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that listens, and the slot that says which snapshot it answers from."""

    handle: ServerHandle
    slot: LiveModelSlot


@contextmanager
def running_server(
    settings: Settings, schema: FeatureSchema, clock: Clock, metrics: Metrics
) -> Iterator[RunningServer]:
    """Serve until the block is left; calls that run then may finish.

    Raises:
        ConfigError: the address is taken.
        LogError: the event log cannot be opened, or its topics are not as they must be.
    """
    with ExitStack() as stack:
        # Each thread that reads or writes the log has a handle of its own.
        logs = [open_log(settings.data.log_url, kafka=settings.kafka) for _ in range(3)]
        for log in logs:
            stack.callback(log.close)
        _reject_wrong_log(logs[0])
        slot = LiveModelSlot()
        tail = LogTail(logs[1], slot, clock, settings.tail, metrics.serving)
        impressions = ImpressionLog(logs[0], settings.impression_log, tail.landing.land)
        store = LocalSnapshotStore(settings.data.snapshots, settings.snapshot)
        source = StoredModels(store, settings)
        parts = WatcherParts(source=source, schema=schema, slot=slot, tail=tail, log=logs[2])
        watcher = SnapshotWatcher(parts, clock, settings.watcher, metrics.serving)
        recommender = Recommender(slot, clock, settings.recommender, impressions, metrics.serving)
        publisher = Publisher(impressions, schema, clock, settings.publisher, metrics.serving)
        services = Services(
            slot=slot,
            recommender=recommender,
            publisher=publisher,
            snapshots=LocalSnapshotDesk(store),
            signals=SignalFeed(settings.data.path / FILE_NAME),
        )
        handle = create_server(services, settings.server, clock, metrics.serving)

        impressions.start()
        stack.callback(impressions.stop, _LAST_WRITES_S)
        tail.start()
        stack.callback(tail.stop)
        watcher.start()
        stack.callback(watcher.stop)
        handle.start()
        stack.callback(handle.stop)
        yield RunningServer(handle, slot)


def _reject_wrong_log(log: EventLog) -> None:
    """Look at the log once, so that what no waiting mends is said at start; else go on without."""
    try:
        log.end_positions()
    except LogUnavailableError as error:
        _logger.warning("event log does not answer", extra={"error": str(error)})
