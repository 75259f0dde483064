"""Half of a soak's traffic, by one of the two ways in: `grpc` or `kafka`. A process of its own.

Events are sent when they happen: an event's time is the present, give or take a tick. What was sent
and what went wrong is written to a file, a line every few seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import grpc
import numpy as np

from benchmarks.soak.plan import SoakPlan, read_plan
from domain.errors import LogUnavailableError
from domain.events import Event, ItemUpdate
from protos.headrace.v1 import events_pb2, events_pb2_grpc, recommender_pb2, recommender_pb2_grpc
from replay.simulator import clean_events
from replay.world import World
from stream.codec import event_to_message
from stream.open_log import open_log

Store: TypeAlias = Callable[[list[Event]], None]
"""Returns when the events are stored."""

WAYS = ("grpc", "kafka")
TICK_S = 0.1
_MOST_EVENTS = 500
_TIMEOUT_S = 10.0
_TELL_EVERY_S = 5.0


def way_of(event: Event) -> str:
    """Return which way in an event takes: a user always the same, so that her events stay in order.

    The catalog goes through gRPC.
    """
    if isinstance(event, ItemUpdate):
        return "grpc"
    return WAYS[zlib.crc32(event.user_id.encode()) % 2]


class Report:
    """Counts since the beginning and latencies since the last line, written down now and then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._latencies_ms: list[float] = []
        self._told_s = time.monotonic()

    def count(self, what: str, number: int = 1) -> None:
        """Add to a count."""
        with self._lock:
            self._counts[what] += number

    def latency(self, milliseconds: float) -> None:
        """Add the time that a Recommend took, as its caller saw it."""
        with self._lock:
            self._latencies_ms.append(milliseconds)

    def tell(self, *, behind_s: float, last: bool = False) -> None:
        """Write a line when it is time to."""
        with self._lock:
            if not last and time.monotonic() - self._told_s < _TELL_EVERY_S:
                return
            self._told_s = time.monotonic()
            line = {"counts": dict(self._counts), "behind_s": behind_s}
            if self._latencies_ms:
                p50, p99 = np.percentile(self._latencies_ms, [50, 99])
                line |= {"p50_ms": float(p50), "p99_ms": float(p99)}
                self._latencies_ms.clear()
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def send_all(
    plan: SoakPlan, way: str, store: Callable[[list[Event]], None], report: Report
) -> None:
    """Send this way's events as their time comes, until the world ends."""
    world = World(plan.scenario)
    events = (event for event in clean_events(world) if way_of(event) == way)
    for due in _as_time_goes(events, plan.scenario.end_ms):
        for first in range(0, len(due), _MOST_EVENTS):
            batch = due[first : first + _MOST_EVENTS]
            store(batch)
            report.count("sent", len(batch))
        behind_s = max(0.0, time.time() - due[-1].time_ms / 1_000) if due else 0.0
        report.tell(behind_s=behind_s)
    report.tell(behind_s=0.0, last=True)


def _as_time_goes(events: Iterator[Event], end_ms: int) -> Iterator[list[Event]]:
    """Yield the events of each tick."""
    waiting = next(events, None)
    while waiting is not None:
        now_ms = time.time() * 1_000
        due = []
        while waiting is not None and waiting.time_ms <= min(now_ms, end_ms):
            due.append(waiting)
            waiting = next(events, None)
        yield due
        if waiting is None or waiting.time_ms > end_ms:
            return
        time.sleep(TICK_S)


def through_grpc(channel: grpc.Channel, report: Report) -> Store:
    """Return what publishes events, again and again until they are stored."""
    stub = events_pb2_grpc.EventsStub(channel)

    def store(events: list[Event]) -> None:
        request = events_pb2.PublishRequest(events=[event_to_message(one) for one in events])
        while True:
            try:
                stub.Publish(request, timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                report.count(f"error Publish {error.code().name}")
                time.sleep(TICK_S)
            else:
                return

    return store


def to_kafka(url: str, report: Report) -> Store:
    """Return what appends events, again and again until they are stored."""
    log = open_log(url)

    def store(events: list[Event]) -> None:
        while True:
            try:
                log.append(events)
            except LogUnavailableError:
                report.count("error append UNAVAILABLE")
                time.sleep(TICK_S)
            else:
                return

    return store


def recommend_for_ever(plan: SoakPlan, channel: grpc.Channel, report: Report) -> None:
    """Ask for lists at the plan's rate, as long as the process lives."""
    stub = recommender_pb2_grpc.RecommenderStub(channel)
    rng = np.random.default_rng(plan.seed)
    num_users = plan.scenario.population.num_users
    while True:
        began = time.monotonic()
        request = recommender_pb2.RecommendRequest(user_id=f"u{rng.integers(num_users)}", limit=10)
        try:
            stub.Recommend(request, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            report.count(f"error Recommend {error.code().name}")
        else:
            report.count("recommended")
            report.latency(1_000 * (time.monotonic() - began))
        time.sleep(max(0.0, began + 1.0 / plan.recommend_rate - time.monotonic()))


def main() -> int:
    """Send one way's events until the world ends."""
    parser = argparse.ArgumentParser(description="Send half of a soak's events.")
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("target", help="HOST:PORT of the server, or kafka://HOST:PORT")
    parser.add_argument("plan", type=Path)
    parser.add_argument("report", type=Path)
    options = parser.parse_args()
    plan, report = read_plan(options.plan), Report(options.report)
    if options.way == "kafka":
        send_all(plan, "kafka", to_kafka(options.target, report), report)
        return 0
    with grpc.insecure_channel(options.target) as channel:
        arguments = (plan, channel, report)
        threading.Thread(target=recommend_for_ever, args=arguments, daemon=True).start()
        send_all(plan, "grpc", through_grpc(channel, report), report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
