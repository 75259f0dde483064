"""The load beside which freshness is measured: events and requests at a steady rate, a process.

    python -m benchmarks.freshness_traffic HOST:PORT PLAN.json REPORT.json

Events happen as a simulated world says, are published when they happen, and are not sent twice.
Requests come at fixed times whether or not earlier ones were answered, so that a server that stands
still is seen by all who came meanwhile. What went wrong and how long requests took is written to
the report at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import numpy as np

from protos.headrace.v1 import (
    events_pb2,
    events_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
)
from replay.scenarios import Population, Scenario, Traffic
from replay.simulator import clean_events
from replay.world import World
from stream.codec import event_to_message

_TICK_S = 0.05
_MOST_EVENTS = 500
_TIMEOUT_S = 10.0
_EVENTS_PER_LIST = 4.43
"""A list of ten items is one event, and 3.43 clicks and likes come of it in this world: counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficPlan:
    """What is sent.

    Attributes:
        start_ms: when the first user comes.
        rate: events per second.
        requests: requests per second: half Recommend, a quarter each Retrieve and Rank.
        warm_up_s: time from the start in which requests are made and not counted.
    """

    seconds: float
    start_ms: int
    rate: float = 500.0
    requests: float = 50.0
    warm_up_s: float = 10.0
    num_users: int = 2_000
    num_items: int = 1_000
    num_ranked: int = 100
    seed: int = 1

    @property
    def scenario(self) -> Scenario:
        """Return the world."""
        return Scenario(
            id="freshness",
            description="users come at the same rate from beginning to end",
            seed=self.seed,
            start_ms=self.start_ms,
            duration_ms=int(1_000 * self.seconds),
            population=Population(
                num_users=self.num_users,
                num_items=self.num_items,
                newcomer_users=0.0,
                newcomer_items=0.0,
                withdrawn_items=0.0,
            ),
            traffic=Traffic(
                num_lists=int(self.seconds * self.rate / _EVENTS_PER_LIST),
                list_size=10,
                feedback_delay_ms=1_000,
                max_feedback_delay_ms=5_000,
                lists_per_session=1.0,
            ),
        )


class Tally:
    """Counts and times of several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = {}

    def count(self, what: str, number: int = 1) -> None:
        """Add to a count."""
        with self._lock:
            self.counts[what] += number

    def took(self, what: str, seconds: float) -> None:
        """Add the time of a request."""
        with self._lock:
            self.seconds.setdefault(what, []).append(seconds)


def publish_all(plan: TrafficPlan, channel: grpc.Channel, tally: Tally) -> None:
    """Publish every event when it happens."""
    stub = events_pb2_grpc.EventsStub(channel)
    events = clean_events(World(plan.scenario))
    waiting = next(events, None)
    while waiting is not None and waiting.time_ms < plan.scenario.end_ms:
        now_ms = time.time() * 1_000
        due = []
        while waiting is not None and waiting.time_ms <= now_ms and len(due) < _MOST_EVENTS:
            due.append(event_to_message(waiting))
            waiting = next(events, None)
        if due:
            began_s = time.monotonic()
            try:
                stub.Publish(events_pb2.PublishRequest(events=due), timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                tally.count(f"error Publish {error.code().name}")
            else:
                tally.count("published", len(due))
                tally.took("Publish", time.monotonic() - began_s)
        if len(due) < _MOST_EVENTS:
            time.sleep(_TICK_S)


class Asker:
    """Makes one request after the other; each kind in its turn."""

    def __init__(self, plan: TrafficPlan, channel: grpc.Channel, tally: Tally) -> None:
        self._plan = plan
        self._tally = tally
        self._recommend = recommender_pb2_grpc.RecommenderStub(channel).Recommend
        self._retrieve = retrieval_pb2_grpc.RetrievalStub(channel).Retrieve
        self._rank = ranking_pb2_grpc.RankingStub(channel).Rank
        self._rng = np.random.default_rng(plan.seed)
        self._item_ids = [f"i{number}" for number in range(plan.num_items)]

    def run(self) -> None:
        """Ask at the plan's rate until its end."""
        began_s = time.monotonic()
        kinds = ("Recommend", "Retrieve", "Recommend", "Rank")
        with ThreadPoolExecutor(32) as threads:
            for number in range(int(self._plan.seconds * self._plan.requests)):
                due_s = began_s + number / self._plan.requests
                time.sleep(max(0.0, due_s - time.monotonic()))
                user_id = f"u{self._rng.integers(self._plan.num_users)}"
                first = int(self._rng.integers(len(self._item_ids) - self._plan.num_ranked + 1))
                counted = due_s - began_s >= self._plan.warm_up_s
                kind = kinds[number % len(kinds)]
                threads.submit(self._ask, kind, user_id, first, due_s, counted)

    def _ask(self, kind: str, user_id: str, first: int, due_s: float, counted: bool) -> None:
        try:
            if kind == "Recommend":
                request = recommender_pb2.RecommendRequest(user_id=user_id, limit=10)
                self._recommend(request, timeout=_TIMEOUT_S)
            elif kind == "Retrieve":
                wanted = retrieval_pb2.RetrieveRequest(user_id=user_id, limit=100)
                self._retrieve(wanted, timeout=_TIMEOUT_S)
            else:
                items = self._item_ids[first : first + self._plan.num_ranked]
                listed = ranking_pb2.RankRequest(user_id=user_id, item_ids=items)
                self._rank(listed, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            self._tally.count(f"error {kind} {error.code().name}")
        else:
            self._tally.count("answered")
            if counted:
                self._tally.took(kind, time.monotonic() - due_s)


def main() -> int:
    """Send until the plan ends, then write the report."""
    parser = argparse.ArgumentParser(description="Events and requests at a steady rate.")
    parser.add_argument("server", help="HOST:PORT")
    parser.add_argument("plan", type=Path)
    parser.add_argument("report", type=Path)
    given = parser.parse_args()
    plan, tally = read_plan(given.plan), Tally()
    with grpc.insecure_channel(given.server) as channel:
        asker = threading.Thread(target=Asker(plan, channel, tally).run)
        asker.start()
        publish_all(plan, channel, tally)
        asker.join()
    given.report.write_text(json.dumps({"counts": tally.counts, "seconds": tally.seconds}))
    return 0


def write_plan(plan: TrafficPlan, path: Path) -> None:
    """Write a plan for the process that carries it out."""
    path.write_text(json.dumps(asdict(plan)))


def read_plan(path: Path) -> TrafficPlan:
    """Return what `write_plan` wrote."""
    return TrafficPlan(**json.loads(path.read_text()))


if __name__ == "__main__":
    sys.exit(main())
