"""Open thousands of connections that say hello and nothing more, and see who else is served.

    python -m tests.faults.idle_connections --connections 10000

The number is lowered to what the limit of open files allows. Exit status 1 when a call failed.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
import psutil

from protos.headrace.v1 import recommender_pb2, recommender_pb2_grpc
from replay.simulator import SimulatedDataset
from tests.loop_worlds import tiny_scenario, tiny_settings
from tests.process_helpers import flags, free_port, headrace, wait_for_serving, write_schema
from tests.trainer_worlds import Workshop

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SPARE_FILES = 500
_CALLS = 500


def main() -> int:
    """Open the connections; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    given = parser.parse_args()
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(given.connections, limit - _SPARE_FILES)
    if count < given.connections:
        print(f"{limit} files may be open: {count:,} connections instead of {given.connections:,}")
    with tempfile.TemporaryDirectory(prefix="headrace-idle-") as name:
        folder = Path(name)
        schema = SimulatedDataset(tiny_scenario()).schema
        workshop = Workshop(folder / "data", schema, tiny_settings())
        workshop.run_to_end()
        workshop.close()
        port = free_port()
        words = ["serve", "--data-dir", str(folder / "data"), "--grpc", f"127.0.0.1:{port}"]
        config = write_schema(folder / "schema.toml", schema)
        with (
            headrace(*words, *config, *flags(), output=folder / "server.log") as running,
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            wait_for_serving(running, channel)
            return _measure(channel, psutil.Process(running.process.pid), port, count)


def _measure(channel: grpc.Channel, server: psutil.Process, port: int, count: int) -> int:
    failed = 0
    before_mib = server.memory_info().rss / 2**20
    for title, wanted in (("without", 0), ("with", count), ("after", 0)):
        began_s = time.monotonic()
        connections = [_connect(port) for _ in range(wanted)]
        took_s = time.monotonic() - began_s
        took_ms, failures = _ask(channel)
        failed += failures
        p50, p99 = np.percentile(took_ms, (50, 99))
        grown_mib = server.memory_info().rss / 2**20 - before_mib
        print(
            f"{title:<8}{wanted:>7,} idle: {_CALLS} calls, {failures} failed, p50 {p50:.1f} ms, "
            f"p99 {p99:.1f} ms; memory +{grown_mib:.0f} MiB"
        )
        if wanted:
            each_kib = 1_024 * grown_mib / wanted
            print(f"        {each_kib:.0f} KiB for each connection, opened in {took_s:.0f} s")
        for connection in connections:
            connection.close()
    return 1 if failed else 0


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60.0)
    connection.sendall(_HELLO)
    return connection


def _ask(channel: grpc.Channel) -> tuple[list[float], int]:
    stub = recommender_pb2_grpc.RecommenderStub(channel)
    took_ms, failures = [], 0
    for number in range(_CALLS):
        began_s = time.perf_counter()
        try:
            request = recommender_pb2.RecommendRequest(user_id=f"u{number % 20}")
            stub.Recommend(request, timeout=5.0)
        except grpc.RpcError:
            failures += 1
        took_ms.append(1e3 * (time.perf_counter() - began_s))
    return took_ms, failures


if __name__ == "__main__":
    sys.exit(main())
