"""Rankings that queue, computed together or one by one: CPU of a request by how many ask at once.

    python benchmarks/bench_batching.py [--quick] [--json FILE]

Threads rank for users with 200 actions, each again as soon as it is done, through the batcher that
a server uses, in one process and without gRPC: history read, captured, ranked, corrected. Both ways
take turns, and every score is compared with that of a ranking alone before any ratio is printed.
CPU time, as wall time means little on a machine that does other things besides.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.server_wiring import StoredModels
from app.settings import load_settings
from benchmarks.serve_world import CLOCK, train_world
from serving import stages
from serving.admission import Deadline
from serving.live_models import LiveModels
from serving.rank_batcher import RankBatcher
from snapshot.local_store import LocalSnapshotStore

ITEMS = 5_000
CANDIDATES = (200, 500)
THREADS = (1, 2, 4, 8)
WAIT_S = 0.1
GOALS = {"8_threads_200": 1.3, "1_thread_200": 0.9}
"""What together must be worth with eight that ask, and must not cost when nobody queues."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 rounds instead of 20")
    parser.add_argument("--json", type=Path, help="write the measurements there")
    given = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # torch has read it already
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    sys.setswitchinterval(0.0005)  # as a server does
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        train_world(Path(name), ITEMS)
        settings = load_settings(None, [f'data.dir="{Path(name) / "data"}"'])
        store = LocalSnapshotStore(settings.data.snapshots)
        models = StoredModels(store, settings).load_models(store.current_id() or "")
        rows = [_row(models, size, 4 if given.quick else 20) for size in CANDIDATES]
    ratios = {name: value for row in rows for name, value in row["ratios"].items()}
    result = {
        "suite": "batching",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "rows": rows,
        "ratios": ratios,
        "goals": GOALS,
        "ok": all(ratios[name] >= least for name, least in GOALS.items()),
    }
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))
    print(json.dumps({name: result[name] for name in ("suite", "ratios", "goals", "ok")}))


def _row(models: LiveModels, size: int, rounds: int) -> dict[str, Any]:
    random = np.random.default_rng(8)
    item_ids = tuple(f"i{number}" for number in random.choice(ITEMS, size, replace=False))
    now_ms = CLOCK.now_ms()

    def rank(batcher: RankBatcher, user: int) -> NDArray[np.float32]:
        captured = stages.capture_request(models, f"u{user}", item_ids, now_ms, {})
        scores = batcher.predict(models, captured, Deadline(CLOCK, 60.0))
        return stages.compensate(models, scores)[:, 0]

    alone = [rank(RankBatcher(0.0), user) for user in range(max(THREADS))]
    cells, ratios = [], {}
    pool = ThreadPoolExecutor(max(THREADS))  # as a server's: the same threads all the time
    for threads in THREADS:
        took: dict[bool, list[float]] = {True: [], False: []}
        sizes: list[int] = []
        worst = 0.0
        for number in range(rounds):
            for together in (True, False) if number % 2 else (False, True):
                batcher = RankBatcher(WAIT_S, sizes.append) if together else RankBatcher(0.0)
                ms, scores = _together(pool, rank, batcher, threads)
                took[together].append(ms)
                pairs = zip(scores, alone, strict=False)
                worst = max(worst, *(float(np.abs(a - b).max()) for a, b in pairs))
        assert worst <= 1e-6, f"scores differ by {worst}"
        apart_ms, together_ms = (statistics.median(took[one]) for one in (False, True))
        name = f"{threads}_thread{'s' if threads > 1 else ''}_{size}"
        ratios[name] = apart_ms / together_ms
        cells.append(
            {"threads": threads, "apart_ms": apart_ms, "together_ms": together_ms,
             "mean_size": float(np.mean(sizes)), "difference": worst}
        )  # fmt: skip
        print(
            f"{size} items, {threads} at once: {apart_ms:.2f} ms of CPU one by one, "
            f"{together_ms:.2f} together ({np.mean(sizes):.1f} a pass); differ by {worst:.0e}"
        )
    return {"items": size, "cells": cells, "ratios": ratios}


def _together(
    pool: ThreadPoolExecutor, rank: Any, batcher: RankBatcher, threads: int
) -> tuple[float, list[NDArray[np.float32]]]:
    """Return milliseconds of CPU per request, and the last scores of each thread."""
    each = max(24 // threads, 12)

    def ask(user: int) -> NDArray[np.float32]:
        for _ in range(each):
            scores = rank(batcher, user)
        return scores

    before_s = time.process_time()
    scores = list(pool.map(ask, range(threads)))
    return 1e3 * (time.process_time() - before_s) / (each * threads), scores


if __name__ == "__main__":
    main()
