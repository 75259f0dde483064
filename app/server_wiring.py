"""Everything a server answers with, built from settings and snapshots."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from threading import Event as StopSignal

from app.delta_ways import delta_source
from app.learners import LearnerConfigs, build_learners
from app.settings import Settings
from app.snapshot_desk import LocalSnapshotDesk
from domain.clock import Clock
from domain.deltas import DeltaLearner, DeltaPoint
from domain.errors import LogUnavailableError, SnapshotNotFoundError
from domain.event_log import EventLog
from domain.features import FeatureSchema, schema_from_mapping
from monitoring.metrics import Metrics
from monitoring.signal_store import FILE_NAME
from monitoring.tracing import make_tracing
from ranking.learner import RankingModel
from retrieval.learner import RetrievalModel
from serving.delta_follower import DeltaFollower
from serving.impression_log import ImpressionLog
from serving.index_keeper import IndexKeeper, KeptIndex
from serving.live_models import LiveModels, LiveModelSlot
from serving.publish import Publisher
from serving.recommend import Recommender
from serving.server import ServerHandle, Services, create_server
from serving.signal_feed import SignalFeed
from serving.tail import LogTail
from serving.watcher import SnapshotPlace, SnapshotWatcher, WatcherParts
from snapshot.local_store import LocalSnapshotStore, Snapshot
from snapshot.manifest import Manifest
from stream.deduplicator import Deduplicator
from stream.feature_store import FeatureStore
from stream.open_log import open_log

_logger = logging.getLogger(__name__)

_LOOK_S = 0.05
_LAST_WRITES_S = 5.0
"""Longest wait, when stopping, for events that were taken in but not yet stored."""


class StoredModels:
    """Live models from the snapshots of a store.

    Args:
        preloaded: models that were built from one of them already; handed out once.
    """

    def __init__(
        self,
        store: LocalSnapshotStore,
        settings: Settings,
        preloaded: LiveModels | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._preloaded = preloaded
        self._listed: list[str] = []
        self._manifests: dict[str, Manifest] = {}

    def current_id(self) -> str | None:
        """Return the id of the snapshot to serve, None when there is none."""
        return self._store.current_id()

    def earlier_ids(self, snapshot_id: str) -> list[str]:
        """Return the ids of the snapshots before one, newest first."""
        return [one for one in reversed(self._store.ids()) if one < snapshot_id]

    def place_of(self, snapshot_id: str) -> SnapshotPlace:
        """Return where a snapshot stands in its trainer's chain, and whether it is its newest.

        Manifests never change, so they are read again only when there are other snapshots.

        Raises:
            SnapshotNotFoundError: there is no such snapshot, or its manifest is damaged.
        """
        ids = self._store.ids()
        if ids != self._listed:
            self._manifests = {one.snapshot_id: one for one in self._store.list()}
            self._listed = ids
        manifest = self._manifests.get(snapshot_id)
        if manifest is None:
            raise SnapshotNotFoundError(f"snapshot {snapshot_id}: not there, or damaged")
        others = [one for one in self._manifests.values() if one is not manifest]
        newest = all(other.parent_id != snapshot_id for other in others)
        return SnapshotPlace(_point_of(manifest), newest=newest)

    def load_models(self, snapshot_id: str) -> LiveModels:
        """Build models of their own from a verified snapshot.

        Raises:
            SnapshotError: it does not verify, or this version cannot read it.
        """
        ready, self._preloaded = self._preloaded, None
        if ready is not None and ready.snapshot_id == snapshot_id:
            return ready
        return live_models(self._store.load(snapshot_id), self._settings)


def live_models(snapshot: Snapshot, settings: Settings) -> LiveModels:
    """Build models from a snapshot; schema and learners are those it was made with."""
    manifest, states = snapshot.manifest, snapshot.states
    schema = schema_from_mapping(manifest.extra["schema"])
    learners = build_learners(schema, LearnerConfigs.from_plain(manifest.extra["learners"]))
    learners.ranking.load(states["ranking"])
    learners.memory.load(states["memory"])
    learners.retrieval.load(states["retrieval"])
    led_on: dict[str, DeltaLearner] = {
        "ranking": learners.ranking,
        "memory": learners.memory,
        "retrieval": learners.retrieval,
    }
    point = _point_of(manifest) if settings.delta_follower.enabled else None
    if point is not None:
        for learner in led_on.values():
            learner.follow()
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
        base_id=manifest.snapshot_id,
        base_point=point,
        point=point,
        delta_learners=led_on,
    )


def _kept_index(models: LiveModels) -> KeptIndex:
    """Return what looks after a bundle's index, under the bundle's own lock."""
    assert isinstance(models.retriever, RetrievalModel)
    return models.retriever.index_care(models.lock)


def _watch_ranker(metrics: Metrics) -> Callable[[LiveModels], None]:
    """Return what has the ranker of every new bundle counted."""

    def watch(models: LiveModels) -> None:
        assert isinstance(models.ranker, RankingModel)
        models.ranker.watch_histories(metrics.ranking.observe_lookup)

    return watch


def _point_of(manifest: Manifest) -> DeltaPoint | None:
    """Return how far into its trainer's chain of deltas a snapshot reaches."""
    place = manifest.extra.get("delta")
    return None if place is None else DeltaPoint(place["chain"], place["number"])


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server, and the slot that says which snapshot it answers from.

    It listens, unless it shares its port: then `open_when_live` makes it.
    """

    handle: ServerHandle
    slot: LiveModelSlot

    def open_when_live(self, clock: Clock, stop: StopSignal) -> None:
        """Listen once there is something to answer from; return then, or when `stop` is set.

        Raises:
            ConfigError: the port is not ours to take.
        """
        while self.slot.live is None and not stop.is_set():
            clock.sleep(_LOOK_S)
        if not stop.is_set():
            self.handle.start()


@contextmanager
def running_server(
    settings: Settings,
    schema: FeatureSchema,
    clock: Clock,
    metrics: Metrics,
    preloaded: LiveModels | None = None,
) -> Iterator[RunningServer]:
    """Serve until the block is left; calls that run then may finish.

    `preloaded` are models of a snapshot, nobody else's.

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
        slot.add_listener(_watch_ranker(metrics))
        tail = LogTail(logs[1], slot, clock, settings.tail, metrics.serving)
        impressions = ImpressionLog(logs[0], settings.impression_log, tail.landing.land)
        store = LocalSnapshotStore(settings.data.snapshots, settings.snapshot)
        source = StoredModels(store, settings, preloaded)
        parts = WatcherParts(source=source, schema=schema, slot=slot, tail=tail, log=logs[2])
        watcher = SnapshotWatcher(parts, clock, settings.watcher, metrics.serving)
        deltas = stack.enter_context(delta_source(settings))
        follower = DeltaFollower(
            deltas, slot, clock, settings.delta_follower, metrics.serving.freshness
        )
        keeper = IndexKeeper(
            slot, _kept_index, clock, settings.index_keeper, metrics.retrieval.index
        )
        recommender = Recommender(slot, clock, settings.recommender, impressions, metrics.serving)
        publisher = Publisher(impressions, schema, clock, settings.publisher, metrics.serving)
        tracing = make_tracing(settings.tracing, "headrace-server")
        if tracing is not None:
            stack.callback(tracing.stop)
        services = Services(
            slot=slot,
            recommender=recommender,
            publisher=publisher,
            snapshots=LocalSnapshotDesk(store),
            signals=SignalFeed(settings.data.path / FILE_NAME),
            tracing=tracing,
        )
        handle = create_server(services, settings.server, clock, metrics.serving)

        impressions.start()
        stack.callback(impressions.stop, _LAST_WRITES_S)
        tail.start()
        stack.callback(tail.stop)
        watcher.start()
        stack.callback(watcher.stop)
        follower.start()
        stack.callback(follower.stop)
        keeper.start()
        stack.callback(keeper.stop)
        stack.callback(handle.stop)
        if not settings.server.share_port:
            handle.start()
        yield RunningServer(handle, slot)


def _reject_wrong_log(log: EventLog) -> None:
    """Look at the log once, so that what no waiting mends is said at start; else go on without."""
    try:
        log.end_positions()
    except LogUnavailableError as error:
        _logger.warning("event log does not answer", extra={"error": str(error)})
