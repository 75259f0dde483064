"""A real server over gRPC, beside an empty method with the same messages and beside the bare model.

Server and empty server share one core, the clients have another. Rank gets 500 candidates for users
with 200 actions, Recommend searches 100,000 items, ranks 200 of them and waits until its impression
is durable. Each is asked by 1, 8 and 64 clients, who ask again as soon as they are answered.

    python benchmarks/bench_serve.py [--quick] [--items N] [--rounds N] [--json FILE]

"One by one" is the same server with `recommender.batch_wait_ms=0`: rankings that queue are not
computed together. It is asked by 8 and by 64 clients, as one client never queues.

"No model" is the same server with a ranker that answers at once: all it takes is gRPC and glue. The
bare model runs on the servers' core while nobody asks them: the same snapshot, the same user,
everything between request and answer but gRPC, admission, deadlines and the event log. CPU is that
of the server's process, or of the bare model: on a machine that does other things besides, it is
the steadier measure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from app.server_wiring import StoredModels, running_server
from app.settings import load_settings
from benchmarks.serve_world import CLOCK, HISTORY, USERS, process, train_world
from domain.requests import RankingScores, RetrievalRequest
from monitoring.metrics import Metrics
from protos.headrace.v1 import ranking_pb2, recommender_pb2
from serving import stages
from serving.live_models import LiveModels
from snapshot.local_store import LocalSnapshotStore
from tests.process_helpers import free_port

GOALS = {"rank_glue_ms": 1.5}
CLIENTS = (1, 8, 64)
CANDIDATES = 500
NUM_RANKED = 200
LIMIT = 20

METHODS = {"Rank": "/headrace.v1.Ranking/Rank", "Recommend": "/headrace.v1.Recommender/Recommend"}
RESPONSES = {"Rank": ranking_pb2.RankResponse, "Recommend": recommender_pb2.RecommendResponse}
REQUESTS = {"Rank": ranking_pb2.RankRequest, "Recommend": recommender_pb2.RecommendRequest}


@dataclass(frozen=True)
class Cell:
    """One engine under one load: medians over rounds."""

    method: str
    engine: str
    clients: int
    p50_ms: float
    p99_ms: float
    per_s: float
    cpu_ms: float
    spread: float


@dataclass(frozen=True)
class Place:
    """A server's address and process."""

    address: str
    process: psutil.Process


@dataclass(frozen=True)
class Engine:
    """A server as clients see it, and its process."""

    channel: grpc.Channel
    process: psutil.Process

    def cpu_s(self) -> float:
        """Return the CPU seconds that the server has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5,000 items, 3 rounds of 1 s")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each engine in a round")
    parser.add_argument("--json", type=Path, help="write the measurements there")
    parser.add_argument("--echo", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--no-model", metavar="FOLDER", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # torch has read it already
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    if given.echo:
        _run_echo(Path(given.echo))
        return
    if given.no_model:
        _run_no_model(Path(given.no_model))
        return
    if given.quick:
        given.items, given.rounds, given.seconds = 5_000, 3, 1.0
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        result = _measure(Path(folder), given, cores[0], cores[-1])
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))
    print(json.dumps({name: result[name] for name in ("suite", "ratios", "goals", "ok")}))


def _measure(folder: Path, given: argparse.Namespace, served: int, asking: int) -> dict[str, Any]:
    began_s = time.monotonic()
    train_world(folder, given.items)
    print(f"{given.items:,} items, {USERS} users with {HISTORY} actions: trained in "
          f"{time.monotonic() - began_s:.0f} s")  # fmt: skip
    settings = load_settings(None, [f'data.dir="{folder / "data"}"'])
    store = LocalSnapshotStore(settings.data.snapshots)
    source = StoredModels(store, settings)
    models = source.load_models(store.current_id() or "")
    requests = {"Rank": _rank_request(given.items), "Recommend": _recommend_request()}
    with ExitStack() as stack:
        os.sched_setaffinity(0, {served})
        served_by = stack.enter_context(_server(folder, "server"))
        one_by_one = stack.enter_context(
            _server(folder, "one-by-one", "recommender.batch_wait_ms=0")
        )
        _write_answers(folder, models, requests)
        empty = stack.enter_context(_own_process(folder, "echo"))
        no_model = stack.enter_context(_own_process(folder, "no-model"))
        os.sched_setaffinity(0, {asking})
        engines = {
            name: Engine(stack.enter_context(grpc.insecure_channel(place.address)), place.process)
            for name, place in (
                ("headrace", served_by),
                ("one by one", one_by_one),
                ("no model", no_model),
                ("empty method", empty),
            )
        }
        for name in ("headrace", "one by one"):
            _wait_until_it_answers(engines[name].channel, requests["Recommend"])
        difference = _compare(engines["headrace"].channel, models, requests["Rank"])
        print(f"scores of Rank over gRPC and of the bare model differ by at most {difference:.1e}")
        cells = [
            cell
            for method in METHODS
            for clients in CLIENTS
            for cell in _rounds(method, clients, engines, requests, given)
        ]
    os.sched_setaffinity(0, {served})
    bare = [_bare(method, models, requests, given) for method in METHODS]
    return _report([*cells, *bare], _batches(models, given.items), difference, given)


# What is asked


def _rank_request(num_items: int) -> ranking_pb2.RankRequest:
    random = np.random.default_rng(8)
    chosen = random.choice(num_items, CANDIDATES, replace=False)
    return ranking_pb2.RankRequest(user_id="u3", item_ids=[f"i{number}" for number in chosen])


def _recommend_request() -> recommender_pb2.RecommendRequest:
    return recommender_pb2.RecommendRequest(user_id="u3", limit=LIMIT)


# The servers


@contextmanager
def _server(folder: Path, name: str, *settings: str) -> Iterator[Place]:
    port = free_port()
    # So many clients as ask here are let in, where usually they would be told to come again.
    overrides = [
        "recommender.max_waiting=80", "server.threads=128", "metrics.server_port=0",
        f"recommender.num_candidates={NUM_RANKED}", "recommender.default_deadline_ms=60_000",
        *settings,
    ]  # fmt: skip
    words = [word for one in overrides for word in ("--set", one)]
    command = [
        sys.executable, "-m", "app.cli", "serve", "--data-dir", str(folder / "data"),
        "--grpc", f"127.0.0.1:{port}", *words,
    ]  # fmt: skip
    with process(command, folder / f"{name}.log") as running:
        yield Place(f"127.0.0.1:{port}", running)


def _write_answers(folder: Path, models: LiveModels, requests: dict[str, Any]) -> None:
    """Write an answer of the usual size to each method, for the empty ones to give."""
    scores = _bare_rank(models, requests["Rank"])
    for method, count in (("Rank", CANDIDATES), ("Recommend", LIMIT)):
        answer = RESPONSES[method](
            items=[
                recommender_pb2.ScoredItem(item_id=item, score=score)
                for item, score in zip(
                    requests["Rank"].item_ids[:count], scores[:count].tolist(), strict=True
                )
            ],
            info=recommender_pb2.AnswerInfo(snapshot_id=models.snapshot_id, model_age_ms=1_000),
        )
        (folder / f"{method}.answer").write_bytes(answer.SerializeToString())


@contextmanager
def _own_process(folder: Path, what: str) -> Iterator[Place]:
    """Run one of this file's own servers."""
    port_file = folder / f"{what}.port"
    command = [sys.executable, str(Path(__file__).resolve()), f"--{what}", str(folder)]
    with process(command, folder / f"{what}.log") as running:
        deadline_s = time.monotonic() + 180.0
        while not port_file.exists() or not port_file.read_text():
            assert time.monotonic() < deadline_s, (folder / f"{what}.log").read_text()
            time.sleep(0.1)
        yield Place(f"127.0.0.1:{port_file.read_text()}", running)


class _NoRanker:
    """Answers at once, with any scores."""

    def __init__(self) -> None:
        self._scores = np.linspace(0.1, 0.9, 10_000, dtype=np.float32)[:, None]

    def capture(self, request: Any) -> Any:
        return request

    def predict(self, captured: Any) -> list[RankingScores]:
        return [
            RankingScores(probabilities=scores_N1, hidden=scores_N1)
            for scores_N1 in (self._scores[: len(one.item_ids)] for one in captured)
        ]


class _NoMemory:
    def compensate(self, _hidden: Any, base: Any) -> Any:
        return base


def _run_no_model(folder: Path) -> None:
    settings = load_settings(
        None, [f'data.dir="{folder / "data"}"', 'server.address="127.0.0.1:0"',
               "recommender.max_waiting=80", "server.threads=128"]
    )  # fmt: skip
    stop = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with running_server(settings, settings.schema_declared, CLOCK, Metrics()) as server:
        while not server.slot.snapshot_id:
            time.sleep(0.1)
        server.slot.swap(replace(server.slot.current(), ranker=_NoRanker(), memory=_NoMemory()))
        (folder / "no-model.port").write_text(str(server.handle.port))
        signal.sigwait(stop)


def _run_echo(folder: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(128))
    for method, path in METHODS.items():
        answer = RESPONSES[method].FromString((folder / f"{method}.answer").read_bytes())

        def respond(_request: Any, _context: Any, answer: Any = answer) -> Any:
            return answer

        handler = grpc.unary_unary_rpc_method_handler(
            respond,
            request_deserializer=REQUESTS[method].FromString,
            response_serializer=RESPONSES[method].SerializeToString,
        )
        _, service, name = path.split("/")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {name: handler}),)
        )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    (folder / "echo.port").write_text(str(port))
    signal.sigwait({signal.SIGTERM})
    server.stop(None)


def _call(channel: grpc.Channel, method: str) -> Callable[..., Any]:
    stub: Callable[..., Any] = channel.unary_unary(
        METHODS[method],
        request_serializer=REQUESTS[method].SerializeToString,
        response_deserializer=RESPONSES[method].FromString,
    )
    return stub


def _wait_until_it_answers(channel: grpc.Channel, request: Any) -> None:
    call = _call(channel, "Recommend")
    deadline_s = time.monotonic() + 180.0
    while True:
        try:
            call(request, timeout=10.0, wait_for_ready=True)
        except grpc.RpcError:
            assert time.monotonic() < deadline_s, "the server did not answer"
            time.sleep(0.2)
        else:
            return


# What is timed


def _rounds(
    method: str,
    clients: int,
    engines: dict[str, Engine],
    requests: dict[str, Any],
    given: argparse.Namespace,
) -> list[Cell]:
    """Time both servers in rounds whose order turns around each time."""
    left_out = {"no model"} if method == "Recommend" else set()
    left_out |= {"one by one"} if clients == 1 else set()
    names = [name for name in engines if name not in left_out]
    taken: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for number in range(given.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            engine = engines[name]
            before_s = engine.cpu_s()
            call = _call(engine.channel, method)
            seconds, wall_s = _ask(call, requests[method], clients, given.seconds)
            cpu_ms = 1e3 * (engine.cpu_s() - before_s) / len(seconds)
            row = (*_percentiles_ms(seconds), len(seconds) / wall_s, cpu_ms)
            taken[name].append(row)
    return [_cell(method, name, clients, rows) for name, rows in taken.items()]


def _percentiles_ms(seconds: list[float]) -> tuple[float, float]:
    p50, p99 = np.percentile(seconds, (50, 99))
    return 1e3 * float(p50), 1e3 * float(p99)


def _ask(
    call: Callable[..., Any], request: Any, clients: int, seconds: float
) -> tuple[list[float], float]:
    """Ask from so many threads for so long; returns the time of each call, and of all."""
    took: list[float] = []
    end_s = time.perf_counter() + seconds

    def ask() -> None:
        mine = []
        while (began_s := time.perf_counter()) < end_s:
            call(request, timeout=60.0)
            mine.append(time.perf_counter() - began_s)
        took.extend(mine)

    began_s = time.perf_counter()
    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took, time.perf_counter() - began_s


def _bare(
    method: str, models: LiveModels, requests: dict[str, Any], given: argparse.Namespace
) -> Cell:
    """Time the models alone."""
    work = _bare_rank if method == "Rank" else _bare_recommend
    rows = []
    for _ in range(given.rounds):
        took: list[float] = []
        before_s, end_s = time.process_time(), time.perf_counter() + given.seconds
        while (began_s := time.perf_counter()) < end_s:
            work(models, requests[method])
            took.append(time.perf_counter() - began_s)
        cpu_ms = 1e3 * (time.process_time() - before_s) / len(took)
        rows.append((*_percentiles_ms(took), len(took) / sum(took), cpu_ms))
    return _cell(method, "bare model", 1, rows)


def _bare_rank(models: LiveModels, request: Any) -> Any:
    """Return the scores of the request's items, in its order."""
    item_ids = tuple(request.item_ids)
    scores = stages.score_items(models, request.user_id, item_ids, CLOCK.now_ms(), {})
    return stages.compensate(models, scores)[:, 0]


def _bare_recommend(models: LiveModels, request: Any) -> Any:
    now_ms = CLOCK.now_ms()
    asker = stages.read_asker(models, request.user_id, now_ms)
    found = stages.find_candidates(
        models,
        RetrievalRequest(user=asker.view, time_ms=now_ms, limit=NUM_RANKED, exclude=asker.seen),
    )
    scores = stages.score_items(models, request.user_id, found.item_ids, now_ms, {})
    corrected = stages.compensate(models, scores)[:, 0]
    return stages.best_first(found.item_ids, corrected, request.limit)


def _batches(models: LiveModels, num_items: int) -> dict[int, float]:
    """Return milliseconds per request when so many are scored together: what batching would pay."""
    request = _rank_request(num_items)
    captured = []
    for user in range(8):
        asked = models.feature_store.request(
            f"u{user}", tuple(request.item_ids), CLOCK.now_ms(), {}
        )
        captured.append(models.ranker.capture(asked))
    per_request = {}
    for size in (1, 2, 4, 8):
        took = []
        for _ in range(10):
            began_s = time.perf_counter()
            models.ranker.predict(captured[:size])
            took.append((time.perf_counter() - began_s) / size)
        per_request[size] = 1e3 * statistics.median(took)
    return per_request


def _compare(channel: grpc.Channel, models: LiveModels, request: Any) -> float:
    """Return the largest difference between scores over gRPC and bare; refuse to go on beyond 1e-3.

    They are not the same bits: a score depends on the time of the request.
    """
    answer = _call(channel, "Rank")(request, timeout=60.0)
    assert answer.info.snapshot_id == models.snapshot_id, "another snapshot is served"
    served = {item.item_id: item.score for item in answer.items}
    bare = dict(zip(request.item_ids, _bare_rank(models, request).tolist(), strict=True))
    assert served.keys() == bare.keys()
    difference = max(abs(served[item] - bare[item]) for item in bare)
    assert difference < 1e-3, f"scores differ by {difference}"
    return difference


def _cell(method: str, engine: str, clients: int, rows: list[tuple[float, ...]]) -> Cell:
    p50, p99, per_s, cpu_ms = (statistics.median(column) for column in zip(*rows, strict=True))
    p50s = sorted(row[0] for row in rows)
    spread = (p50s[(3 * len(p50s)) // 4] - p50s[len(p50s) // 4]) / p50
    return Cell(method, engine, clients, p50, p99, per_s, cpu_ms, spread)


def _report(
    cells: list[Cell], batches: dict[int, float], difference: float, given: argparse.Namespace
) -> dict[str, Any]:
    print(f"\n{'method':<11}{'engine':<14}{'clients':>8}{'p50 ms':>9}{'p99 ms':>9}{'spread':>8}"
          f"{'requests/s':>12}{'CPU ms':>9}")  # fmt: skip
    for cell in cells:
        timed = f"{cell.p50_ms:>9.2f}{cell.p99_ms:>9.2f}{cell.spread:>8.0%}"
        rates = f"{cell.per_s:>12.0f}{cell.cpu_ms:>9.2f}"
        print(f"{cell.method:<11}{cell.engine:<14}{cell.clients:>8}{timed}{rates}")
    at = {(cell.method, cell.engine, cell.clients): cell for cell in cells}
    ratios = {}
    alone = at["Rank", "no model", 1]
    ratios["rank_glue_ms"], ratios["rank_glue_cpu_ms"] = alone.p50_ms, alone.cpu_ms
    ratios["rank_glue_over_empty_cpu"] = alone.cpu_ms / at["Rank", "empty method", 1].cpu_ms
    for method in METHODS:
        served, bare = at[method, "headrace", 1], at[method, "bare model", 1]
        ratios[f"{method.lower()}_beyond_bare_ms"] = served.p50_ms - bare.p50_ms
        ratios[f"{method.lower()}_beyond_bare_cpu_ms"] = served.cpu_ms - bare.cpu_ms
        ratios[f"{method.lower()}_bare_over_served_p50"] = bare.p50_ms / served.p50_ms
        for clients in CLIENTS[1:]:
            together, apart = (at[method, one, clients] for one in ("headrace", "one by one"))
            name = f"{method.lower()}_batched_{clients}"
            ratios[f"{name}_rate"] = together.per_s / apart.per_s
            ratios[f"{name}_cpu"] = apart.cpu_ms / together.cpu_ms
        best = max(at[method, "headrace", clients].per_s for clients in CLIENTS)
        ratios[f"{method.lower()}_rate_over_bare"] = best / bare.per_s
    ratios["batch_of_8_gain"] = batches[1] / batches[8]
    ms = ", ".join(f"{size}: {one:.2f} ms" for size, one in batches.items())
    print(f"\nper request, when so many are ranked together: {ms}")
    for name, ratio in ratios.items():
        goal = f"   goal at most {GOALS[name]}" if name in GOALS else ""
        print(f"{name:<32}{ratio:>8.2f}{goal}")
    return {
        "suite": "serve",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "items": given.items,
        "difference": difference,
        "cells": [asdict(cell) for cell in cells],
        "batches": batches,
        "ratios": ratios,
        "goals": GOALS,
        "ok": all(ratios[name] <= most for name, most in GOALS.items()),
    }


if __name__ == "__main__":
    main()
