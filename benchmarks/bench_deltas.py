"""What deltas cost the trainer and the server, beside full snapshots of the same models.

    python benchmarks/bench_deltas.py [--quick] [--json FILE]

    trainer_share    CPU time of taking and publishing a delta for every 500 events, as at 500
                     events/s and one a second: share of one core
    throughput       events per CPU second with a delta for each 500 over without any
    save             saving and publishing a full snapshot over taking and publishing a delta
    load             loading a full snapshot over reading, checking and applying a delta
    bytes            a snapshot's learners over a delta
    apply_ms         time for which a server's readers wait: applying, median

Two catalogs: one over which every learning step moves all item vectors, and one large enough to be
sampled. The worse of both is the result. A twin follows through the files, and at the end must
answer as the trainer's learners do, bit for bit, before any ratio is printed. CPU time throughout,
not wall time: what else runs on the machine must not decide. So a snapshot's waiting for the disk,
which a delta does not do, is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from app.learners import LearnerConfigs, Learners, build_learners
from app.replay_run import fit_to
from app.settings import Settings
from app.trainer_wiring import build_loop
from domain.deltas import Delta, DeltaPoint
from domain.requests import RankingRequest, RetrievalRequest, UserView
from domain.state import State
from monitoring.metrics import Metrics
from replay.scenarios import SCENARIOS
from replay.simulator import SimulatedDataset
from snapshot.deltas import LocalDeltaStore
from snapshot.local_store import LocalSnapshotStore
from stream.checkpoint import states_of
from stream.train_loop import TrainLoop

GOALS = {
    "trainer_share": 0.05,
    "throughput": 0.95,
    "save": 2.0,
    "load": 5.0,
    "bytes": 2.0,
    "apply_ms": 10.0,
}
AT_MOST = ("trainer_share", "apply_ms")
EVENTS_PER_DELTA = 500
NAMES = ("ranking", "memory", "retrieval")


@dataclass
class Times:
    """Seconds of every delta, and of learning what is in it."""

    learn: list[float] = field(default_factory=list)
    take: list[float] = field(default_factory=list)
    publish: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    check: list[float] = field(default_factory=list)
    apply: list[float] = field(default_factory=list)
    size: list[int] = field(default_factory=list)

    def median(self, *names: str) -> float:
        """Return the sum of the medians of some of them."""
        return float(sum(np.median(getattr(self, name)) for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few deltas, 60 %% of the goals")
    parser.add_argument("--json", type=Path, help="write the result there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    num_deltas = 5 if given.quick else 20
    runs = [measure(items, num_deltas) for items in (2_000, 20_000)]
    found = {name: (max if name in AT_MOST else min)(run[name] for run in runs) for name in GOALS}
    slack = 0.6 if given.quick else 1.0
    met = {
        name: value <= GOALS[name] / slack if name in AT_MOST else value >= slack * GOALS[name]
        for name, value in found.items()
    }
    for name, value in found.items():
        sign = "<=" if name in AT_MOST else ">="
        missed = "" if met[name] else "  MISSED"
        print(f"{name:>14} {value:10.4g}  goal {sign} {GOALS[name]:g}{missed}")
    result = {"suite": "deltas", "ratios": found, "goals": GOALS, "ok": all(met.values())}
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def measure(num_items: int, num_deltas: int) -> dict[str, float]:
    """Learn a stream, tell a twin, and compare with a snapshot of what was learned."""
    scenario = SCENARIOS["stationary"]
    population = replace(scenario.population, num_users=5_000, num_items=num_items)
    # A list of ten is followed by three and a half actions; items are described before all else.
    num_lists = num_items // 4 + (num_deltas + 6) * EVENTS_PER_DELTA // 3
    dataset = SimulatedDataset(replace(scenario, population=population).resized(num_lists))
    settings = fit_to(dataset, Settings())
    configs = LearnerConfigs.of(settings)
    learners = build_learners(dataset.schema, configs)
    loop = build_loop(settings, dataset.schema, learners, Metrics())
    events = iter(dataset.events())
    while learners.retrieval.num_items < num_items // 2:
        loop.process(next(events))
    for _ in range(4 * EVENTS_PER_DELTA):
        loop.process(next(events))
    with tempfile.TemporaryDirectory() as folder:
        twin = build_learners(dataset.schema, configs)
        copy_to(learners, twin)
        times = follow(loop, twin, events, num_deltas, Path(folder))
        assert_same(learners, twin, loop.parts.watermark.newest_ms)
        return compare(loop, configs, times, num_items, Path(folder))


def copy_to(learners: Learners, twin: Learners) -> None:
    for name in NAMES:
        state = getattr(learners, name).save()
        getattr(learners, name).take_delta()
        getattr(twin, name).load(state)
        getattr(twin, name).follow()


def follow(loop: TrainLoop, twin: Learners, events: Any, num_deltas: int, folder: Path) -> Times:
    """Publish a delta for every 500 events, and let the twin hear of each."""
    store, times = LocalDeltaStore(folder / "deltas"), Times()
    point = DeltaPoint(store.begin_chain(), 0)
    for number in range(1, num_deltas + 1):
        began_s = time.process_time()
        for _ in range(EVENTS_PER_DELTA):
            loop.process(next(events))
        times.learn.append(time.process_time() - began_s)
        began_s = time.process_time()
        states = {name: getattr(loop.parts, name).take_delta() for name in NAMES}
        times.take.append(time.process_time() - began_s)
        delta = Delta(
            point=DeltaPoint(point.chain, number),
            positions={},
            step=loop.counts.steps,
            event_time_ms=loop.parts.watermark.newest_ms,
            schema_hash="",
            states=states,
        )
        began_s = time.process_time()
        times.size.append(store.publish(delta))
        times.publish.append(time.process_time() - began_s)
        if number == num_deltas:
            print("             ", ", ".join(f"{k} {v / 1e3:.0f} kB" for k, v in parts_of(states)))
        began_s = time.process_time()
        (found,) = store.after(DeltaPoint(point.chain, number - 1), 1)
        times.read.append(time.process_time() - began_s)
        began_s = time.process_time()
        for name in NAMES:
            getattr(twin, name).check_delta(found.states[name])
        times.check.append(time.process_time() - began_s)
        began_s = time.process_time()
        for name in NAMES:
            getattr(twin, name).apply_delta(found.states[name])
        times.apply.append(time.process_time() - began_s)
    return times


def parts_of(states: dict[str, State]) -> list[tuple[str, int]]:
    """Return the larger parts of a delta with their sizes in bytes, largest first."""
    sizes: dict[str, int] = {}

    def walk(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, (*path, key))
        elif isinstance(node, np.ndarray):
            name = ".".join(path[:3] if path[0] == "retrieval" else path[:2])
            sizes[name] = sizes.get(name, 0) + node.nbytes

    walk(states, ())
    return sorted(sizes.items(), key=lambda one: -one[1])[:8]


def compare(
    loop: TrainLoop, configs: LearnerConfigs, times: Times, num_items: int, folder: Path
) -> dict[str, float]:
    store = LocalSnapshotStore(folder / "snapshots")
    began_s = time.process_time()
    states = {name: state for name, state in states_of(loop).items() if name in NAMES}
    snapshot_id = store.publish(
        states, positions={}, step=loop.counts.steps, event_time_ms=0, schema_hash=""
    )
    save_s = time.process_time() - began_s
    began_s = time.process_time()
    snapshot = store.load(snapshot_id)
    whole = build_learners(loop.parts.schema, configs)
    for name in NAMES:
        getattr(whole, name).load(snapshot.states[name])
    load_s = time.process_time() - began_s
    publish_s, hear_s = times.median("take", "publish"), times.median("read", "check", "apply")
    learn_s, size = times.median("learn"), float(np.median(times.size))
    size_whole = store.size_bytes(snapshot_id)
    print(
        f"{num_items:>14,} items: {EVENTS_PER_DELTA} events learned in {1e3 * learn_s:.0f} ms; "
        f"delta of {size / 1e3:,.0f} kB taken in {1e3 * times.median('take'):.1f} ms, published in "
        f"{1e3 * times.median('publish'):.1f}, read in {1e3 * times.median('read'):.1f}, checked "
        f"in {1e3 * times.median('check'):.1f}, applied in {1e3 * times.median('apply'):.1f}; "
        f"snapshot of {size_whole / 1e3:,.0f} kB published in {1e3 * save_s:.0f}, loaded in "
        f"{1e3 * load_s:.0f}"
    )
    return {
        "trainer_share": publish_s,
        "throughput": learn_s / (learn_s + publish_s),
        "save": save_s / publish_s,
        "load": load_s / hear_s,
        "bytes": size_whole / size,
        "apply_ms": 1e3 * times.median("apply"),
    }


def assert_same(learners: Learners, twin: Learners, time_ms: int) -> None:
    """Ask both the same; every bit of the answers must be."""
    for user in range(10):
        view = UserView(f"u{user}")
        said = []
        for one in (learners, twin):
            found = one.retrieval.popular(RetrievalRequest(view, time_ms, 100))
            asked = RankingRequest(view, found.item_ids, ({},) * len(found.item_ids), time_ms)
            scores = one.ranking.predict([one.ranking.capture(asked)])[0]
            compensated = one.memory.compensate(scores.hidden, scores.probabilities)
            said.append((found.item_ids, found.scores.tobytes(), compensated.tobytes()))
        assert said[0] == said[1], f"the twin answers otherwise for {view.user_id}"
    items = learners.retrieval.sample_items(1_000)
    ours, theirs = (one.retrieval.item_vectors(items) for one in (learners, twin))
    assert np.array_equal(ours, theirs), "the twin has other item vectors"


if __name__ == "__main__":
    main()
