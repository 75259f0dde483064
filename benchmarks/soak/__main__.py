"""A soak: trainer and server on a real Kafka broker under steady traffic, watched all the time.

    python -m benchmarks.soak --minutes 60 --rate 500

Half of the events come in through gRPC, half straight to Kafka, and a few lists a second are asked
for. Every five seconds memory, lag and errors are written to OUT/samples.jsonl; at the end comes a
verdict, and the picture OUT/soak.png. Exit status 1 when memory grew, lag ran away or anything
failed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.processes import Child, children, raise_if_ended
from app.schema_file import schema_to_toml
from benchmarks.soak.plan import PARTITIONS, SETTINGS, SoakPlan
from benchmarks.soak.report import draw, judge
from benchmarks.soak.samples import Sampler, Watched
from benchmarks.soak.traffic import WAYS
from deploy.kafka.broker import KafkaBroker
from replay.world import World
from tests.process_helpers import free_port

_SAMPLE_EVERY_S = 5.0
_START_S = 120.0
_LEAD_MS = 3_000
"""The senders load and build the world in this time."""


def main() -> int:
    """Soak; 0 when memory was flat, lag bounded and nothing failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--rate", type=float, default=500.0, help="events a second (default: 500)")
    parser.add_argument("--out", type=Path, default=Path("out/soak"), help="default: out/soak")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="headrace-soak-"))
    try:
        samples = _soak(options.minutes, options.rate, options.settings, folder, options.out)
    finally:
        for log in folder.glob("logs/*.log"):
            shutil.copy(log, options.out)
        shutil.rmtree(folder, ignore_errors=True)
    draw(samples, options.rate, options.out / "soak.png")
    judgements = judge(samples, options.rate)
    words = {True: "ok", False: "NOT OK", None: "too short to tell"}
    for judgement in judgements:
        print(f"{judgement.question}: {judgement.answer}: {words[judgement.ok]}")
    return int(any(judgement.ok is False for judgement in judgements))


def _soak(
    minutes: float, rate: float, settings: Sequence[str], folder: Path, out: Path
) -> list[dict[str, object]]:
    with ExitStack() as stack:
        print("starting a broker, a trainer and a server", flush=True)
        broker = stack.enter_context(KafkaBroker(folder / "broker"))
        url = f"kafka://{broker.bootstrap}"
        ports = {name: free_port() for name in ("grpc", "trainer", "server")}
        address = f"127.0.0.1:{ports['grpc']}"
        plan = SoakPlan(minutes=minutes, rate=rate, start_ms=1)
        shared = _arguments(plan, url, folder, ports, settings)
        create = ["topics", "create", "--log", url, "--partitions", str(PARTITIONS)]
        subprocess.run(
            [sys.executable, "-m", "app.cli", *create], check=True, stdout=subprocess.DEVNULL
        )
        commands = [
            ("trainer", ["train", *shared]),
            ("server", ["serve", *shared, "--grpc", address]),
        ]
        running = stack.enter_context(children(commands, folder / "logs"))
        pages = {one: f"http://127.0.0.1:{ports[one]}" for one in ("trainer", "server")}
        _wait_until_ready(pages.values(), running)
        # Everything happens from now on, so the world begins now.
        begin_ms = int(1_000 * time.time()) + _LEAD_MS
        plan = SoakPlan(minutes=minutes, rate=rate, start_ms=begin_ms)
        plan.write(folder / "plan.json")
        reports = {way: folder / f"{way}.jsonl" for way in WAYS}
        targets = {"grpc": address, "kafka": url}
        senders = [stack.enter_context(_sender(way, targets[way], folder)) for way in WAYS]
        pids = {child.name: child.process.pid for child in running}
        watched = Watched(
            pids=pids,
            pages={name: f"{page}/metrics" for name, page in pages.items()},
            reports=reports,
        )
        return _watch(Sampler(watched), running, senders, plan, out / "samples.jsonl")


def _arguments(
    plan: SoakPlan, url: str, folder: Path, ports: dict[str, int], settings: Sequence[str]
) -> list[str]:
    schema = folder / "schema.toml"
    schema.write_text(schema_to_toml(World(plan.scenario).schema))
    metrics = [f"metrics.{name}_port={ports[name]}" for name in ("trainer", "server")]
    flags = [word for one in (*SETTINGS, *metrics, *settings) for word in ("--set", one)]
    place = ["--log", url, "--data-dir", str(folder / "data")]
    return [*place, "--config", str(schema), *flags]


@contextmanager
def _sender(way: str, target: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "benchmarks.soak.traffic"]
    files = [str(folder / "plan.json"), str(folder / f"{way}.jsonl")]
    with (folder / "logs" / f"sender-{way}.log").open("wb") as sink:
        process = subprocess.Popen([*command, way, target, *files], stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(pages: Iterable[str], running: Sequence[Child]) -> None:
    deadline = time.monotonic() + _START_S
    for page in pages:
        while not _is_ready(page):
            raise_if_ended(running)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{page}/readyz did not say yes within {_START_S:.0f} s")
            time.sleep(0.2)


def _is_ready(page: str) -> bool:
    try:
        with urllib.request.urlopen(f"{page}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _watch(
    sampler: Sampler,
    running: Sequence[Child],
    senders: Sequence[subprocess.Popen[bytes]],
    plan: SoakPlan,
    path: Path,
) -> list[dict[str, object]]:
    """Take samples until all senders are done."""
    samples: list[dict[str, object]] = []
    with path.open("w") as file:
        while any(sender.poll() is None for sender in senders):
            time.sleep(_SAMPLE_EVERY_S)
            raise_if_ended(running)
            sample = sampler.sample()
            samples.append(sample)
            file.write(json.dumps(sample) + "\n")
            file.flush()
            if len(samples) % 12 == 1:
                _tell(sample, plan)
    for way, sender in zip(WAYS, senders, strict=True):
        if sender.returncode != 0:
            raise RuntimeError(f"sender {way} ended with status {sender.returncode}")
    return samples


def _tell(sample: dict[str, object], plan: SoakPlan) -> None:
    lag = sample["lag"]
    rss = sample["rss_mb"]
    assert isinstance(lag, dict)
    assert isinstance(rss, dict)
    print(
        f"{sample['t_s']:>6} of {60 * plan.minutes:.0f} s: {sample['events_per_s']} events/s, "
        f"lag {sum(lag.values()):.0f}, trainer {rss['trainer']} MB, server {rss['server']} MB, "
        f"p99 {sample['p99_ms']} ms, errors {sample['errors'] or 'none'}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
