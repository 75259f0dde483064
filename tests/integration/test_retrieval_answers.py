"""What retrieval answers over gRPC: what a replay answers, and new items by their content."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from app.learners import LearnerConfigs, Learners, build_learners
from app.settings import Settings
from app.trainer_wiring import build_loop
from domain.events import Event, Feedback, ItemUpdate
from domain.requests import RetrievalRequest
from monitoring.metrics import Metrics
from protos.headrace.v1 import events_pb2, filters_pb2, recommender_pb2, retrieval_pb2
from replay.run import replay_events
from retrieval.learner import RetrievalConfig, RetrievalModel
from retrieval.segments import SegmentsConfig
from retrieval.tower_config import TowerConfig
from stream.feature_store import FeatureStore
from stream.train_loop import TrainLoop
from tests.unit.serving.running_server import RunningServer, items_of, until
from tests.unit.serving.worlds import CLOCK, SCHEMA, make_models

NUM_ITEMS = 300
NUM_TAKEN = 40
NOW_MS = CLOCK.now_ms()
CONFIG = RetrievalConfig(
    tower=TowerConfig(width=8, max_history=8, num_blocks=1, content_learning_rate=0.3),
    segments=SegmentsConfig(features=("context.tab",), prior_actions=5.0),
    step_examples=32,
)


def tag_of(item: int) -> str:
    return ("even", "odd")[item % 2]


def described(item_id: str, tag: str, time_ms: int) -> ItemUpdate:
    return ItemUpdate(
        event_id=f"describe-{item_id}", time_ms=time_ms, item_id=item_id, features={"tags": (tag,)}
    )


def world() -> list[Event]:
    """Return items of two tags, and users who each take items of one tag, in the last hours."""
    rng = np.random.default_rng(4)
    begin_ms = NOW_MS - 4 * 60 * 60 * 1000
    events: list[Event] = [
        described(f"i{item}", tag_of(item), begin_ms) for item in range(NUM_ITEMS)
    ]
    for step in range(400):
        user = int(rng.integers(20))
        item = 2 * int(rng.integers(NUM_TAKEN // 2)) + user % 2
        events.append(
            Feedback(
                event_id=f"click-{step}",
                time_ms=begin_ms + (step + 1) * 30_000,
                user_id=f"u{user}",
                item_id=f"i{item}",
                kind="click",
                context={"tab": tag_of(item)},
            )
        )
    return events


class Replayed:
    """A world led through the train loop, as a replay leads it."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        settings = Settings(retrieval=CONFIG)
        learners: Learners = build_learners(SCHEMA, LearnerConfigs.of(settings))
        self.loop: TrainLoop = build_loop(settings, SCHEMA, learners, Metrics(), ())
        replay_events(world(), self.loop, lambda events, time_ms: None)
        self.retrieval = learners.retrieval


@pytest.fixture(scope="module")
def replayed() -> Replayed:
    return Replayed()


class Asked:
    """A retriever that keeps what it was asked."""

    def __init__(self, model: RetrievalModel) -> None:
        self.model = model
        self.requests: list[RetrievalRequest] = []
        self.popular_requests: list[RetrievalRequest] = []

    def retrieve(self, request: RetrievalRequest):
        self.requests.append(request)
        return self.model.retrieve(request)

    def popular(self, request: RetrievalRequest):
        self.popular_requests.append(request)
        return self.model.popular(request)

    def __getattr__(self, name: str):
        return getattr(self.model, name)


@pytest.fixture
def served(tmp_path, replayed: Replayed) -> Iterator[tuple[RunningServer, Asked]]:
    """A server of what a snapshot of the replay holds."""
    model = RetrievalModel(SCHEMA, CONFIG, seed=1)
    model.load(replayed.retrieval.save())
    store = FeatureStore(SCHEMA)
    store.load(replayed.loop.parts.feature_store.save())
    asked = Asked(model)
    server = RunningServer(tmp_path)
    server.start()
    server.serve("s1", lambda: make_models("s1", retriever=asked, feature_store=store))
    yield server, asked
    server.close()


def retrieve(server: RunningServer, user_id: str, limit: int):
    request = retrieval_pb2.RetrieveRequest(user_id=user_id, limit=limit, exclude_seen=True)
    return server.retrieval.Retrieve(request, timeout=10.0)


def test_answers_over_grpc_are_those_of_the_replay(
    served: tuple[RunningServer, Asked], replayed: Replayed
) -> None:
    server, asked = served
    store = replayed.loop.parts.feature_store
    for user in range(20):
        response = retrieve(server, f"u{user}", 30)
        time_ms = asked.requests[-1].time_ms
        expected = replayed.retrieval.retrieve(
            RetrievalRequest(
                store.user_view(f"u{user}", time_ms), time_ms, 30, store.seen(f"u{user}")
            )
        )
        assert tuple(items_of(response)) == expected.item_ids
        assert [item.score for item in response.items] == expected.scores.tolist()
        assert len(set(expected.scores.tolist())) > 10


def test_new_item_is_found_by_its_content_in_the_next_answer(
    served: tuple[RunningServer, Asked],
) -> None:
    # Everybody takes items of her own tag. Nobody took either new item, so only content tells.
    server, _ = served
    limit = 2 * NUM_TAKEN
    assert not {"new-odd", "new-even"} & set(items_of(retrieve(server, "u1", limit)))
    server.publish(
        described("new-odd", "odd", CLOCK.now_ms()), described("new-even", "even", CLOCK.now_ms())
    )
    until(lambda: "new-odd" in items_of(retrieve(server, "u1", NUM_ITEMS)))
    for user, mine, other in (("u1", "new-odd", "new-even"), ("u2", "new-even", "new-odd")):
        found = items_of(retrieve(server, user, limit))
        assert mine in found
        assert other not in found


def test_newcomers_are_answered_by_what_is_popular_in_their_tab(
    served: tuple[RunningServer, Asked],
) -> None:
    server, asked = served
    by_tab = {}
    for tab in ("even", "odd"):
        server.recommend("never seen", limit=10, tab=tab)
        found = asked.model.popular(asked.popular_requests[-1])
        by_tab[tab] = found.item_ids[: NUM_TAKEN // 2]
        assert {tag_of(int(item[1:])) for item in by_tab[tab]} == {tab}
    assert not set(by_tab["even"]) & set(by_tab["odd"])


@pytest.mark.parametrize("user_id", ["u1", "never seen"])
def test_filtered_answers_are_full_on_every_path(
    served: tuple[RunningServer, Asked], user_id: str
) -> None:
    # 98 items pass: fewer than Retrieve asks for, more than Recommend does.
    server, _ = served
    filters = filters_pb2.Filters(
        allow=events_pb2.StringList(values=[f"i{item}" for item in range(200)]),
        deny=["i3", "i5"],
        where=[
            filters_pb2.ItemCondition(
                feature="tags", one_of=events_pb2.StringList(values=["even"]), negated=True
            )
        ],
    )
    eligible = {f"i{item}" for item in range(1, 200, 2)} - {"i3", "i5"}
    retrieved = server.retrieval.Retrieve(
        retrieval_pb2.RetrieveRequest(user_id=user_id, limit=150, filters=filters), timeout=10.0
    )
    assert sorted(items_of(retrieved)) == sorted(eligible)
    recommended = server.recommender.Recommend(
        recommender_pb2.RecommendRequest(user_id=user_id, limit=40, filters=filters), timeout=10.0
    )
    assert len(items_of(recommended)) == 40
    assert set(items_of(recommended)) <= eligible
