"""Kill trainers, producers and brokers by the hundred, and count what was lost or came twice.

    python -m tests.faults.campaign --kills 200 --seed 1

Needs Java 17 and Maven for the real Kafka broker. Exit status 1 when anything was lost, doubled or
unequal; the last line says how much.
"""

from __future__ import annotations

import argparse
import platform
import queue
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil

from deploy.kafka.broker import KafkaBroker
from tests.faults.fault_worlds import Stream
from tests.faults.lives import zygote
from tests.faults.points import POINTS, RANDOM
from tests.faults.runs import PRODUCER, Place, RunPlan, RunResult, make_run

BACKENDS = ("sqlite", "kafka")
_KILLS_A_RUN = 12
_STATIC_LISTS = 700
"""Enough for a dozen lives; what the log is too short for is dealt again."""
_LIVE_LISTS = 350
_FULL_EVERY = 12
"""Every so many trainers are started in full."""
_BROKER_EVERY = 5
"""Kills of other processes for which there is at least one of the broker, on Kafka."""
_RANDOM_SHARE = 5
"""How many random moments there are in a deck of points."""


@dataclass(slots=True)
class Tally:
    """What a campaign has come to so far."""

    results: list[RunResult] = field(default_factory=list)

    def total(self, backend: str) -> int:
        """Return how often a process other than the broker was killed."""
        return sum(one.kills.total() for one in self.results if one.backend == backend)

    @property
    def broker_kills(self) -> int:
        """Return how often the broker was killed."""
        return sum(one.broker_kills for one in self.results)

    @property
    def lost(self) -> int:
        """Return the events lost."""
        return sum(len(one.verdict.lost) for one in self.results)

    @property
    def doubled(self) -> int:
        """Return the events applied more than once."""
        return sum(len(one.verdict.doubled) for one in self.results)

    @property
    def unequal(self) -> int:
        """Return the runs that differ from the undisturbed one."""
        return sum(bool(one.verdict.unequal) for one in self.results)

    @property
    def last_line(self) -> str:
        """Return the result in one line."""
        kills = sum(self.total(backend) for backend in BACKENDS)
        return (
            f"kills={kills} broker_kills={self.broker_kills} "
            f"lost={self.lost} doubled={self.doubled} unequal={self.unequal}"
        )

    @property
    def clean(self) -> bool:
        """Return whether there is nothing to complain of."""
        return not (self.lost or self.doubled or self.unequal)


class Deck:
    """Deals the points of one backend so that each comes as often as the others."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._cards: list[str] = []

    def deal(self, count: int) -> tuple[str, ...]:
        """Take cards from the top, shuffling a new deck when there are too few."""
        while len(self._cards) < count:
            fresh = [*POINTS, *[RANDOM] * _RANDOM_SHARE]
            self._cards += [fresh[index] for index in self._rng.permutation(len(fresh))]
        dealt, self._cards = self._cards[:count], self._cards[count:]
        return tuple(dealt)

    def put_back(self, cards: list[str]) -> None:
        """Lay unused cards on top."""
        self._cards = [*cards, *self._cards]


def plans(backend: str, seed: int, deck: Deck) -> Iterator[RunPlan]:
    """Plan one run after the other: filled logs and live ones, policies "fast" and "wait"."""
    lives = 0
    for number in range(10_000):
        live = number % 2 == 1
        is_kafka = backend == "kafka"
        points = deck.deal(_KILLS_A_RUN)
        yield RunPlan(
            name=f"{backend}-{seed}-{number}",
            stream=Stream(_LIVE_LISTS if live else _STATIC_LISTS, seed=1_000 * seed + number),
            policy=("fast", "wait")[number // 2 % 2],
            points=points,
            live=live,
            broker_kills=(5 if live else 3) if is_kafka else 0,
            producer_kills=2 if live else 0,
            in_full=frozenset(
                life for life in range(_KILLS_A_RUN) if (lives + life) % _FULL_EVERY == 0
            ),
        )
        lives += _KILLS_A_RUN + 5


def run_campaign(kills: int, seed: int, folder: Path, backends: tuple[str, ...]) -> Tally:
    """Make runs on all backends side by side until there are kills enough."""
    tally, results = Tally(), queue.Queue[RunResult | BaseException]()
    wanted = {backend: kills // len(backends) for backend in backends}
    wanted[backends[0]] += kills - sum(wanted.values())
    workers = [
        threading.Thread(
            target=_work, args=(backend, wanted[backend], seed, folder, results), name=backend
        )
        for backend in backends
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers) or not results.empty():
        try:
            result = results.get(timeout=0.5)
        except queue.Empty:
            continue
        if isinstance(result, BaseException):
            raise result
        tally.results.append(result)
        _tell(result, tally, kills)
    return tally


def _work(
    backend: str,
    wanted: int,
    seed: int,
    folder: Path,
    results: queue.Queue[RunResult | BaseException],
) -> None:
    try:
        broker = KafkaBroker(folder / "broker") if backend == "kafka" else None
        if broker is not None:
            broker.start()
        deck = Deck(np.random.default_rng([seed, BACKENDS.index(backend)]))
        done = broker_kills = 0
        with zygote() as forks:
            place = Place(folder, forks, broker)
            for plan in plans(backend, seed, deck):
                result = make_run(plan, place)
                deck.put_back(result.unused)
                results.put(result)
                done += result.kills.total()
                broker_kills += result.broker_kills
                if done >= wanted and (broker is None or broker_kills >= wanted / _BROKER_EVERY):
                    break
        if broker is not None:
            broker.kill()
    except BaseException as error:  # noqa: BLE001 (raised by the thread that counts)
        results.put(error)


def _tell(result: RunResult, tally: Tally, kills: int) -> None:
    done = sum(tally.total(backend) for backend in BACKENDS)
    plan = result.plan
    kind = "live" if plan.live else "filled"
    brokers = f", {result.broker_kills} broker kills" if result.broker_kills else ""
    print(
        f"{datetime.now(UTC):%H:%M:%S} [{done}/{kills}] {result.backend} {kind} {plan.policy} "
        f"(stream {plan.stream.seed}): {result.kills.total()} kills{brokers}, "
        f"{result.records} records, {result.seconds:.0f} s: {result.verdict}",
        flush=True,
    )


def table_of(tally: Tally, seed: int, seconds: float) -> str:
    """Return the Markdown that `docs/reliability.md` shows."""
    memory = psutil.virtual_memory().total / 2**30
    runs = len(tally.results)
    records = sum(one.records for one in tally.results)
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {psutil.cpu_count()} virtual cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}, seed {seed}: {runs} runs over {records:,} records "
        f"in {seconds / 60:.0f} minutes.",
        "",
        "| killed | log | kills | lost | doubled | unequal |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for point in (RANDOM, *POINTS, PRODUCER):
        for backend in BACKENDS:
            ours = [one for one in tally.results if one.backend == backend and one.kills[point]]
            if ours:
                count = sum(one.kills[point] for one in ours)
                lines.append(f"| {point} | {backend} | {count} | {_faults(ours)} |")
    ours = [one for one in tally.results if one.broker_kills]
    if ours:
        lines.append(f"| the broker | kafka | {tally.broker_kills} | {_faults(ours)} |")
    return "\n".join([*lines, "", f"`{tally.last_line}`", ""])


def _faults(results: list[RunResult]) -> str:
    lost = sum(len(one.verdict.lost) for one in results)
    doubled = sum(len(one.verdict.doubled) for one in results)
    unequal = sum(bool(one.verdict.unequal) for one in results)
    return f"{lost} | {doubled} | {unequal}"


def main() -> int:
    """Run a campaign; 0 when nothing was lost, doubled or unequal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200, help="processes to kill (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of every choice (default: 1)")
    parser.add_argument("--backend", choices=BACKENDS, help="one backend only (default: both)")
    parser.add_argument("--table", type=Path, help="file for the Markdown table")
    options = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="headrace-faults-"))
    backends = (options.backend,) if options.backend else BACKENDS
    tally = run_campaign(options.kills, options.seed, folder, backends)
    table = table_of(tally, options.seed, time.monotonic() - began)
    print(table)
    if options.table is not None:
        options.table.write_text(table)
    if tally.clean:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"the folders of runs that went wrong are kept in {folder}")
    print(tally.last_line, flush=True)
    return 0 if tally.clean else 1


if __name__ == "__main__":
    sys.exit(main())
