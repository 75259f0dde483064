"""One real `headrace up` for all tests that look at a running Headrace from outside.

It is started when the first of them asks for it, with small models on an embedded log, and ended
with the test session.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
from prometheus_client.parser import text_string_to_metric_families

from domain.events import Event
from protos.headrace.v1 import events_pb2, events_pb2_grpc, recommender_pb2, recommender_pb2_grpc
from replay.simulator import SimulatedDataset
from stream.codec import event_to_message
from tests.loop_worlds import tiny_scenario, tiny_world
from tests.process_helpers import (
    flags,
    free_port,
    headrace,
    wait_for_serving,
    wait_until,
    write_schema,
)

_NUM_LISTS = 240


@dataclass(frozen=True)
class LiveHeadrace:
    """A running trainer and server, and the ports they listen on.

    Attributes:
        config: flags by which other commands read the same schema.
    """

    data_dir: Path
    channel: grpc.Channel
    trainer_port: int
    server_port: int
    config: list[str]

    def publish(self, events: list[Event]) -> None:
        """Publish events, as a client does."""
        request = events_pb2.PublishRequest(events=[event_to_message(event) for event in events])
        events_pb2_grpc.EventsStub(self.channel).Publish(request, timeout=10.0)

    def recommend(self, user_id: str) -> list[str]:
        """Ask for a list of three, as a client does."""
        request = recommender_pb2.RecommendRequest(user_id=user_id, limit=3)
        stub = recommender_pb2_grpc.RecommenderStub(self.channel)
        return [item.item_id for item in stub.Recommend(request, timeout=10.0).items]

    def metric(self, port: int, name: str, **labels: str) -> float | None:
        """Return the sum of what a process shows on its page for a metric, None when nothing."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10.0) as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        found = [
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def events_taken_in(self) -> float:
        """Return how many events the trainer has led through its loop."""
        return self.metric(self.trainer_port, "headrace_stream_events_total") or 0.0


def world() -> list[Event]:
    """Return the events of the world that it lives in, in order of arrival."""
    return tiny_world(_NUM_LISTS)[1]


@functools.cache
def live_headrace() -> LiveHeadrace:
    """Return the running one, which has taken in the first half of the world."""
    stack = ExitStack()
    atexit.register(stack.close)
    folder = Path(tempfile.mkdtemp(prefix="headrace-live-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    grpc_port, trainer_port, server_port = free_port(), free_port(), free_port()
    config = write_schema(
        folder / "schema.toml", SimulatedDataset(tiny_scenario(_NUM_LISTS)).schema
    )
    settings = (
        "checkpoint.every_s=2",
        "batcher.max_examples=40",
        "batcher.linger_ms=60_000",
        "joiner.attribution_window_ms=360_000",
        # Fields are looked at every 8 lists, in windows of 24; the first 48 are the reference.
        "drift.fields.max_requests_per_s=1000",
        "drift.fields.step_requests=8",
        "drift.fields.window_steps=3",
        "drift.fields.reference_steps=6",
        "drift.fields.report_ms=60_000",
        f"metrics.trainer_port={trainer_port}",
        f"metrics.server_port={server_port}",
    )
    words = ["up", "--data-dir", str(folder / "data"), "--grpc", f"127.0.0.1:{grpc_port}"]
    running = stack.enter_context(
        headrace(*words, *config, *flags(*settings), output=folder / "up.log")
    )
    channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{grpc_port}"))
    wait_for_serving(running, channel)
    live = LiveHeadrace(folder / "data", channel, trainer_port, server_port, config)
    events = world()
    first = events[: len(events) // 2]
    live.publish(first)
    wait_until(lambda: live.events_taken_in() >= len(first), 60.0, "the trainer took it all in")
    wait_until(lambda: len(live.recommend("u1")) == 3, 30.0, "three items are recommended")
    return live
