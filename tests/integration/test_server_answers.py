"""Answers over a real gRPC server."""

from __future__ import annotations

import threading
import time

import grpc
import pytest

from domain.events import Impression, ItemUpdate
from protos.headrace.v1 import ranking_pb2, recommender_pb2, retrieval_pb2
from tests.unit.serving.running_server import RunningServer, items_of
from tests.unit.serving.worlds import (
    Broken,
    CatalogRetriever,
    NumberRanker,
    make_known,
    make_models,
)


@pytest.fixture
def server(tmp_path):
    running = RunningServer(tmp_path)
    running.start()
    yield running
    running.close()


def known(**parts):
    def make():
        models = make_models("s1", **parts)
        make_known(models, "ann", "i0")
        return models

    return make


def test_server_recommends_and_logs_the_impression_it_answered(server):
    server.serve("s1", known())
    response = server.recommend("ann", limit=2, tab="home")
    assert items_of(response) == ["i9", "i8"]
    assert response.info.snapshot_id == "s1"
    assert response.info.path == recommender_pb2.ANSWER_PATH_RANKED
    (impression,) = server.stored()
    assert isinstance(impression, Impression)
    assert impression.event_id == response.impression_id
    assert [(item.item_id, item.position, item.score) for item in impression.items] == [
        (item.item_id, position, item.score) for position, item in enumerate(response.items)
    ]
    assert (impression.user_id, impression.snapshot_id) == ("ann", "s1")
    assert impression.context == {"tab": "home"}


def test_server_retrieves_and_ranks(server):
    server.serve("s1", known())
    request = retrieval_pb2.RetrieveRequest(user_id="ann", limit=3, exclude_seen=True)
    response = server.retrieval.Retrieve(request, timeout=5.0)
    assert items_of(response) == ["i1", "i2", "i3"]
    assert response.info.path == recommender_pb2.ANSWER_PATH_RETRIEVED
    ranked = server.ranking.Rank(
        ranking_pb2.RankRequest(user_id="ann", item_ids=items_of(response)), timeout=5.0
    )
    assert items_of(ranked) == ["i3", "i2", "i1"]
    assert server.stored() == []


@pytest.mark.parametrize(
    ("parts", "user_id", "path", "items"),
    [
        ({}, "ann", "RANKED", ["i9", "i8"]),
        ({"ranker": NumberRanker()}, "stranger", "COLD_START", ["i9", "i8"]),
    ],
)
def test_server_says_which_path_answered(server, parts, user_id, path, items):
    server.serve("s1", known(**parts))
    response = server.recommend(user_id, limit=2)
    assert recommender_pb2.AnswerPath.Name(response.info.path) == f"ANSWER_PATH_{path}"
    assert items_of(response) == items


@pytest.mark.parametrize(
    ("breakage", "path", "items"),
    [
        ("ranker", "RETRIEVED", ["i1", "i2"]),
        ("retriever", "POPULAR", ["i1", "i2"]),
    ],
)
def test_server_answers_by_a_simpler_path_when_a_live_model_breaks(server, breakage, path, items):
    """Warm-up keeps broken models out; these break afterwards."""
    bundles = []

    def make():
        parts = {"ranker": Breakable(NumberRanker()), "retriever": Breakable(CatalogRetriever())}
        bundles.append(known(**parts)())
        return bundles[-1]

    server.serve("s1", make)
    getattr(bundles[0], breakage).broken = {"ranker": "predict", "retriever": "retrieve"}[breakage]
    response = server.recommend("ann", limit=2)
    assert recommender_pb2.AnswerPath.Name(response.info.path) == f"ANSWER_PATH_{path}"
    assert items_of(response) == items


class Breakable:
    """Passes everything on until one verb breaks."""

    def __init__(self, model) -> None:
        self._model = model
        self.broken = ""

    def __getattr__(self, verb):
        return getattr(Broken() if verb == self.broken else self._model, verb)


def test_server_takes_a_published_action_into_the_next_answer(server):
    server.serve("s1")
    first = server.recommend("eve", limit=3)
    assert items_of(first) == ["i9", "i8", "i7"]
    assert server.click("eve", "i9") == ["eve-i9"]
    started = time.monotonic()
    while "i9" in items_of(server.recommend("eve", limit=3)):
        assert time.monotonic() - started < 2.0  # usually 0.02
    response = server.recommend("eve", limit=3)
    assert items_of(response) == ["i8", "i7", "i6"]
    assert response.info.path == recommender_pb2.ANSWER_PATH_RANKED


def test_server_takes_a_withdrawn_item_out_and_a_new_one_in(server):
    server.serve("s1", known())
    server.publish(
        ItemUpdate(event_id="a", time_ms=5, item_id="i9", available=False),
        ItemUpdate(event_id="b", time_ms=5, item_id="i50"),
    )
    started = time.monotonic()
    while items_of(server.recommend("ann", limit=2)) != ["i50", "i8"]:
        assert time.monotonic() - started < 2.0


def test_server_never_mixes_snapshots_while_they_are_swapped(server):
    """Items of snapshot k are named k-0..k-9 and its ranker scores them by k; 60 swaps."""

    def bundle(number: int):
        class OwnItemsOnly(NumberRanker):
            def capture(self, request):
                assert all(item.startswith(f"{number}-") for item in request.item_ids)
                return super().capture(request)

            def predict(self, captured):
                assert captured[0].item_ids[0].startswith(f"{number}-")
                time.sleep(0.001)  # a chance for a swap in the middle
                return super().predict(captured)

        ranker = OwnItemsOnly(scale=1.0 / (number + 1_000_000))
        names = tuple(f"{number}-{index}" for index in range(10))
        models = make_models(str(number), retriever=CatalogRetriever(names), ranker=ranker)
        make_known(models, "ann", f"{number}-0")
        return models

    server.serve("0", lambda: bundle(0))
    answers, errors, stop = [], [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(server.recommend("ann", limit=5))
            except grpc.RpcError as error:
                errors.append(error)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for number in range(1, 61):
        server.serve(str(number), lambda number=number: bundle(number))
    stop.set()
    for client in clients:
        client.join(10)
    assert errors == []
    assert len({answer.info.snapshot_id for answer in answers}) > 10
    for answer in answers:
        owners = {item.item_id.partition("-")[0] for item in answer.items}
        assert owners == {answer.info.snapshot_id}
        assert answer.info.path == recommender_pb2.ANSWER_PATH_RANKED
    logged = [event for event in server.stored() if isinstance(event, Impression)]
    by_id = {event.event_id: event for event in logged}
    for answer in answers:
        impression = by_id[answer.impression_id]
        assert impression.snapshot_id == answer.info.snapshot_id
        assert [item.item_id for item in impression.items] == items_of(answer)


def test_server_goes_on_with_the_old_snapshot_when_the_new_one_is_damaged(server):
    server.serve("s1")
    server.shelf.put_damaged("s2")
    while not server.watcher.refused_ids:
        time.sleep(0.002)
    assert server.recommend("ann").info.snapshot_id == "s1"
    server.serve("s3")
    assert server.recommend("ann").info.snapshot_id == "s3"
    assert server.watcher.refused_ids == ("s2",)
