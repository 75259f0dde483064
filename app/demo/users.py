"""Simulated users: they ask the real server for lists, and report what they did with them."""

from __future__ import annotations

import heapq
import json
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from app.demo.plan import DemoPlan
from domain.clock import Clock, SystemClock
from domain.events import Event, Feedback, Impression, ShownItem
from protos.headrace.v1 import (
    events_pb2,
    events_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
)
from replay.world import World
from stream.codec import event_to_message

logger = logging.getLogger(__name__)

_WORKERS = 8
_CALL_TIMEOUT_S = 5.0
_TICK_S = 0.02
_MOST_EVENTS = 500
_DUPLICATE_SHARE = 0.02


@dataclass(slots=True)
class UserReport:
    """What the simulated users saw.

    Attributes:
        latencies_ms: time of each answered Recommend, as the caller saw it.
        paths: answers by the path that answered.
    """

    lists: int = 0
    failed: int = 0
    published: int = 0
    duplicates: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    paths: dict[str, int] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write counts and latency percentiles as JSON."""
        p50, p99 = np.percentile(self.latencies_ms or [0.0], [50, 99])
        path.write_text(
            json.dumps(
                {
                    "lists": self.lists,
                    "failed": self.failed,
                    "published": self.published,
                    "duplicates": self.duplicates,
                    "paths": self.paths,
                    "p50_ms": float(p50),
                    "p99_ms": float(p99),
                }
            )
            + "\n"
        )


class UserCrowd:
    """Users of a world in a closed loop with a server, in real time."""

    def __init__(self, world: World, plan: DemoPlan, address: str, clock: Clock) -> None:
        self._world = world
        self._plan = plan
        self._clock = clock
        channel = grpc.insecure_channel(address)
        self._recommender = recommender_pb2_grpc.RecommenderStub(channel)
        self._events = events_pb2_grpc.EventsStub(channel)
        self._lock = threading.Lock()
        self._due: list[tuple[int, int, Event]] = []
        self._known_users: set[str] = set()
        self._numbered = 0
        self._rng = np.random.default_rng([plan.seed, 1])
        self.report = UserReport()

    def run(self) -> None:
        """Let users come at the plan's rate until its end; then report what is still due."""
        scenario = self._world.scenario
        interval_ms = 1_000 / self._plan.lists_per_second
        next_ms = float(scenario.start_ms)
        catalog_ms = scenario.start_ms
        with ThreadPoolExecutor(_WORKERS) as pool:
            while (now_ms := self._clock.now_ms()) < scenario.end_ms:
                for update in self._world.catalog_updates(catalog_ms, now_ms):
                    self._later(update.time_ms, update)
                catalog_ms = now_ms
                while next_ms <= now_ms:
                    (user_id,) = self._world.users_at(int(next_ms))
                    explores = self._rng.random() < self._plan.explored
                    pool.submit(self._explore if explores else self._visit, user_id)
                    next_ms += interval_ms
                self._publish_due(now_ms)
                self._clock.sleep(_TICK_S)
        self._publish_due(2**62)

    def _visit(self, user_id: str) -> None:
        """Ask for a list, and plan what the user will do with it."""
        self._announce(user_id)
        started_s = self._clock.stopwatch_s()
        try:
            answer = self._recommender.Recommend(
                recommender_pb2.RecommendRequest(user_id=user_id, limit=self._plan.list_size),
                timeout=_CALL_TIMEOUT_S,
            )
        except grpc.RpcError as error:
            logger.warning("recommend failed", extra={"code": str(error.code())})
            with self._lock:
                self.report.failed += 1
            return
        elapsed_ms = (self._clock.stopwatch_s() - started_s) * 1_000
        shown_ms = self._clock.now_ms()
        item_ids = [item.item_id for item in answer.items]
        path = recommender_pb2.AnswerPath.Name(answer.info.path)
        with self._lock:
            self.report.lists += 1
            self.report.latencies_ms.append(elapsed_ms)
            self.report.paths[path] = self.report.paths.get(path, 0) + 1
        self._act(user_id, item_ids, shown_ms, answer.impression_id or None)

    def _explore(self, user_id: str) -> None:
        """Show a list drawn at random from the catalog, as a small share of any traffic should."""
        self._announce(user_id)
        now_ms = self._clock.now_ms()
        catalog = self._world.available_items(now_ms)
        rng = np.random.default_rng([self._plan.seed, 2, now_ms])
        chosen = rng.choice(len(catalog), self._plan.list_size, replace=False)
        item_ids = [catalog[index] for index in chosen.tolist()]
        impression = Impression(
            event_id=f"random-{uuid.uuid4()}",
            time_ms=now_ms,
            user_id=user_id,
            items=tuple(
                ShownItem(item_id=item_id, position=position)
                for position, item_id in enumerate(item_ids)
            ),
        )
        self._later(now_ms, impression)
        self._act(user_id, item_ids, now_ms, impression.event_id)

    def _act(
        self, user_id: str, item_ids: list[str], shown_ms: int, impression_id: str | None
    ) -> None:
        """Plan what the user will do with a list."""
        for action in self._world.respond(user_id, item_ids, shown_ms):
            feedback = Feedback(
                event_id=f"{impression_id}-{action.item_id}-{action.kind}",
                time_ms=shown_ms + action.delay_ms,
                user_id=user_id,
                item_id=action.item_id,
                kind=action.kind,
                impression_id=impression_id,
            )
            self._later(feedback.time_ms, feedback)

    def _announce(self, user_id: str) -> None:
        with self._lock:
            known = user_id in self._known_users
            self._known_users.add(user_id)
        if not known:
            now_ms = self._clock.now_ms()
            self._later(now_ms, self._world.user_update(user_id, now_ms))

    def _later(self, time_ms: int, event: Event) -> None:
        with self._lock:
            self._numbered += 1
            heapq.heappush(self._due, (time_ms, self._numbered, event))

    def _publish_due(self, now_ms: int) -> None:
        """Publish what has happened by now; now and then twice, as real clients do."""
        events: list[Event] = []
        with self._lock:
            while self._due and self._due[0][0] <= now_ms and len(events) < _MOST_EVENTS:
                events.append(heapq.heappop(self._due)[2])
        if not events:
            return
        repeated = [event for event in events if self._rng.random() < _DUPLICATE_SHARE]
        self.report.duplicates += len(repeated)
        self._publish([*events, *repeated])

    def _publish(self, events: list[Event]) -> None:
        request = events_pb2.PublishRequest(events=[event_to_message(event) for event in events])
        try:
            self._events.Publish(request, timeout=_CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            logger.warning("publish failed", extra={"code": str(error.code())})
            self.report.failed += 1
            return
        self.report.published += len(events)


def run_users(plan: DemoPlan, start_ms: int, address: str, report: Path) -> None:
    """Run the users of a demo in this process and write what they saw."""
    crowd = UserCrowd(World(plan.scenario(start_ms)), plan, address, SystemClock())
    crowd.run()
    crowd.report.write(report)
