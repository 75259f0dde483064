"""A server that shares no folder with the trainer: snapshots by copy, deltas through Kafka."""

from __future__ import annotations

import shutil
from pathlib import Path

import grpc

from protos.headrace.v1 import ranking_pb2, ranking_pb2_grpc
from replay.simulator import SimulatedDataset
from snapshot.local_store import LocalSnapshotStore
from stream.kafka_topics import deltas_plan
from tests.kafka_broker import KafkaLog, bootstrap, create_topics, fresh_config
from tests.loop_worlds import tiny_scenario, tiny_world
from tests.process_helpers import (
    flags,
    free_port,
    headrace,
    wait_for_serving,
    wait_until,
    write_schema,
)

NUM_LISTS = 200
SOON_S = 90.0


def copy_snapshots(theirs: Path, ours: Path) -> None:
    """As docs/deltas.md has it: the pointer is read first and put in place last."""
    ours.mkdir(parents=True, exist_ok=True)
    shutil.copy(theirs / "CURRENT", ours / ".next")
    shutil.copytree(
        theirs, ours, dirs_exist_ok=True, ignore=shutil.ignore_patterns("CURRENT", ".*")
    )
    (ours / ".next").rename(ours / "CURRENT")


def test_server_with_a_copy_of_the_first_snapshot_is_led_on_to_what_the_trainer_knows(
    tmp_path: Path,
) -> None:
    kafka = fresh_config()
    create_topics(bootstrap(), kafka, [deltas_plan(kafka)])
    config = write_schema(
        tmp_path / "schema.toml", SimulatedDataset(tiny_scenario(NUM_LISTS)).schema
    )
    settings = flags(
        f"data.log=kafka://{bootstrap()}",
        f"kafka.topic_prefix={kafka.topic_prefix}",
        f"kafka.group={kafka.group}",
        "kafka.num_partitions=2",
        "deltas.via=kafka",
        "deltas.every_ms=100",
        "checkpoint.every_s=4",
        "snapshot.keep=20",
        "batcher.max_examples=40",
        "batcher.linger_ms=60_000",
        "joiner.attribution_window_ms=360_000",
        "drift.detectors=[]",
    )
    there, here = tmp_path / "trainer", tmp_path / "server"
    address = f"127.0.0.1:{free_port()}"
    events = tiny_world(NUM_LISTS)[1]
    log = KafkaLog(bootstrap(), kafka)
    log.append(events[:100])
    with headrace(
        "train", *config, *settings, "--data-dir", str(there), output=tmp_path / "train.log"
    ):
        store = LocalSnapshotStore(there / "snapshots")
        wait_until(lambda: store.current_id() is not None, SOON_S, "a snapshot")
        copy_snapshots(there / "snapshots", here / "snapshots")
        copied = LocalSnapshotStore(here / "snapshots").current_id()
        serve = ["serve", *config, *settings, "--data-dir", str(here), "--grpc", address]
        with (
            headrace(*serve, output=tmp_path / "serve.log") as server,
            grpc.insecure_channel(address) as channel,
        ):
            wait_for_serving(server, channel)

            def model() -> str:
                request = ranking_pb2.RankRequest(user_id="u1", item_ids=["i1"])
                stub = ranking_pb2_grpc.RankingStub(channel)
                return str(stub.Rank(request, timeout=10.0).info.snapshot_id)

            for first in range(100, len(events), 100):
                log.append(events[first : first + 100])
                at = {"before": model()}
                wait_until(lambda at=at: model() != at["before"], SOON_S, "a delta was applied")
            name, _, number = model().partition("+")
            assert name == copied
            assert int(number) > 0
            wait_until(lambda: store.list()[-1].extra["events"] >= len(events), SOON_S, "the end")
            end = store.list()[-1].extra["delta"]["number"]
            wait_until(lambda: int(model().partition("+")[2]) >= end, SOON_S, "all deltas")
            copy_snapshots(there / "snapshots", here / "snapshots")
            newest = str(store.current_id())
            wait_until(
                lambda: model().partition("+")[0] == newest, SOON_S, "the newest is contained"
            )
            assert server.said.count("snapshot live") == 1, "only the first one was loaded"
    log.close()
    assert not (here / "deltas").exists()
    assert not (there / "deltas").exists()
