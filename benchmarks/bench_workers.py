"""What another worker on the same port costs in memory, beside a process that only loads libraries.

    python benchmarks/bench_workers.py [--quick] [--items N] [--json FILE]

`headrace serve --workers N` on the world of bench_serve, with workers that were forked from a
process which had loaded libraries and the snapshot (`server.share_memory`), and with workers that
each load for themselves. Memory is what workers and their parent hold together in anonymous pages,
each page counted once; the code of libraries is not in it, as any process may share that. Before it
is looked at, every worker has answered.
That is at rest: deltas write to pages, which are then a worker's own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import psutil

from benchmarks.serve_world import process, train_world
from protos.headrace.v1 import recommender_pb2, recommender_pb2_grpc
from tests.process_helpers import free_port

_ASKS = 40
"""Connections over which each deployment is asked once: every worker gets some."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5,000 items, up to 2 workers")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the measurements there")
    given = parser.parse_args()
    counts = (2,) if given.quick else (2, 4)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        train_world(folder, 5_000 if given.quick else given.items)
        libraries = _libraries(folder)
        print(f"nothing but the libraries: {libraries['private']:.0f} MiB of its own")
        alone = _workers(folder, 1, share=False)
        print(f"one server: {alone['pss']:.0f} MiB; snapshot {alone['snapshot']:.0f} MiB")
        rows = {f"1 {kind}": alone for kind in ("separate", "forked")}
        each = {}
        for count in counts:
            for kind in ("separate", "forked"):
                row = _workers(folder, count, share=kind == "forked")
                rows[f"{count} {kind}"] = row
                each[kind] = (row["pss"] - alone["pss"]) / (count - 1)
                print(
                    f"{count} {kind}: {row['pss']:.0f} MiB together, a worker {row['private']:.0f} "
                    f"MiB of its own; each further one {each[kind]:.0f} MiB"
                )
    result = {
        "suite": "workers",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "rows": rows,
        "libraries": libraries,
        "ratios": {
            "mib_each_more": each["forked"],
            "mib_each_more_separate": each["separate"],
            "separate_over_forked": each["separate"] / each["forked"],
        },
        "goals": {},
        "ok": True,
    }
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))
    print(json.dumps({name: result[name] for name in ("suite", "ratios", "goals", "ok")}))


def _workers(folder: Path, count: int, *, share: bool) -> dict[str, float]:
    """Return the memory of a server, or of so many workers, once they serve."""
    port = free_port()
    command = [
        sys.executable, "-m", "app.cli", "serve", "--data-dir", str(folder / "data"),
        "--grpc", f"127.0.0.1:{port}", "--workers", str(count), "--set", "metrics.server_port=0",
        "--set", f"server.share_memory={str(share).lower()}",
    ]  # fmt: skip
    with process(command, folder / f"workers-{count}-{share}.log") as parent:
        servers = [parent]
        deadline_s = time.monotonic() + 180.0
        while count > 1 and len(servers := parent.children()) < count:
            assert time.monotonic() < deadline_s, "the workers did not start"
            time.sleep(0.1)
        answered = 0
        while answered < _ASKS:
            answered += _answers(port)
            assert time.monotonic() < deadline_s, "the workers did not answer"
        time.sleep(3.0)  # who began last may still be loading
        memory = [_memory(server) for server in servers]
        together = sum(_memory(one)["pss"] for one in {parent, *servers})
    files = (folder / "data" / "snapshots").rglob("*.safetensors")
    snapshots = len(list((folder / "data" / "snapshots").glob("0*-*"))) or 1
    return {
        "pss": together,
        "private": sum(one["private"] for one in memory) / len(memory),
        "snapshot": sum(file.stat().st_size for file in files) / 2**20 / snapshots,
    }


def _answers(port: int) -> int:
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        stub = recommender_pb2_grpc.RecommenderStub(channel)
        try:
            stub.Recommend(recommender_pb2.RecommendRequest(user_id="u3"), timeout=5.0)
        except grpc.RpcError:
            time.sleep(0.2)
            return 0
        return 1


def _libraries(folder: Path) -> dict[str, float]:
    loaded = folder / "loaded"
    code = (
        "import app.server_process, pathlib, time; "
        f"pathlib.Path({str(loaded)!r}).touch(); time.sleep(600)"
    )
    with process([sys.executable, "-c", code], folder / "libraries.log") as parent:
        while not loaded.exists():
            time.sleep(0.1)
        return _memory(parent)


def _memory(server: psutil.Process) -> dict[str, float]:
    """Return anonymous memory, what is shared divided by how many share it, and private, in MiB."""
    lines = Path(f"/proc/{server.pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    full: Any = server.memory_full_info()
    return {"pss": kib["Pss_Anon"] / 2**10, "private": full.uss / 2**20}


if __name__ == "__main__":
    main()
