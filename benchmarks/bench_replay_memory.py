"""Memory of the trainer's loop: whether it grows with events, or only with users and items.

Streams a dataset twice through a fresh loop, the second time with new event ids and later times:
same users, same items, twice the events. Whatever grows in the second pass grows with events.

    python benchmarks/bench_replay_memory.py --dataset kuairand-pure --path DIR [--limit N]
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil

from app.learners import LearnerConfigs, build_learners
from app.replay_run import fit_to
from app.settings import load_settings
from app.trainer_wiring import build_loop
from domain.events import Event, Feedback
from monitoring.metrics import Metrics
from replay.datasets import DatasetOptions, open_dataset
from replay.scenarios import SCENARIOS
from replay.simulator import SimulatedDataset

GOAL_GIB = 3.0
# Python's allocator and the caches of NumPy and torch breathe by a few percent.
GOAL_GROWTH = 1.05
_DAY_MS = 24 * 60 * 60 * 1000
_SAMPLES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="abrupt")
    parser.add_argument("--path")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--quick", action="store_true", help="2,000 simulated lists")
    parser.add_argument("--json", type=Path, help="write the samples there")
    given = parser.parse_args()
    if given.quick:
        given.dataset, given.limit = "abrupt", 2_000
    dataset = _dataset(given)
    settings = fit_to(dataset, load_settings())
    learners = build_learners(dataset.schema, LearnerConfigs.of(settings))
    loop = build_loop(settings, dataset.schema, learners, Metrics())
    process, samples = psutil.Process(), []
    print(f"{'pass':>4} {'events':>12} {'RSS MiB':>9} {'pending':>9}")
    step = max(dataset.num_events_hint // _SAMPLES, 1)
    for number in (1, 2):
        for count, event in enumerate(_pass(dataset, number), start=1):
            loop.process(event)
            if count % step == 0:
                samples.append(_sample(process, loop, number))
        loop.finish()
        samples.append(_sample(process, loop, number))
    first, second = (max(s["rss"] for s in samples if s["pass"] == one) for one in (1, 2))
    result = {
        "suite": "replay_memory",
        "ratios": {"peak_gib": second / 2**30, "second_pass_over_first": second / first},
        "goals": {"peak_gib": GOAL_GIB, "second_pass_over_first": GOAL_GROWTH},
        "ok": second / 2**30 <= GOAL_GIB and second / first <= GOAL_GROWTH,
    }
    if given.json:
        given.json.write_text(json.dumps({**result, "samples": samples}, indent=1))
    print(json.dumps(result))


def _dataset(given: argparse.Namespace) -> Any:
    if given.dataset in SCENARIOS:
        scenario = SCENARIOS[given.dataset]
        return SimulatedDataset(scenario.resized(given.limit or scenario.traffic.num_lists))
    return open_dataset(given.dataset, given.path, DatasetOptions(limit=given.limit))


def _pass(dataset: Any, number: int) -> Iterator[Event]:
    if number == 1:
        yield from dataset.events()
        return
    times = [event.time_ms for event in dataset.events()]
    shift_ms = (max(times) - min(times)) // _DAY_MS * _DAY_MS + 2 * _DAY_MS
    for event in dataset.events():
        again = replace(event, event_id=f"again-{event.event_id}", time_ms=event.time_ms + shift_ms)
        if isinstance(again, Feedback) and again.impression_id is not None:
            again = replace(again, impression_id=f"again-{again.impression_id}")
        yield again


def _sample(process: psutil.Process, loop: Any, number: int) -> dict[str, int]:
    rss = process.memory_info().rss
    pending = loop.parts.joiner.num_pending
    print(f"{number:>4} {loop.counts.events:>12,} {rss / 2**20:>9,.0f} {pending:>9,}", flush=True)
    return {"pass": number, "events": loop.counts.events, "rss": rss, "pending": pending}


if __name__ == "__main__":
    main()
