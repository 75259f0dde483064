"""What users do reaches answers: at once through histories, soon through learning."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem
from domain.features import FeatureSchema, Field
from protos.headrace.v1 import (
    events_pb2,
    events_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
)
from stream.codec import event_to_message
from tests.process_helpers import (
    START_S,
    flags,
    free_port,
    headrace,
    wait_for_serving,
    wait_until,
    write_schema,
)

SCHEMA = FeatureSchema(
    fields=(Field(name="colour", entity="item", kind="categorical", counted=True),)
)
RED = tuple(f"red-{number}" for number in range(8))
BLUE = tuple(f"blue-{number}" for number in range(8))
SETTINGS = (
    "joiner.attribution_window_ms=1000",
    "watermark.allowed_lateness_ms=200",
    "batcher.linger_ms=500",
    "batcher.max_examples=32",
    "checkpoint.every_s=1",
    "watcher.poll_ms=100",
    "drift.detectors=[]",
)


class Client:
    """A caller of the server, who knows what it is in events."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._events = events_pb2_grpc.EventsStub(channel)
        self._recommender = recommender_pb2_grpc.RecommenderStub(channel)
        self._ranking = ranking_pb2_grpc.RankingStub(channel)

    def publish(self, *events: Event) -> None:
        messages = [event_to_message(event) for event in events]
        self._events.Publish(events_pb2.PublishRequest(events=messages), timeout=10.0)

    def recommend(self, user_id: str) -> tuple[str, list[str]]:
        """Return the path that answered and all items it could recommend."""
        request = recommender_pb2.RecommendRequest(user_id=user_id, limit=16)
        answer = self._recommender.Recommend(request, timeout=10.0)
        path = recommender_pb2.AnswerPath.Name(answer.info.path)
        return path.removeprefix("ANSWER_PATH_"), [item.item_id for item in answer.items]

    def rank(self, user_id: str) -> tuple[str, list[str]]:
        """Return the snapshot that answered and all items, best first."""
        request = ranking_pb2.RankRequest(user_id=user_id, item_ids=[*BLUE, *RED])
        answer = self._ranking.Rank(request, timeout=10.0)
        return answer.info.snapshot_id, [item.item_id for item in answer.items]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder: Path = tmp_path_factory.mktemp("answers-change")
    address = f"127.0.0.1:{free_port()}"
    config = write_schema(folder / "schema.toml", SCHEMA)
    command = ["up", "--data-dir", str(folder / "data"), "--grpc", address]
    with (
        headrace(*command, *config, *flags(*SETTINGS), output=folder / "up.log") as up,
        grpc.insecure_channel(address) as channel,
    ):
        wait_for_serving(up, channel)
        client = Client(channel)
        client.publish(*_catalog(_now_ms()))
        wait_until(lambda: len(client.recommend("nobody")[1]) == 16, 10.0, "the catalog")
        yield client


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _catalog(time_ms: int) -> list[Event]:
    return [
        ItemUpdate(
            event_id=item_id,
            time_ms=time_ms,
            item_id=item_id,
            features={"colour": item_id.partition("-")[0]},
        )
        for item_id in (*RED, *BLUE)
    ]


def _lists_on_which_red_is_clicked(from_ms: int, count: int) -> list[Event]:
    """Lists of two red and two blue items, one each 200 ms; whoever sees them clicks the red.

    They run ahead of our clock, by less than a server tolerates, so that windows close at once.
    """
    rng = np.random.default_rng(3)
    events: list[Event] = []
    for number in range(count):
        shown_ms = from_ms + 200 * number
        items = rng.permutation([*rng.choice(RED, 2, False), *rng.choice(BLUE, 2, False)]).tolist()
        shown = Impression(
            event_id=f"list-{number}",
            time_ms=shown_ms,
            user_id=f"user-{number % 10}",
            items=tuple(ShownItem(item_id=item, position=at) for at, item in enumerate(items)),
        )
        events.append(shown)
        events += [
            Feedback(
                event_id=f"list-{number}-{item}",
                time_ms=shown_ms + 100,
                user_id=shown.user_id,
                item_id=item,
                kind="click",
                impression_id=shown.event_id,
            )
            for item in items
            if item in RED
        ]
    return events


def _mean_place(order: list[str], items: tuple[str, ...]) -> float:
    return float(np.mean([order.index(item) for item in items]))


def test_own_action_changes_the_next_answer_within_two_seconds(client: Client) -> None:
    path, before = client.recommend("ann")
    taken = before[0]
    assert path == "COLD_START"
    click = Feedback(
        event_id="ann-clicks", time_ms=_now_ms(), user_id="ann", item_id=taken, kind="click"
    )
    client.publish(click)
    stored = time.monotonic()
    while taken in (answer := client.recommend("ann"))[1]:
        assert time.monotonic() - stored < 2.0
    path, after = answer
    assert path == "RANKED"
    assert sorted(after) == sorted(set(before) - {taken})
    assert client.recommend("somebody-else")[0] == "COLD_START"


def test_learning_changes_the_order_once_a_new_snapshot_is_live(client: Client) -> None:
    untrained_id, untrained = client.rank("user-3")
    events = _lists_on_which_red_is_clicked(_now_ms(), 120)
    client.publish(*events)

    def red_is_first() -> bool:
        snapshot_id, order = client.rank("user-3")
        return snapshot_id != untrained_id and set(order[:6]) <= set(RED)

    wait_until(red_is_first, START_S, "red items first")
    snapshot_id, trained = client.rank("user-3")
    # Ids begin with the step of their snapshot; "+N" counts the deltas applied since.
    assert snapshot_id != untrained_id
    assert snapshot_id.partition("-")[0] >= untrained_id.partition("-")[0]
    assert sorted(trained) == sorted(untrained)
    assert _mean_place(trained, RED) < _mean_place(untrained, RED)
    assert _mean_place(trained, RED) < _mean_place(trained, BLUE)
