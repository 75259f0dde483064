"""`headrace up` as a process: it serves, ends in order, and says in one line why it cannot."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from domain.events import Event, Impression
from protos.headrace.v1 import events_pb2, events_pb2_grpc
from replay.simulator import SimulatedDataset
from snapshot.local_store import LocalSnapshotStore
from stream.codec import decode, event_to_message
from stream.sqlite_log import SqliteLog
from tests.loop_worlds import tiny_scenario, tiny_settings, tiny_world
from tests.process_helpers import (
    START_S,
    STOP_S,
    Headrace,
    flags,
    free_port,
    headrace,
    wait_for_serving,
    wait_until,
    write_schema,
)
from tests.trainer_worlds import Workshop

# Without drift detectors a trainer starts in half the time.
SMALL = ("drift.detectors=[]", "checkpoint.every_s=2")


def _up(data_dir: Path, port: int) -> list[str]:
    schema = SimulatedDataset(tiny_scenario()).schema
    config = write_schema(data_dir.parent / "schema.toml", schema)
    address = ["--grpc", f"127.0.0.1:{port}"]
    return ["up", "--data-dir", str(data_dir), *address, *config, *flags(*SMALL)]


def _stored(data_dir: Path) -> list[Event]:
    log = SqliteLog(data_dir / "events.sqlite")
    records = log.read({}, max_records=100_000, timeout_s=0.0)
    log.close()
    return [decode(record.value) for record in records]


def _no_traceback(data_dir: Path, said: str) -> None:
    logs = [path.read_text() for path in (data_dir / "logs").iterdir()]
    assert len(logs) == 2
    assert [text for text in (said, *logs) if "Traceback" in text] == []


def _publish(channel: grpc.Channel, events: list[Event]) -> None:
    request = events_pb2.PublishRequest(events=[event_to_message(event) for event in events])
    events_pb2_grpc.EventsStub(channel).Publish(request, timeout=10.0)


def _recommend_by_reflection(channel: grpc.Channel, user_id: str) -> tuple[list[str], str]:
    """Ask as a client that knows nothing but the address; return items and impression id."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName("headrace.v1.Recommender").FindMethodByName("Recommend")
    request_class = GetMessageClass(method.input_type)
    response_class = GetMessageClass(method.output_type)
    call = channel.unary_unary(
        "/headrace.v1.Recommender/Recommend",
        request_serializer=request_class.SerializeToString,
        response_deserializer=response_class.FromString,
    )
    response = call(request_class(user_id=user_id, limit=3), timeout=10.0)
    return [item.item_id for item in response.items], response.impression_id


def test_up_serves_until_it_is_told_to_stop_and_keeps_all_it_took_in(tmp_path: Path) -> None:
    data_dir, port = tmp_path / "data", free_port()
    _, events = tiny_world(60)
    with (
        headrace(*_up(data_dir, port), output=tmp_path / "up.log") as up,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        wait_for_serving(up, channel)
        assert len(up.look()) == 2
        _publish(channel, events[:100])
        wait_until(
            lambda: len(_recommend_by_reflection(channel, "u1")[0]) == 3, 10.0, "three items"
        )
        _, impression_id = _recommend_by_reflection(channel, "u1")
        _publish(channel, events[100:])

        asked = time.monotonic()
        up.process.send_signal(signal.SIGTERM)
        assert up.wait() == 0, up.said
        assert time.monotonic() - asked < STOP_S
        assert up.living_children() == []

    stored = _stored(data_dir)
    assert {event.event_id for event in events} <= {event.event_id for event in stored}
    assert impression_id in {event.event_id for event in stored if isinstance(event, Impression)}
    last = LocalSnapshotStore(data_dir / "snapshots").load_current()
    assert last.manifest.positions == {"events/0": len(stored)}
    assert last.states["stream"]["counts"]["events"] == len(stored)
    assert up.said.splitlines()[-1].startswith("Stopped.")
    _no_traceback(data_dir, up.said)


def test_children_end_by_themselves_when_their_parent_is_killed(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with headrace(*_up(data_dir, free_port()), output=tmp_path / "up.log") as up:
        wait_until(lambda: len(up.look()) == 2, START_S, "two children")
        wait_until((data_dir / "snapshots").is_dir, START_S, "a snapshot on its way")
        up.process.kill()
        up.wait()
        wait_until(lambda: not up.living_children(), STOP_S, "the children have ended")
    assert LocalSnapshotStore(data_dir / "snapshots").verify("current") == []
    _no_traceback(data_dir, up.said)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def _damaged_data(data_dir: Path) -> str:
    """A folder whose only snapshot has a wrong byte; returns the name of that file."""
    data_dir.mkdir(parents=True)
    schema = SimulatedDataset(tiny_scenario()).schema
    workshop = Workshop(data_dir, schema, tiny_settings())
    workshop.run_to_end()
    (snapshot_id,) = workshop.store().ids()
    workshop.close()
    path = max((data_dir / "snapshots" / snapshot_id).iterdir(), key=lambda one: one.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    return path.name


def _why_it_ended(up: Headrace) -> str:
    """The one line that says why, once the process and its children are gone."""
    assert up.wait(START_S) == 1, up.said
    assert up.living_children() == []
    (reason,) = [line for line in up.said.splitlines() if line.startswith("headrace:")]
    return reason


def test_up_says_in_one_line_why_it_cannot_go_on(tmp_path: Path, taken_port: int) -> None:
    port_dir, damaged_dir = tmp_path / "port", tmp_path / "damaged"
    damaged = _damaged_data(damaged_dir)
    # Side by side, as most of the time goes into loading.
    with (
        headrace(*_up(port_dir, taken_port), output=tmp_path / "port.log") as no_port,
        headrace(*_up(damaged_dir, free_port()), output=tmp_path / "damaged.log") as no_snapshot,
    ):
        ups = (no_port, no_snapshot)

        def all_ended() -> bool:
            for up in ups:
                up.look()
            return all(up.process.poll() is not None for up in ups)

        wait_until(all_ended, 2 * START_S, "both have given up")
        port_reason, damaged_reason = (_why_it_ended(up) for up in ups)
    assert f"server.address: cannot listen on 127.0.0.1:{taken_port}" in port_reason
    assert "no snapshot is whole" in damaged_reason
    assert damaged in damaged_reason
    _no_traceback(port_dir, no_port.said)
    _no_traceback(damaged_dir, no_snapshot.said)
