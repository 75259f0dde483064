"""A user's own action is in her history before her next request: real gRPC, real logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.event_log import EventLog
from domain.events import ItemUpdate, UserUpdate
from protos.headrace.v1 import retrieval_pb2
from stream.sqlite_log import SqliteLog
from tests import kafka_broker
from tests.unit.serving.running_server import RunningServer, items_of
from tests.unit.serving.worlds import CLOCK, make_models


def sqlite_log(folder: Path) -> EventLog:
    return SqliteLog(folder / "log.sqlite")


def kafka_log(folder: Path) -> EventLog:
    return kafka_broker.KafkaLog(kafka_broker.bootstrap(), kafka_broker.fresh_config())


@pytest.fixture(params=[sqlite_log, kafka_log], ids=["sqlite", "kafka"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path, log=request.param(tmp_path))
    running.start()
    running.serve("s1")
    yield running
    running.close()


def unseen(server: RunningServer, user_id: str) -> list[str]:
    """What Retrieve gives her that she has not acted on."""
    request = retrieval_pb2.RetrieveRequest(user_id=user_id, limit=10, exclude_seen=True)
    return items_of(server.retrieval.Retrieve(request, timeout=5.0))


def test_after_every_acknowledgement_the_next_request_knows_the_action(
    server: RunningServer,
) -> None:
    left = unseen(server, "ann")
    assert len(left) == 10
    while left:
        server.click("ann", left[0])
        assert unseen(server, "ann") == left[1:]
        left = left[1:]


def test_a_tail_that_stands_still_keeps_no_action_from_its_user(server: RunningServer) -> None:
    server.tail.stop()  # a log that answers late, or not at all
    server.click("ann", "i0")
    assert "i0" not in unseen(server, "ann")
    server.publish(ItemUpdate(event_id="n", time_ms=CLOCK.now_ms(), item_id="i77"))
    assert unseen(server, "ann")[-1] == "i77"
    user = UserUpdate(event_id="u", time_ms=CLOCK.now_ms(), user_id="bob", features={"age": 3.0})
    server.publish(user)
    models = server.slot.current()
    assert models.feature_store.user_view("bob", CLOCK.now_ms()).features == {"age": 3.0}


def test_a_new_snapshot_knows_what_its_tail_has_not_come_to(server: RunningServer) -> None:
    server.tail.stop()
    server.click("ann", "i0")
    server.serve("s2", lambda: make_models("s2", positions=server.tail.positions))
    assert "i0" not in unseen(server, "ann")
