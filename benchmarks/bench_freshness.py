"""How soon answers show what has just happened, under load, beside two simpler ways of serving.

Trainer and server as `headrace up` runs them, on the cores of one machine, with the embedded log;
a process that publishes events and asks for answers at a steady rate; and this one, which publishes
markers through the server and asks for each until it shows (see `headrace freshness`). Three ways:

    deltas    the server follows the trainer's deltas
    reload    it loads a full snapshot every 60 s
    copy      it loads a full copy of everything every second, or as often as it can

    python -m benchmarks.bench_freshness [--quick] [--minutes M] [--other-minutes M]
                                         [--rate N] [--requests N] [--set KEY=VALUE] [--json FILE]

Afterwards a second server loads the newest snapshot whole, and both must give the same answers: no
ratio is printed before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
from prometheus_client.parser import text_string_to_metric_families

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.freshness_probe import HISTORY, ITEM, RANK, WEIGHTS, FreshnessProbe, ProbeConfig
from app.processes import Child, children, raise_if_ended
from app.readiness import wait_until_serving
from app.schema_file import schema_to_toml
from benchmarks.freshness_traffic import TrafficPlan, write_plan
from domain.clock import SystemClock
from domain.errors import ServingError
from protos.headrace.v1 import (
    ranking_pb2,
    ranking_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
)
from replay.world import World

MARKERS = (ITEM, HISTORY, RANK)
GOALS = {"p50_goal_over_measured": 1.0, "p99_goal_over_measured": 1.0, "weights_goal_over_p99": 1.0}
QUICK_SHARE = 0.6
P50_S, P99_S, WEIGHTS_S = 0.05, 0.5, 5.0
CLOCK = SystemClock()
_LEAD_S = 4.0
"""The sender loads and builds the world in this time."""
_SETTLE_S = 90.0
_NEVER_S = 90.0
"""Longest wait for a marker."""
SETTINGS = (
    "joiner.attribution_window_ms=10_000",
    "watermark.allowed_lateness_ms=1_000",
    "batcher.linger_ms=1_000",
)
"""Labels are known after ten seconds, as users of this world act within five."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way of getting what was learned to the server."""

    name: str
    settings: tuple[str, ...]
    seconds: float


@dataclass(slots=True)
class Found:
    """What came of one way: seconds of each marker, of requests by kind, and counts."""

    markers: dict[str, list[float | None]] = field(default_factory=dict)
    requests: dict[str, list[float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    rss_mb: dict[str, list[float]] = field(default_factory=dict)
    page: dict[str, float] = field(default_factory=dict)
    lag_s: float = 0.0

    @property
    def errors(self) -> int:
        """How many calls failed, markers that never showed among them."""
        failed = sum(number for name, number in self.counts.items() if name.startswith("error"))
        return failed + sum(times.count(None) for times in self.markers.values())

    def fresh(self) -> list[float]:
        """Seconds of all markers of the sparse path."""
        return [s for one in MARKERS for s in self.markers[one] if s is not None]

    def all_requests(self) -> list[float]:
        """Seconds of all requests that want an answer."""
        return [s for kind, times in self.requests.items() if kind != "Publish" for s in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="15 s each, 100 events/s")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each way (default: 10)")
    parser.add_argument(
        "--other-minutes", type=float, help="of the two simpler ways (default: as of deltas)"
    )
    parser.add_argument("--rate", type=float, default=500.0, help="events per second")
    parser.add_argument("--requests", type=float, default=50.0, help="requests per second")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--json", type=Path, help="write the measurements there")
    given = parser.parse_args()
    seconds, reload_s = given.minutes * 60.0, 60
    others_s = seconds if given.other_minutes is None else given.other_minutes * 60.0
    if given.quick:
        seconds, others_s, reload_s, given.rate, given.requests = 15.0, 15.0, 5, 100.0, 20.0
    off = "delta_follower.enabled=false"
    ways = (
        Way("deltas", ("checkpoint.every_s=30",), seconds),
        Way("reload", (off, f"checkpoint.every_s={reload_s}"), others_s),
        Way("copy", (off, "checkpoint.every_s=1", "watcher.poll_ms=100"), others_s),
    )
    found = {way.name: _measure(way, given) for way in ways}
    result = _report(found, given)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))
    print(json.dumps({name: result[name] for name in ("suite", "ratios", "goals", "ok")}))


def _measure(way: Way, given: argparse.Namespace) -> Found:
    """Run one way under load; what deltas led to is compared with a whole snapshot."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        ports = {one: _free_port() for one in ("grpc", "second", "trainer", "server")}
        plan = TrafficPlan(
            seconds=way.seconds,
            start_ms=CLOCK.now_ms(),
            rate=given.rate,
            requests=given.requests,
            warm_up_s=min(15.0, way.seconds / 5),
        )
        (folder / "schema.toml").write_text(schema_to_toml(World(plan.scenario).schema))
        words = ["--data-dir", str(folder / "data"), "--config", str(folder / "schema.toml")]
        metrics = [f"metrics.{one}_port={ports[one]}" for one in ("trainer", "server")]
        for one in (*SETTINGS, *metrics, *way.settings, *given.settings):
            words += ["--set", one]
        address = f"127.0.0.1:{ports['grpc']}"
        commands = [
            ("trainer", ["train", *words]),
            ("server", ["serve", *words, "--grpc", address]),
        ]
        running = stack.enter_context(children(commands, folder / "logs"))
        wait_until_serving(address, running, CLOCK)
        print(f"{way.name}: {way.seconds:.0f} s of load", file=sys.stderr, flush=True)
        found = _under_load(plan, address, folder, running, ports)
        if way.name == "deltas":
            _compare(address, f"127.0.0.1:{ports['second']}", words, folder)
            print(
                "answers of a server that followed deltas and one that loaded the snapshot: equal"
            )
        return found


def _under_load(
    plan: TrafficPlan,
    address: str,
    folder: Path,
    running: Sequence[Child],
    ports: dict[str, int],
) -> Found:
    plan = TrafficPlan(
        **{name: getattr(plan, name) for name in plan.__slots__}
        | {"start_ms": CLOCK.now_ms() + int(1_000 * _LEAD_S)}
    )
    write_plan(plan, folder / "plan.json")
    found, stop = Found(), threading.Event()
    with _sender(address, folder) as sender, grpc.insecure_channel(address) as channel:
        warm_s = _LEAD_S + plan.warm_up_s
        threads = [
            threading.Thread(target=_look, args=(channel, (WEIGHTS,), warm_s, stop, found)),
            threading.Thread(target=_look, args=(channel, MARKERS, warm_s, stop, found)),
        ]
        for thread in threads:
            thread.start()
        processes = {child.name: psutil.Process(child.process.pid) for child in running}
        began_s, cpu_s = time.monotonic(), _cpu_s(processes)
        while sender.poll() is None:
            raise_if_ended(running)
            for name, process in processes.items():
                found.rss_mb.setdefault(name, []).append(process.memory_info().rss / 2**20)
            if time.monotonic() - began_s > warm_s + 0.9 * (plan.seconds - plan.warm_up_s):
                stop.set()
            time.sleep(1.0)
        wall_s = time.monotonic() - began_s
        stop.set()
        for thread in threads:
            thread.join()
        found.cpu = {name: (_cpu_s(processes)[name] - cpu_s[name]) / wall_s for name in processes}
    if sender.returncode != 0:
        raise RuntimeError(f"the sender failed: {(folder / 'sender.log').read_text()}")
    report = json.loads((folder / "report.json").read_text())
    found.requests, counts = report["seconds"], report["counts"]
    found.counts |= counts
    found.page = _page(ports["server"])
    trained_s = _page(ports["trainer"]).get("headrace_stream_event_time_seconds", 0.0)
    found.lag_s = max(0.0, plan.scenario.end_ms / 1_000 - trained_s)
    return found


def _look(
    channel: grpc.Channel,
    markers: Sequence[str],
    warm_s: float,
    stop: threading.Event,
    found: Found,
) -> None:
    """Publish markers in turns and wait for each, after warming up."""
    for marker in markers:
        found.markers[marker] = []
    probe = FreshnessProbe(channel, CLOCK, ProbeConfig(timeout_s=_NEVER_S))
    stop.wait(warm_s)
    turn = 0
    while not stop.is_set():
        marker = markers[turn % len(markers)]
        turn += 1
        try:
            found.markers[marker].append(probe.measure(marker))
        except ServingError as error:
            name = f"error probe {str(error).partition(':')[0]}"
            found.counts[name] = found.counts.get(name, 0) + 1
        stop.wait(0.2)
    probe.clean_up()


def _compare(address: str, second: str, words: Sequence[str], folder: Path) -> None:
    """Compare answers of the server with those of one that loads the newest snapshot whole.

    Waits until the trainer has published everything and the server has been led there, so that both
    stand at the same snapshot.
    """
    with ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(address))
        deadline_s = time.monotonic() + _SETTLE_S
        before, since_s = "", time.monotonic()
        while "+" in before or not before or time.monotonic() - since_s < 3.0:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the server did not come to a snapshot: it is at {before!r}")
            now = _answer(channel, 0).model
            if now != before:
                before, since_s = now, time.monotonic()
            time.sleep(0.2)
        off = ["--set", "delta_follower.enabled=false", "--set", "metrics.server_port=0"]
        command = ("second", ["serve", *words, *off, "--grpc", second])
        running = stack.enter_context(children([command], folder / "logs"))
        wait_until_serving(second, running, CLOCK)
        other = stack.enter_context(grpc.insecure_channel(second))
        for number in range(40):
            _same(*(_answer(one, number) for one in (channel, other, channel)))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says to somebody without history, and which models say it."""

    model: str
    retrieved: dict[str, float]
    ranked: dict[str, float]


def _answer(channel: grpc.Channel, number: int) -> Answer:
    user_id = f"nobody-{number}"
    asked = retrieval_pb2.RetrieveRequest(user_id=user_id, limit=20 + number)
    found = retrieval_pb2_grpc.RetrievalStub(channel).Retrieve(asked, timeout=10.0).items
    retrieved = {item.item_id: item.score for item in found}
    listed = ranking_pb2.RankRequest(user_id=user_id, item_ids=retrieved)
    ranked = ranking_pb2_grpc.RankingStub(channel).Rank(listed, timeout=10.0)
    return Answer(
        ranked.info.snapshot_id, retrieved, {item.item_id: item.score for item in ranked.items}
    )


def _same(before: Answer, other: Answer, after: Answer) -> None:
    """Compare what another server says between two answers of the first.

    Retrieval's order and scores must be equal. Scores of the ranker move with the clock, as its
    counters fade: the other's must lie between the two, give or take a last bit.
    """
    assert before.model == other.model == after.model, (before.model, other.model, after.model)
    assert list(before.retrieved) == list(other.retrieved), (before, other)
    assert np.allclose(
        [*before.retrieved.values()], [*other.retrieved.values()], rtol=1e-4, atol=1e-6
    ), (before, other)
    for item_id, score in other.ranked.items():
        first, last = before.ranked[item_id], after.ranked[item_id]
        slack = abs(first - last) + 1e-6
        assert min(first, last) - slack <= score <= max(first, last) + slack, (before, other, after)


@contextmanager
def _sender(address: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    root = Path(__file__).resolve().parents[1]
    files = [str(folder / "plan.json"), str(folder / "report.json")]
    command = [sys.executable, "-m", "benchmarks.freshness_traffic", address, *files]
    with (folder / "sender.log").open("wb") as sink:
        process = subprocess.Popen(command, cwd=root, stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _cpu_s(processes: dict[str, psutil.Process]) -> dict[str, float]:
    return {name: sum(one.cpu_times()[:2]) for name, one in processes.items()}


def _page(port: int) -> dict[str, float]:
    """Sums of a metrics page by name, over all labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        families = text_string_to_metric_families(page.read().decode())
    sums: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def _free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _report(found: dict[str, Found], given: argparse.Namespace) -> dict[str, Any]:
    print(f"{'p50 / p99, ms':<34}" + "".join(f"{name:>20}" for name in found))
    for marker in (*MARKERS, WEIGHTS):
        _row(marker, [[s for s in one.markers[marker] if s is not None] for one in found.values()])
    for kind in ("Recommend", "Retrieve", "Rank", "Publish"):
        _row(kind, [one.requests.get(kind, []) for one in found.values()])
    print(_line("calls that failed", [f"{one.errors}" for one in found.values()]))
    for name in ("trainer", "server"):
        print(_line(f"cores of the {name}", [f"{one.cpu[name]:.2f}" for one in found.values()]))
        grown = ["{:.0f} to {:.0f}".format(*_ends(one.rss_mb[name])) for one in found.values()]
        print(_line(f"MiB of the {name}", grown))
    print(_line("the trainer's lag at the end, s", [f"{one.lag_s:.1f}" for one in found.values()]))
    for name in ("applied", "refused"):
        counts = [
            one.page.get(f"headrace_serving_deltas_{name}_total", 0) for one in found.values()
        ]
        print(_line(f"deltas {name}", [f"{count:.0f}" for count in counts]))
    held = "headrace_serving_delta_apply_seconds"
    means = [
        one.page.get(f"{held}_sum", 0.0) / max(one.page.get(f"{held}_count", 0.0), 1.0)
        for one in found.values()
    ]
    print(_line("a delta holds requests, ms", [f"{1_000 * mean:.1f}" for mean in means]))
    ours, weights = found["deltas"], found["deltas"].markers[WEIGHTS]
    p50, p99 = (_quantile(ours.fresh(), share) for share in (0.5, 0.99))
    ratios = {
        "p50_goal_over_measured": P50_S / p50,
        "p99_goal_over_measured": P99_S / p99,
        "weights_goal_over_p99": WEIGHTS_S / _quantile(weights, 0.99),
        "errors": ours.errors,
        "memory_of_the_server": np.divide(*reversed(_ends(ours.rss_mb["server"]))),
    }
    for name in ("reload", "copy"):
        other = found[name]
        median = _quantile(other.markers[WEIGHTS], 0.5) / _quantile(weights, 0.5)
        slow = np.quantile(other.all_requests(), 0.99) / np.quantile(ours.all_requests(), 0.99)
        ratios |= {f"{name}_weights_over_deltas": median, f"{name}_p99_over_deltas": slow}
    needed = {name: goal * (QUICK_SHARE if given.quick else 1.0) for name, goal in GOALS.items()}
    return {
        "suite": "freshness",
        "ratios": {name: round(float(ratio), 3) for name, ratio in ratios.items()},
        "goals": needed,
        "ok": all(ratios[name] >= goal for name, goal in needed.items()) and not ours.errors,
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": {"minutes": given.minutes, "rate": given.rate, "requests": given.requests},
        "seconds": {name: one.markers for name, one in found.items()},
    }


def _row(name: str, columns: Sequence[Sequence[float]]) -> None:
    cells = []
    for seconds in columns:
        p50, p99 = np.quantile(seconds, (0.5, 0.99)) if seconds else (np.nan, np.nan)
        cells.append(f"{1_000 * p50:,.0f} / {1_000 * p99:,.0f}")
    print(_line(name, cells))


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:<34}" + "".join(f"{cell:>20}" for cell in cells)


def _quantile(seconds: Sequence[float | None], share: float) -> float:
    """Return a quantile; what never showed counts as the longest wait."""
    known = [_NEVER_S if one is None else one for one in seconds] or [_NEVER_S]
    return float(np.quantile(known, share))


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of the second quarter and of the last."""
    quarter = max(len(values) // 4, 1)
    return float(np.mean(values[quarter : 2 * quarter])), float(np.mean(values[-quarter:]))


if __name__ == "__main__":
    main()
