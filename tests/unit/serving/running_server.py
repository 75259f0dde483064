"""A whole server on a free port: real log, tail, watcher, group commit and gRPC; tiny models."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from app.snapshot_desk import LocalSnapshotDesk
from domain.event_log import EventLog
from domain.events import Event, Feedback
from monitoring.signal_store import FILE_NAME
from monitoring.tracing import Tracing
from protos.headrace.v1 import (
    admin_pb2_grpc,
    drift_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    ranking_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
    retrieval_pb2_grpc,
)
from serving.impression_log import ImpressionLog, ImpressionLogConfig
from serving.live_models import LiveModels, LiveModelSlot
from serving.publish import Publisher, PublisherConfig
from serving.recommend import Recommender, RecommenderConfig
from serving.server import ServerConfig, ServerHandle, Services, create_server
from serving.signal_feed import SignalFeed
from serving.tail import LogTail, TailConfig
from serving.watcher import SnapshotWatcher, WatcherConfig, WatcherParts
from snapshot.local_store import LocalSnapshotStore
from stream.codec import decode, event_to_message
from stream.sqlite_log import SqliteLog
from tests.unit.serving.worlds import CLOCK, SCHEMA, Shelf, make_models, serving_metrics


class RunningServer:
    """Everything a server process holds, and a client of it."""

    def __init__(
        self,
        folder: Path,
        *,
        recommender: RecommenderConfig | None = None,
        publisher: PublisherConfig | None = None,
        server: ServerConfig | None = None,
        log: EventLog | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.metrics = serving_metrics()
        self.log = log or SqliteLog(folder / "log.sqlite")
        self.slot = LiveModelSlot()
        self.shelf = Shelf()
        self.tail = LogTail(self.log, self.slot, CLOCK, TailConfig(), self.metrics)
        self.watcher = SnapshotWatcher(
            WatcherParts(
                source=self.shelf, schema=SCHEMA, slot=self.slot, tail=self.tail, log=self.log
            ),
            CLOCK,
            WatcherConfig(poll_ms=10),
            self.metrics,
        )
        self.impression_log = ImpressionLog(self.log, ImpressionLogConfig(), self.tail.landing.land)
        self.services = Services(
            slot=self.slot,
            recommender=Recommender(
                self.slot,
                CLOCK,
                recommender or RecommenderConfig(),
                self.impression_log,
                self.metrics,
            ),
            publisher=Publisher(
                self.impression_log, SCHEMA, CLOCK, publisher or PublisherConfig(), self.metrics
            ),
            snapshots=LocalSnapshotDesk(LocalSnapshotStore(folder / "snapshots")),
            signals=SignalFeed(folder / FILE_NAME),
            tracing=tracing,
        )
        config = server or ServerConfig(address="127.0.0.1:0", grace_s=5.0)
        self.handle: ServerHandle = create_server(self.services, config, CLOCK, self.metrics)
        self.address = f"127.0.0.1:{self.handle.port}"
        self.channel = grpc.insecure_channel(self.address)
        self.events = events_pb2_grpc.EventsStub(self.channel)
        self.recommender = recommender_pb2_grpc.RecommenderStub(self.channel)
        self.retrieval = retrieval_pb2_grpc.RetrievalStub(self.channel)
        self.ranking = ranking_pb2_grpc.RankingStub(self.channel)
        self.drift = drift_pb2_grpc.DriftStub(self.channel)
        self.admin = admin_pb2_grpc.AdminStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def start(self) -> None:
        for part in (self.impression_log, self.tail, self.watcher, self.handle):
            part.start()

    def close(self) -> None:
        self.channel.close()
        self.handle.stop()
        self.watcher.stop()
        self.tail.stop()
        self.impression_log.stop(5.0)
        self.log.close()

    def serve(self, snapshot_id: str, make: Callable[[], LiveModels] | None = None) -> None:
        """Publish a snapshot and wait until it answers."""
        self.shelf.put(snapshot_id, make or (lambda: make_models(snapshot_id)))
        until(lambda: self.slot.snapshot_id == snapshot_id)

    def recommend(self, user_id: str, limit: int = 3, timeout_s: float = 5.0, **context):
        request = recommender_pb2.RecommendRequest(user_id=user_id, limit=limit)
        for name, value in context.items():
            request.context[name].text = value
        return self.recommender.Recommend(request, timeout=timeout_s)

    def publish(self, *events: Event, timeout_s: float = 5.0) -> list[str]:
        request = events_pb2.PublishRequest(events=[event_to_message(event) for event in events])
        return list(self.events.Publish(request, timeout=timeout_s).event_ids)

    def click(self, user_id: str, item_id: str) -> list[str]:
        return self.publish(
            Feedback(
                event_id=f"{user_id}-{item_id}",
                time_ms=CLOCK.now_ms(),
                user_id=user_id,
                item_id=item_id,
                kind="click",
            )
        )

    def stored(self) -> list[Event]:
        records = self.log.read({}, max_records=10_000, timeout_s=0.0)
        return [decode(record.value) for record in records]

    def health_of(self, service: str) -> str:
        answer = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5.0)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def items_of(response) -> list[str]:
    """Item ids of an answer, best first."""
    return [item.item_id for item in response.items]


def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something that threads will bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)
