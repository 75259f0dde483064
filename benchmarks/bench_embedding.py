"""Ids to rows to a step of learning: ours beside a dict, torch's sparse Adagrad and fbgemm.

    python benchmarks/bench_embedding.py [--quick] [--json FILE]

    id_map     ids/s of the compiled map over those of a dict (the faster of two ways to ask it)
    step       bags summed, gradients back, rows moved, given row numbers: torch's EmbeddingBag
               (sparse) + Adagrad over ours; both move rows by the same rule
    fbgemm     the same with one sum of squares a row: fbgemm's table-batched embeddings
               (EXACT_ROWWISE_ADAGRAD) over ours
    whole      the same from raw 64-bit ids, a tenth of them new in every batch, admitted at their
               second sighting, expiry on: torch behind dicts (which never expire) over ours
    growth     one step while the table grows from a thousand ids to the end: what doubling it at
               once would cost over the worst step

zipf(1.05) and uniform ids; the worse of both counts. Same ids and first weights, engines in turn
(ABBA); rows and weights are compared after five steps before any ratio is printed. CPU time of one
thread.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from ranking.embedding_table import EmbeddingTable, EmbeddingTableConfig
from ranking.id_map import IdMap
from ranking.row_groups import RowGrouper, RowGroups
from ranking.row_optimiser import OptimiserName, RowOptimiser
from ranking.row_store import RowStore

GOALS = {
    "id_map": 20.0,
    "step": 6.0,
    "fbgemm_zipf": 1.0,
    "fbgemm_uniform": 1.2,
    "whole": 6.0,
    "growth": 5.0,
}
RATE = 0.03
BAGS, WIDTH, DIMENSION = 4096, 30, 64
CHECKED_STEPS = 5
TOLERANCE = 1e-5
HOUR_MS = 3_600_000

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
Step = Callable[[Ids], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, 60 %% of the goals")
    parser.add_argument("--json", type=Path, help="write the result there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.sparse.check_sparse_tensor_invariants.disable()  # said aloud, or torch warns
    num_rows, rounds = (100_000, 5) if given.quick else (1_000_000, 9)
    print(f"copying memory: {bandwidth():.1f} GB/s read and written")
    by_spread: dict[str, dict[str, float]] = {}
    for spread in ("zipf", "uniform"):
        batches = Batches(spread, num_rows)
        by_spread[spread] = {
            "id_map": id_maps(batches, rounds),
            **steps(batches, rounds),
            "whole": whole(batches, rounds),
        }
    found = {
        name: min(each[name] for each in by_spread.values())
        for name in by_spread["zipf"]
        if name != "fbgemm"
    }
    for spread, each in by_spread.items():
        if "fbgemm" in each:
            found[f"fbgemm_{spread}"] = each["fbgemm"]
    found["growth"] = growth(num_rows)
    distinct(rounds)
    report(found, 0.6 if given.quick else 1.0, given.json)


def report(found: dict[str, float], slack: float, file: Path | None) -> None:
    goals = {name: goal for name, goal in GOALS.items() if name in found}
    met = {name: found[name] >= slack * goal for name, goal in goals.items()}
    print()
    for name, goal in goals.items():
        print(f"{name:>16} {found[name]:8.2f}  goal >= {goal:g}{'' if met[name] else '  MISSED'}")
    for name in GOALS.keys() - goals.keys():
        print(f"{name:>16} not measured: fbgemm does not load here")
    result = {"suite": "embedding", "ratios": found, "goals": goals, "ok": all(met.values())}
    if file:
        file.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


class Batches:
    """Batches of bags of ids, as row numbers and as raw 64-bit ids; and gradients."""

    def __init__(self, spread: str, num_rows: int) -> None:
        rng = np.random.default_rng(11)
        self.spread = spread
        self.num_rows = num_rows
        self.raw_R = rng.integers(1, 2**63 - 1, num_rows)
        chance_R = np.arange(1, num_rows + 1) ** (-1.05 if spread == "zipf" else 0.0)
        ends_R = np.cumsum(chance_R / chance_R.sum())
        order_R = rng.permutation(num_rows)
        self.rows_BI = [
            order_R[np.minimum(np.searchsorted(ends_R, rng.random((BAGS, WIDTH))), num_rows - 1)]
            for _ in range(6)
        ]
        self.ids_BI = [self.raw_R[rows_BI] for rows_BI in self.rows_BI]
        self.gradients_BD = rng.normal(size=(BAGS, DIMENSION)).astype(np.float32)
        self.weights_RD = rng.normal(0.0, 0.1, (num_rows, DIMENSION)).astype(np.float32)
        print(
            f"\n{spread}: {np.mean([len(np.unique(each)) for each in self.rows_BI]):,.0f} "
            f"distinct of {BAGS * WIDTH:,} ids in a batch, {num_rows:,} rows, {DIMENSION} wide"
        )

    def with_new(self, number: int) -> Ids:
        """Return batch `number` with a tenth of its ids new, each of them there twice."""
        ids_N = self.ids_BI[number % len(self.ids_BI)].reshape(-1).copy()
        rng = np.random.default_rng(1_000 + number)
        places = rng.choice(len(ids_N), len(ids_N) // 20 * 2, replace=False)
        ids_N[places] = np.tile(-rng.integers(1, 2**62, len(places) // 2), 2)
        return ids_N.reshape(BAGS, WIDTH)


def id_maps(batches: Batches, rounds: int) -> float:
    """Return ids/s of the map over those of a dict, all ids known."""
    known = dict(zip(batches.raw_R.tolist(), range(batches.num_rows), strict=True))
    get = known.get
    maps = {"id map": IdMap(compiles=True), "numpy twin": IdMap(compiles=False)}
    for each in maps.values():
        each.rebuild(batches.raw_R, np.arange(batches.num_rows))
    engines: dict[str, Callable[[Ids], Any]] = {
        "dict, map": lambda ids: list(map(get, ids.reshape(-1).tolist())),
        "dict, loop": lambda ids: [known[each] for each in ids.reshape(-1).tolist()],
        **{name: each.find for name, each in maps.items()},
    }
    for ids_BI, rows_BI in zip(batches.ids_BI, batches.rows_BI, strict=True):
        for name, ask in engines.items():
            assert np.array_equal(np.reshape(ask(ids_BI), rows_BI.shape), rows_BI), name
    took = alternate(engines, batches.ids_BI, rounds)
    for name, seconds in took.items():
        tell(f"id to row, {name}", seconds)
    return min(took["dict, map"], took["dict, loop"]) / took["id map"]


def steps(batches: Batches, rounds: int) -> dict[str, float]:
    """Return how much longer the others' steps take, given row numbers."""
    engines: dict[str, tuple[Step, Callable[[], Floats]]] = {
        "torch sparse Adagrad": torch_step(batches),
        "ours, adagrad": our_step(batches, "adagrad"),
        "ours, rowwise_adagrad": our_step(batches, "rowwise_adagrad"),
        "ours, lazy_adam": our_step(batches, "lazy_adam"),
    }
    fbgemm = fbgemm_step(batches)
    if fbgemm is not None:
        engines["fbgemm rowwise Adagrad"] = fbgemm
    for number in range(CHECKED_STEPS):
        for step, _ in engines.values():
            step(batches.rows_BI[number])
    same(engines, "torch sparse Adagrad", "ours, adagrad")
    if fbgemm is not None:
        same(engines, "fbgemm rowwise Adagrad", "ours, rowwise_adagrad")
    took = alternate({name: step for name, (step, _) in engines.items()}, batches.rows_BI, rounds)
    for name, seconds in took.items():
        tell(f"step, {name}", seconds)
    distinct_U = np.mean([len(np.unique(rows_BI)) for rows_BI in batches.rows_BI])
    moved = distinct_U * DIMENSION * 4 * 3 / took["ours, rowwise_adagrad"] / 1e9
    print(f"{'':>34} ours rowwise: {moved:.1f} GB/s of rows, each read twice and written once")
    ratios = {"step": took["torch sparse Adagrad"] / took["ours, adagrad"]}
    if fbgemm is not None:
        ratios["fbgemm"] = took["fbgemm rowwise Adagrad"] / took["ours, rowwise_adagrad"]
    return ratios


def torch_step(batches: Batches) -> tuple[Step, Callable[[], Floats]]:
    bag = torch.nn.EmbeddingBag(batches.num_rows, DIMENSION, mode="sum", sparse=True)
    bag.weight.data.copy_(torch.from_numpy(batches.weights_RD))
    optimiser = torch.optim.Adagrad(bag.parameters(), lr=RATE)
    gradients_BD = torch.from_numpy(batches.gradients_BD)

    def step(rows_BI: Ids) -> None:
        optimiser.zero_grad()
        bag(torch.from_numpy(rows_BI)).backward(gradients_BD)
        optimiser.step()

    return step, lambda: bag.weight.detach().numpy()


def our_step(batches: Batches, name: OptimiserName) -> tuple[Step, Callable[[], Floats]]:
    optimiser = RowOptimiser(name, DIMENSION, (0.9, 0.999))
    store = RowStore(optimiser.columns, batches.num_rows, "benchmark")
    store["weight"][:] = batches.weights_RD
    grouper = RowGrouper(batches.num_rows)

    def step(rows_BI: Ids) -> None:
        optimiser.read_bags(store, rows_BI)
        optimiser.step(store, grouper.group(rows_BI), batches.gradients_BD, RATE)

    return step, lambda: store["weight"]


def fbgemm_step(batches: Batches) -> tuple[Step, Callable[[], Floats]] | None:
    embeddings = fbgemm_embeddings(batches.num_rows, DIMENSION)
    if embeddings is None:
        return None
    weights_RD = embeddings.split_embedding_weights()[0]
    weights_RD.copy_(torch.from_numpy(batches.weights_RD))
    ends = torch.arange(0, BAGS * WIDTH + 1, WIDTH)
    gradients_BD = torch.from_numpy(batches.gradients_BD)

    def step(rows_BI: Ids) -> None:
        embeddings(torch.from_numpy(rows_BI.reshape(-1)), ends).backward(gradients_BD)

    return step, lambda: weights_RD.numpy()


def fbgemm_embeddings(num_rows: int, dimension: int) -> Any:
    """Return one table of fbgemm's, None where it does not load."""
    try:
        with warnings.catch_warnings():
            # Of parts that its CPU build leaves out.
            warnings.simplefilter("ignore", DeprecationWarning)
            from fbgemm_gpu import split_table_batched_embeddings_ops_training as tbe
    except (ImportError, OSError) as error:
        print(f"fbgemm does not load: {error}", file=sys.stderr)
        return None
    place = (tbe.EmbeddingLocation.HOST, tbe.ComputeDevice.CPU)
    return tbe.SplitTableBatchedEmbeddingBagsCodegen(
        [(num_rows, dimension, *place)],
        optimizer=tbe.OptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=RATE,
        eps=1e-10,
    )


def whole(batches: Batches, rounds: int) -> float:
    """Return how much longer torch behind dicts takes than our table, from raw ids."""
    spare = (CHECKED_STEPS + rounds + 8) * BAGS * WIDTH // 20
    theirs, ours = DictsAndTorch(batches, spare), table_of(batches, spare)
    clock_ms = iter(range(HOUR_MS, 10**12))

    def our_way(ids_BI: Ids) -> None:
        ours.read_bags(ids_BI)
        ours.learn_bags(ids_BI, batches.gradients_BD, next(clock_ms))

    for number in range(CHECKED_STEPS):
        theirs.step(batches.with_new(number))
        our_way(batches.with_new(number))
    assert len(ours) == len(theirs.row_of), f"{len(ours)} rows, not {len(theirs.row_of)}"
    ids = np.concatenate([batches.with_new(number).reshape(-1) for number in range(CHECKED_STEPS)])
    furthest = float(np.abs(ours.read(ids) - theirs.read(ids)).max())
    assert furthest <= TOLERANCE, f"rows differ by {furthest}"
    fresh = [batches.with_new(CHECKED_STEPS + number) for number in range(rounds + 2)]
    took = alternate({"torch behind dicts": theirs.step, "ours": our_way}, fresh, rounds)
    for name, seconds in took.items():
        tell(f"raw ids, {name}", seconds)
    return took["torch behind dicts"] / took["ours"]


def table_of(batches: Batches, spare: int) -> EmbeddingTable:
    config = EmbeddingTableConfig(
        dimension=DIMENSION,
        max_rows=batches.num_rows + spare,
        min_count=2,
        ttl_ms=30 * 24 * HOUR_MS,
        learning_rate=RATE,
    )
    table = EmbeddingTable(config)
    # By its own door: what a trainer's table looks like to a server.
    rows = {"ids": batches.raw_R, "last_ms": np.full(batches.num_rows, HOUR_MS)}
    columns = {"weight": batches.weights_RD, "square": np.zeros_like(batches.weights_RD)}
    state = table.save()
    state["rows"] = {**state["rows"], **rows, "columns": columns, "newest_ms": HOUR_MS}
    table.load(state)
    return table


class DictsAndTorch:
    """What one would write: dicts from ids to rows and to sightings, torch for the rows."""

    def __init__(self, batches: Batches, spare: int) -> None:
        self.row_of = dict(zip(batches.raw_R.tolist(), range(batches.num_rows), strict=True))
        self._seen: dict[int, int] = {}
        # One row more, for ids that have none; it stays zero.
        nobody = batches.num_rows + spare
        self._bag = torch.nn.EmbeddingBag(
            nobody + 1, DIMENSION, mode="sum", sparse=True, padding_idx=nobody
        )
        self._bag.weight.data.zero_()
        self._bag.weight.data[: batches.num_rows] = torch.from_numpy(batches.weights_RD)
        self._nobody = nobody
        self._optimiser = torch.optim.Adagrad(self._bag.parameters(), lr=RATE)
        self._gradients_BD = torch.from_numpy(batches.gradients_BD)

    def step(self, ids_BI: Ids) -> None:
        """Read, learn, and give rows to ids at their second sighting."""
        get, seen = self.row_of.get, self._seen
        flat = ids_BI.reshape(-1).tolist()
        for each in flat:
            if get(each) is None:
                seen[each] = seen.get(each, 0) + 1
        for each in {each for each in flat if get(each) is None}:
            if seen[each] >= 2:
                self.row_of[each] = len(self.row_of)
                del seen[each]
        rows = torch.tensor([get(each, self._nobody) for each in flat]).reshape(ids_BI.shape)
        self._optimiser.zero_grad()
        self._bag(rows).backward(self._gradients_BD)
        self._optimiser.step()

    def read(self, ids: Ids) -> Floats:
        """Return rows, zeros for ids without one."""
        rows = [self.row_of.get(each, self._nobody) for each in ids.tolist()]
        return self._bag.weight.detach().numpy()[rows]


def growth(num_ids: int, new: int = 1_000) -> float:
    """Return what doubling costs at once, over the worst step of a table that grows by itself."""
    table = EmbeddingTable(EmbeddingTableConfig(dimension=DIMENSION, max_rows=2 * num_ids))
    ids = np.random.default_rng(5).permutation(np.arange(1, num_ids + num_ids // 10))
    gradients_ND = np.ones((new, DIMENSION), np.float32)
    counts = np.ones(new, np.int64)
    took = []
    for number, start in enumerate(range(0, len(ids), new)):
        part = ids[start : start + new]
        began_s = time.process_time()
        table.read(part)
        table.learn(part, counts[: len(part)], gradients_ND[: len(part)], HOUR_MS + number)
        took.append(time.process_time() - began_s)
    took_ms = 1e3 * np.array(took)
    map_, rows = IdMap(), np.arange(num_ids)
    old = [np.ones((num_ids, DIMENSION), np.float32) for _ in range(2)]
    began_s = time.process_time()
    for column in old:
        larger = np.zeros((2 * num_ids, DIMENSION), np.float32)
        larger[:num_ids] = column
    map_.rebuild(ids[:num_ids], rows)
    at_once_ms = 1e3 * (time.process_time() - began_s)
    print(
        f"\ngrowth to {len(table):,} ids, {new:,} new ones a step: "
        f"median {np.median(took_ms):.2f} ms, p99 {np.quantile(took_ms, 0.99):.2f}, "
        f"worst {took_ms[1:].max():.2f}; "
        f"doubling at {num_ids:,} at once would take {at_once_ms:.0f} ms"
    )
    return at_once_ms / float(took_ms[1:].max())


def distinct(rounds: int) -> None:
    """Print what a step of the ranker costs: a few thousand distinct rows, a gradient each."""
    num_rows, width, num = 200_000, 16, 3_000
    rng = np.random.default_rng(2)
    given_ND = rng.normal(size=(num, width)).astype(np.float32)
    batches = [rng.permutation(num_rows)[:num] for _ in range(6)]
    engines: dict[str, Callable[[Ids], Any]] = {}
    for name in ("adagrad", "rowwise_adagrad"):
        optimiser = RowOptimiser(name, width, (0.9, 0.999))
        store = RowStore(optimiser.columns, num_rows, "benchmark")
        engines[f"ours, {name}"] = lambda rows, o=optimiser, s=store: o.step(
            s, RowGroups.of_distinct(rows), given_ND, RATE
        )
    embeddings = fbgemm_embeddings(num_rows, width)
    if embeddings is not None:
        ends, given = torch.arange(num + 1), torch.from_numpy(given_ND)
        engines["fbgemm"] = lambda rows: embeddings(torch.from_numpy(rows), ends).backward(given)
    for name, seconds in alternate(engines, batches, max(rounds, 31)).items():
        print(f"{num:,} distinct rows of {width}, {name}: {1e3 * seconds:.2f} ms a step")


def same(engines: dict[str, tuple[Step, Callable[[], Floats]]], one: str, other: str) -> None:
    furthest = float(np.abs(engines[one][1]() - engines[other][1]()).max())
    assert furthest <= TOLERANCE, f"{other} is {furthest} off {one} after {CHECKED_STEPS} steps"


def alternate(
    engines: dict[str, Callable[[Ids], Any]], batches: list[Ids], rounds: int
) -> dict[str, float]:
    """Return the median CPU seconds of each engine, in turn there and back."""
    took: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name in list(engines)[:: 1 if number % 2 else -1]:
            began_s = time.process_time()
            engines[name](batches[number % len(batches)])
            took[name].append(time.process_time() - began_s)
    return {name: float(np.median(seconds[1:])) for name, seconds in took.items()}


def tell(what: str, seconds: float) -> None:
    num = BAGS * WIDTH
    print(f"{what:>34} {num / seconds / 1e6:8.2f} M ids/s {1e9 * seconds / num:9.1f} ns/id")


def bandwidth() -> float:
    """Return GB/s of one core that copies memory, both directions counted."""
    source = np.ones(2**25)
    target = np.empty_like(source)
    took = []
    for _ in range(5):
        began_s = time.process_time()
        np.copyto(target, source)
        took.append(time.process_time() - began_s)
    return 2 * source.nbytes / min(took) / 1e9


if __name__ == "__main__":
    main()
