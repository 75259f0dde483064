"""Servers are restarted one by one, workers are killed, trainers too: nobody who asks notices."""

from __future__ import annotations

import shutil
import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import psutil
import pytest

from protos.headrace.v1 import retrieval_pb2, retrieval_pb2_grpc
from tests.load_client import LoadClient
from tests.loop_worlds import tiny_settings, tiny_world
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A data folder with a snapshot, and the flags by which commands read its schema."""
    folder = tmp_path_factory.mktemp("restarted")
    schema, events = tiny_world(60)
    workshop = Workshop(folder / "data", schema, tiny_settings())
    workshop.log.append(events)
    workshop.run_to_end()
    workshop.close()
    return folder / "data", write_schema(folder / "schema.toml", schema)


@contextmanager
def server(
    trained: tuple[Path, list[str]], output: Path, port: int, *settings: str
) -> Iterator[Headrace]:
    """Run a server until the block ends."""
    data_dir, config = trained
    words = ["serve", "--data-dir", str(data_dir), "--grpc", f"127.0.0.1:{port}", *config]
    with headrace(*words, *flags("server.drain_s=1", *settings), output=output) as running:
        yield running


def wait_until_it_serves(running: Headrace, port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        wait_for_serving(running, channel)


def test_two_servers_restarted_one_by_one_fail_no_request(
    trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    ports = (free_port(), free_port())
    with ExitStack() as stack:
        running = [
            stack.enter_context(server(trained, tmp_path / f"{port}.log", port)) for port in ports
        ]
        for one, port in zip(running, ports, strict=True):
            wait_until_it_serves(one, port)
        addresses = [f"127.0.0.1:{port}" for port in ports]
        with LoadClient(addresses, num_threads=4, pause_s=0.02) as client:
            client.wait_for_answers(50)
            for number, port in enumerate(ports):
                running[number].process.send_signal(signal.SIGTERM)
                assert running[number].wait(STOP_S) == 0, running[number].said
                again = tmp_path / f"{port}-again.log"
                running[number] = stack.enter_context(server(trained, again, port))
                wait_until_it_serves(running[number], port)
                client.wait_for_answers(50)
        assert client.load.failures == {}
        assert client.load.answered > 150


@pytest.mark.parametrize("share", [True, False])
def test_a_killed_worker_is_started_again_and_its_sisters_go_on_answering(
    trained: tuple[Path, list[str]], tmp_path: Path, share: bool
) -> None:
    data_dir, config = trained
    port, page = free_port(), _two_free_ports()
    words = ["serve", "--data-dir", str(data_dir), "--grpc", f"127.0.0.1:{port}", "--workers", "2"]
    words += ["--set", f"server.share_memory={str(share).lower()}"]
    overrides = [*flags()[:-2], "--set", f"metrics.server_port={page}"]
    output = tmp_path / "workers.log"
    with headrace(*words, *config, *overrides, output=output) as running:
        wait_until(lambda: len(running.look()) == 2, START_S, "two workers")
        wait_until(lambda: _ready(page) and _ready(page + 1), START_S, "both are ready")
        assert _answers_from(port, 40) >= 40
        assert len({_retrieved(port) for _ in range(12)}) == 1, "whoever answers, the same bits"
        shared = [one.memory_full_info() for one in running.look()]
        assert all((one.uss < one.rss / 4) is share for one in shared), shared
        wait_until(lambda: _requests(page) and _requests(page + 1), START_S, "each got some")
        victim = min(running.look(), key=lambda one: one.pid)
        victim.kill()
        psutil.wait_procs([victim], timeout=10.0)
        assert _answers_from(port, 10) == 10
        wait_until(lambda: len(running.look()) == 2, START_S, "two workers again")
        wait_until(lambda: _ready(page) and _ready(page + 1), START_S, "both are ready again")
        assert victim.pid not in [one.pid for one in running.look()]
        running.process.send_signal(signal.SIGTERM)
        assert running.wait(STOP_S) == 0, running.said
        assert running.living_children() == []
    assert f"metrics of each worker on ports {page} to {page + 1}" in running.said


def test_workers_end_when_their_parent_is_killed(
    trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    data_dir, config = trained
    words = ["serve", "--data-dir", str(data_dir), "--workers", "2"]
    words += ["--grpc", f"127.0.0.1:{free_port()}"]
    with headrace(*words, *config, *flags(), output=tmp_path / "orphans.log") as running:
        wait_until(lambda: "Serving gRPC on" in running.said, START_S, "they serve")
        assert len(running.look()) == 2
        running.process.kill()
        wait_until(lambda: running.living_children() == [], STOP_S, "they ended")


def test_workers_without_a_snapshot_share_libraries_and_wait_for_one(
    trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    data_dir, config = trained
    shutil.copytree(data_dir, tmp_path / "data")
    snapshots = tmp_path / "data" / "snapshots"
    snapshots.rename(tmp_path / "kept")
    port = free_port()
    words = ["serve", "--data-dir", str(tmp_path / "data"), "--grpc", f"127.0.0.1:{port}"]
    words += ["--workers", "2", *config, *flags()]
    with headrace(*words, output=tmp_path / "early.log") as running:
        wait_until(lambda: len(running.look()) == 2, START_S, "two workers")
        assert "Serving gRPC on" not in running.said
        (tmp_path / "kept").rename(snapshots)
        wait_until(lambda: "Serving gRPC on" in running.said, START_S, "they serve")
        assert _answers_from(port, 4) == 4
        running.process.send_signal(signal.SIGTERM)
        assert running.wait(STOP_S) == 0, running.said


def test_workers_say_in_one_line_that_the_port_is_in_use(
    trained: tuple[Path, list[str]], tmp_path: Path
) -> None:
    data_dir, config = trained
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        words = ["serve", "--data-dir", str(data_dir), "--grpc", address, "--workers", "2"]
        with headrace(*words, *config, *flags(), output=tmp_path / "taken.log") as running:
            assert running.wait(START_S) == 2
    assert running.said.startswith(f"headrace: server.address: cannot listen on {address}")
    assert running.said.count("\n") == 1


def _two_free_ports() -> int:
    """Return a port that is free together with the next one."""
    while True:
        port = free_port()
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port + 1))
                return port
        except OSError:
            continue


def _page(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5.0) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def _ready(port: int) -> bool:
    return _page(port, "/readyz") == "ready\n"


def _requests(port: int) -> bool:
    return 'headrace_serving_requests_total{code="OK",method="recommend"}' in _page(
        port, "/metrics"
    )


def _retrieved(port: int) -> bytes:
    """Return what whoever takes a new connection answers, byte for byte."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = retrieval_pb2_grpc.RetrievalStub(channel)
        found = stub.Retrieve(retrieval_pb2.RetrieveRequest(user_id="u1", limit=20), timeout=10.0)
        assert len(found.items) > 0
        return b"".join(item.SerializeToString() for item in found.items)


def _answers_from(port: int, num_connections: int) -> int:
    """Ask once over each of so many connections, which the kernel spreads over the workers."""
    answered = 0
    for _ in range(num_connections):
        with LoadClient([f"127.0.0.1:{port}"], 1, 0.0, timeout_s=10.0) as client:
            wait_until(
                lambda: client.load.answered + sum(client.load.failures.values()), 20.0, "an answer"
            )
        assert client.load.failures == {}, client.load.failures
        answered += client.load.failures == {} and client.load.answered > 0
    return answered
