"""A real server follows a real trainer: what it answers and loads, and what operators do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from protos.headrace.v1 import ranking_pb2, ranking_pb2_grpc, retrieval_pb2, retrieval_pb2_grpc
from replay.simulator import SimulatedDataset
from snapshot.local_store import LocalSnapshotStore
from tests.live_headrace import LiveHeadrace
from tests.loop_worlds import tiny_scenario, tiny_world
from tests.process_helpers import (
    flags,
    free_port,
    headrace,
    run_headrace,
    wait_for_serving,
    wait_until,
    write_schema,
)

NUM_LISTS = 200
SETTINGS = (
    "batcher.max_examples=40",
    "batcher.linger_ms=60_000",
    "joiner.attribution_window_ms=360_000",
    "checkpoint.every_s=3",
    "snapshot.keep=8",
    "deltas.every_ms=100",
    "watcher.poll_ms=100",
    "drift.detectors=[]",
)
SOON_S = 60.0


@dataclass(frozen=True)
class Place:
    """A running trainer and server, and what is needed to start another server beside them."""

    live: LiveHeadrace
    folder: Path
    words: list[str]

    @property
    def store(self) -> LocalSnapshotStore:
        """The snapshots, as another process sees them."""
        return LocalSnapshotStore(self.folder / "data" / "snapshots")

    def models(self) -> str:
        """What the server says its models are."""
        return ask(self.live.channel, "nobody").model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder: Path = tmp_path_factory.mktemp("following")
    address = f"127.0.0.1:{free_port()}"
    trainer_port, server_port = free_port(), free_port()
    config = write_schema(folder / "schema.toml", SimulatedDataset(tiny_scenario(NUM_LISTS)).schema)
    words = ["--data-dir", str(folder / "data"), *config, *flags(*SETTINGS)]
    pages = [f"metrics.trainer_port={trainer_port}", f"metrics.server_port={server_port}"]
    ports = [word for page in pages for word in ("--set", page)]
    with (
        headrace("up", *words, *ports, "--grpc", address, output=folder / "up.log") as up,
        grpc.insecure_channel(address) as channel,
    ):
        wait_for_serving(up, channel)
        live = LiveHeadrace(folder / "data", channel, trainer_port, server_port, config)
        yield Place(live, folder, words)


@dataclass(frozen=True)
class Answer:
    """What a server says to somebody without history, and which models say it."""

    model: str
    retrieved: list[tuple[str, float]]
    ranked: dict[str, float]


def ask(channel: grpc.Channel, user_id: str) -> Answer:
    request = retrieval_pb2.RetrieveRequest(user_id=user_id, limit=30)
    found = retrieval_pb2_grpc.RetrievalStub(channel).Retrieve(request, timeout=10.0).items
    if not found:
        return Answer("", [], {})
    item_ids = [item.item_id for item in found]
    listed = ranking_pb2.RankRequest(user_id=user_id, item_ids=item_ids)
    ranked = ranking_pb2_grpc.RankingStub(channel).Rank(listed, timeout=10.0)
    return Answer(
        ranked.info.snapshot_id,
        [(item.item_id, item.score) for item in found],
        {item.item_id: item.score for item in ranked.items},
    )


def assert_same(before: Answer, other: Answer, after: Answer) -> None:
    """What another server says between two answers of the first is the same.

    The ranker's counters fade with time, so its scores lie between the two, but for a last bit.
    """
    assert (before.model, before.retrieved) == (other.model, other.retrieved)
    for item_id, score in other.ranked.items():
        first, last = before.ranked[item_id], after.ranked[item_id]
        slack = abs(first - last) + 1e-6
        assert min(first, last) - slack <= score <= max(first, last) + slack


def loads(place: Place) -> float:
    return place.live.metric(place.live.server_port, "headrace_serving_snapshot_swaps_total") or 0.0


def test_a_server_is_led_from_its_first_snapshot_to_the_newest_and_answers_as_one_that_loads_it(
    place: Place,
) -> None:
    events = tiny_world(NUM_LISTS)[1]
    half = len(events) // 2
    for first in range(0, half, 100):
        place.live.publish(events[first : min(first + 100, half)])
        wait_until(lambda first=first: place.live.events_taken_in() > first, SOON_S, "learning")
    wait_until(lambda: "+" in place.models(), SOON_S, "a delta was applied")
    wait_until(lambda: place.live.events_taken_in() >= half, SOON_S, "all events")

    def at_the_newest() -> bool:
        current = place.store.current_id()
        newest = place.store.list()[-1]
        return place.models() == current == newest.snapshot_id and (newest.extra["events"] >= half)

    wait_until(at_the_newest, SOON_S, "deltas lead to the newest snapshot")
    assert loads(place) == 1.0, "only the first snapshot was loaded"

    address = f"127.0.0.1:{free_port()}"
    off = ["--set", "delta_follower.enabled=false"]
    with (
        headrace(
            "serve", *place.words, *off, "--grpc", address, output=place.folder / "second.log"
        ) as second,
        grpc.insecure_channel(address) as channel,
    ):
        wait_for_serving(second, channel)
        for number in range(10):
            name = f"nobody-{number}"
            ours = place.live.channel
            assert_same(ask(ours, name), ask(channel, name), ask(ours, name))


def test_an_operator_goes_back_and_the_server_stays_there_until_the_trainer_goes_on(
    place: Place,
) -> None:
    events = tiny_world(NUM_LISTS)[1]
    half = len(events) // 2
    before = loads(place)
    snapshots = place.store.ids()
    assert len(snapshots) > 1
    older = snapshots[snapshots.index(str(place.store.current_id())) - 1]
    status, said = run_headrace(
        "snapshots", "rollback", "--data-dir", str(place.folder / "data"),
        output=place.folder / "rollback.log",
    )  # fmt: skip
    assert status == 0, said
    wait_until(lambda: place.models() == older, SOON_S, "the older snapshot answers")
    assert loads(place) == before + 1
    for first in range(half, len(events), 50):
        place.live.publish(events[first : first + 50])
        wait_until(lambda first=first: place.live.events_taken_in() > first, SOON_S, "learning")
    newest = place.store.ids()[-1]
    wait_until(lambda: str(place.store.current_id()) >= newest, SOON_S, "the next snapshot")
    wait_until(
        lambda: place.models().partition("+")[0] == place.store.current_id() != older,
        SOON_S,
        "the trainer's newest answers again",
    )
