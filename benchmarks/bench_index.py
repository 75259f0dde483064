"""The vector index while its vectors move, beside raw FAISS calls, hnswlib and usearch.

    python benchmarks/bench_index.py [--quick] [--json FILE]
    python benchmarks/bench_index.py --items 1000000 --runbooks drift --engines ours,faiss

Every engine is tuned to the smallest setting that finds 95 % of the 100 best at rest, and is then
led through one full turnover of its vectors, step by step in turn with the others. Our index makes
its lists anew when it finds them worn; a server does that aside, so its time has a column of its
own and is no part of updates per second.

    search, batch      queries per second of ours over raw FAISS's, one at a time and 1,000
    updates, deletes   as many per second of ours over raw FAISS's
    updates_hnsw       updates per second of ours over the faster HNSW library's
    loss_RUNBOOK       recall of an index built anew after the turnover, less ours

CPU time, not wall time: what else runs on the machine must not decide. Medians, engines in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import faiss
import numpy as np

from benchmarks.index_engines import ENGINES, Engine, Ours
from benchmarks.index_worlds import Ids, Runbook, Step, Vectors, World

K = 100
TARGET = 0.95
RUNBOOKS: tuple[Runbook, ...] = ("drift", "resample", "sliding")
GOALS = {
    "search": 0.9,
    "batch": 0.9,
    "updates": 0.9,
    "deletes": 0.9,
    "updates_hnsw": 50.0,
    **{f"loss_{runbook}": 0.005 for runbook in RUNBOOKS},
}
SEARCHES_PER_STEP = 20
TUNED_ON = 400


@dataclass(slots=True)
class Timed:
    """What one engine did in one runbook; seconds are of CPU time."""

    engine: Engine
    build_s: float = 0.0
    setting: int = 0
    recall_first: float = 0.0
    recall_last: float = 0.0
    single_s: list[float] = field(default_factory=list)
    batch_s: list[float] = field(default_factory=list)
    update_s: list[float] = field(default_factory=list)
    delete_s: list[float] = field(default_factory=list)
    moving_s: list[float] = field(default_factory=list)
    retrainings_s: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Return the engine's name."""
        return self.engine.name


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    items: int
    steps: int
    rounds: int
    singles: int = 200
    batch: int = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, 60 %% of the goals")
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--items", type=int, help="vectors held (100,000; quick: 10,000)")
    parser.add_argument("--runbooks", default=",".join(RUNBOOKS), help="which, with commas between")
    parser.add_argument("--engines", default=",".join(ENGINES), help="which, with commas between")
    given = parser.parse_args()
    items = given.items or (10_000 if given.quick else 100_000)
    sizes = Sizes(items, *((10, 3) if given.quick else (50, 7)))
    faiss.omp_set_num_threads(1)
    names = given.engines.split(",")
    ratios: dict[str, float] = {}
    cells = []
    for runbook in given.runbooks.split(","):
        world = World(runbook, sizes.items, sizes.steps)
        measured = [Timed(ENGINES[name]()) for name in names]
        found = run(world, measured, sizes)
        ratios |= {f"loss_{runbook}": found} if found is not None else {}
        cells += [show(runbook, sizes, one) for one in measured]
        for name, value in compare({one.name: one for one in measured}).items():
            ratios[name] = min(ratios.get(name, np.inf), value)
    finish(given, ratios, cells)


def finish(
    given: argparse.Namespace, ratios: dict[str, float], cells: list[dict[str, object]]
) -> None:
    slack = 0.6 if given.quick else 1.0
    met = {}
    for name, value in ratios.items():
        at_most = name.startswith("loss")
        met[name] = value <= GOALS[name] / slack if at_most else value >= slack * GOALS[name]
        sign, missed = "<=" if at_most else ">=", "" if met[name] else "  MISSED"
        print(f"{name:>16} {value:10.4g}  goal {sign} {GOALS[name]:g}{missed}")
    result = {
        "suite": "index",
        "ratios": ratios,
        "goals": {name: GOALS[name] for name in ratios},
        "ok": all(met.values()),
        "cells": cells,
    }
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "cells"}))


def run(world: World, measured: list[Timed], sizes: Sizes) -> float | None:
    """Lead the engines through one runbook; return what ours lost against an index made anew."""
    queries = world.queries(1_000)
    best = exact(world, queries)
    for one in measured:
        one.build_s = timed(one.engine.build, world.ids.copy(), world.vectors.copy())
        one.setting, one.recall_first = tuned(one.engine, queries[:TUNED_ON], best[:TUNED_ON])
        check(one.engine, world, queries)
    time_searches(measured, world, sizes)
    for step in world.steps():
        singles = world.queries(SEARCHES_PER_STEP)
        for one in measured:
            take_step(one, step, singles)
            if isinstance(one.engine, Ours) and one.engine.index.is_worn:
                index = one.engine.index
                one.retrainings_s.append(timed(index.rebuild, world.ids, world.vectors))
    queries = world.queries(1_000)
    best = exact(world, queries)
    loss = None
    for one in measured:
        one.recall_last = recall(one.engine, queries, best)
        if isinstance(one.engine, Ours):
            fresh = Ours()
            fresh.build(world.ids, world.vectors)
            fresh.tune(one.setting)
            loss = recall(fresh, queries, best) - one.recall_last
    return loss


def take_step(one: Timed, step: Step, singles: Vectors) -> None:
    """Let an engine take in one change and answer while it is fresh."""
    one.update_s.append(timed(one.engine.upsert, step.ids, step.vectors) / len(step.ids))
    if len(step.gone):
        one.delete_s.append(timed(one.engine.remove, step.gone) / len(step.gone))
    for query in singles:
        one.moving_s.append(timed(one.engine.search, query[None], K))


def time_searches(measured: list[Timed], world: World, sizes: Sizes) -> None:
    """Time searches one by one and in batches, engines in turn and back again."""
    batch = world.queries(sizes.batch)
    for number in range(sizes.rounds):
        singles = world.queries(sizes.singles)
        for one in measured if number % 2 else measured[::-1]:
            one.single_s.append(timed(one_by_one, one.engine, singles) / len(singles))
            one.batch_s.append(timed(one.engine.search, batch, K) / len(batch))


def one_by_one(engine: Engine, queries: Vectors) -> None:
    for query in queries:
        engine.search(query[None], K)


def exact(world: World, queries: Vectors) -> Ids:
    """Return the K best ids of each query, by a complete search."""
    flat = faiss.IndexFlatIP(queries.shape[1])
    flat.add(world.vectors)
    best: Ids = world.ids[flat.search(queries, K)[1]]
    return best


def recall(engine: Engine, queries: Vectors, best: Ids) -> float:
    """Return the share of the best ids that an engine finds, of single queries' mean."""
    found = engine.search(queries, K)
    return float(np.mean([np.isin(b, f).mean() for b, f in zip(best, found, strict=True)]))


def tuned(engine: Engine, queries: Vectors, best: Ids) -> tuple[int, float]:
    """Set the smallest effort that reaches the target; return it and the recall."""
    for setting in engine.settings:
        engine.tune(setting)
        reached = recall(engine, queries, best)
        if reached >= TARGET:
            return setting, reached
    raise SystemExit(f"{engine.name} did not reach recall {TARGET} with {engine.settings[-1]}")


def check(engine: Engine, world: World, queries: Vectors) -> None:
    """Stop when an engine returns what it does not hold, the same id twice, or not the best."""
    found = engine.search(queries[:50], K)
    assert np.isin(found, world.ids).all(), f"{engine.name} returned ids that it does not hold"
    assert all(len(set(row)) == K for row in found.tolist()), f"{engine.name} returned repeats"
    itself = engine.search(world.vectors[:200].copy(), 1)[:, 0]
    assert (itself == world.ids[:200]).mean() > 0.98, f"{engine.name} does not find its own vectors"


def compare(by_name: dict[str, Timed]) -> dict[str, float]:
    """Return the ratios of one runbook, those whose engines took part."""
    if "ours" not in by_name:
        return {}
    ours = by_name["ours"]
    found = {}
    if "faiss" in by_name:
        raw = by_name["faiss"]
        found["search"] = middle(raw.single_s) / middle(ours.single_s)
        found["batch"] = middle(raw.batch_s) / middle(ours.batch_s)
        found["updates"] = middle(raw.update_s) / middle(ours.update_s)
        if ours.delete_s:
            found["deletes"] = middle(raw.delete_s) / middle(ours.delete_s)
    graphs = [by_name[name] for name in ("hnswlib", "usearch") if name in by_name]
    if graphs:
        found["updates_hnsw"] = min(middle(one.update_s) for one in graphs) / middle(ours.update_s)
    return found


def show(runbook: str, sizes: Sizes, one: Timed) -> dict[str, object]:
    """Print one line of the table, and return it."""
    cell: dict[str, object] = {
        "runbook": runbook,
        "items": sizes.items,
        "engine": one.name,
        "setting": one.setting,
        "build_s": round(one.build_s, 1),
        "recall": round(one.recall_first, 4),
        "recall_after": round(one.recall_last, 4),
        "single_qps": round(1 / middle(one.single_s)),
        "batch_qps": round(1 / middle(one.batch_s)),
        "updates_per_s": round(1 / middle(one.update_s)),
        "deletes_per_s": round(1 / middle(one.delete_s)) if one.delete_s else None,
        "moving_p99_ms": round(1e3 * float(np.quantile(one.moving_s, 0.99)), 2),
        "retrainings": len(one.retrainings_s),
        "retraining_s": round(sum(one.retrainings_s), 1),
    }
    print("  ".join(f"{name} {value}" for name, value in cell.items()), flush=True)
    return cell


def middle(values: list[float]) -> float:
    return float(np.median(values))


def timed(work: Callable[..., object], *given: object) -> float:
    """Return the CPU seconds that a call takes."""
    started = time.process_time()
    work(*given)
    return time.process_time() - started


if __name__ == "__main__":
    main()
