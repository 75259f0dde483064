"""Scoring 500 candidates against one history, and learning from impressions, in several ways.

    python benchmarks/bench_ranker.py [--quick] [--json FILE]
    python benchmarks/bench_ranker.py --lengths 200 --kind fuxi-beta --no-compile

The network is the history backbone alone: two blocks of width 64, two heads of width 32, in single
precision on one thread. Ways of scoring, all compared with the first before any time is taken:

    paper      one sequence per candidate, all rows of all blocks, as papers evaluate
    strong     the same, but times and places worked out once per user, and of the last block only
               the candidate's row
    shared     the history encoded once, candidates attend to it and to themselves
    cached     the history was encoded before, and is moved to the time of the request
    compiled   the same, compiled for this length (left out with --no-compile)

Where a way would take too long, it scores fewer candidates and its time is scaled up. Learning
compares one sequence per impression with impressions grouped by request, ten to a request, by the
examples learned per second; gradients are compared first.

    shared_paper, shared_strong, cached_strong, compiled_shared   ratios at length 200
    cached_ms, whole_cached                                       at length 200
    training                                                      grouped over one by one

`whole` is the ranker as it is served, with its features, tables and calibration, with and without
kept histories. CPU time, not wall time: what else runs on the machine must not decide. Medians,
ways in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.whole_ranker import WholeRanker
from encoders.backbone import Backbone
from encoders.block import Block
from encoders.geometry import geometry
from encoders.shape import BackboneShape, Kind

CANDIDATES = 500
LENGTHS = (50, 200, 1_000)
JUDGED = 200
"""The length that goals are for."""
PER_REQUEST = 10
TOLERANCE = 1e-5
GOALS = {
    "shared_paper": 200.0,
    "shared_strong": 90.0,
    "cached_strong": 150.0,
    "compiled_shared": 1.5,
    "cached_ms": 3.5,
    "training": 10.0,
}
AT_MOST = {"cached_ms"}


@dataclass(frozen=True, slots=True)
class World:
    """One user's history and the candidates of a request; a minute to a day between events."""

    history_1TD: Tensor
    times_1U: Tensor
    length_1: Tensor
    candidates_1CD: Tensor

    @property
    def request_1(self) -> Tensor:
        """Return the time of the request."""
        return self.times_1U[:, -1]


@dataclass(slots=True)
class Way:
    """One way of doing it; `share` is which part of the work one run does."""

    name: str
    run: Callable[[], Tensor]
    share: float = 1.0
    seconds: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """Return the time of all the work."""
        return statistics.median(self.seconds) / self.share

    @property
    def spread(self) -> float:
        """Return the distance of the quartiles, over the median."""
        low, _, high = statistics.quantiles(self.seconds, n=4)
        return (high - low) / statistics.median(self.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="length 50, 60 %% of the goals")
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--lengths", help="which, with commas between")
    parser.add_argument("--kind", default="fuxi-alpha", choices=get_args(Kind))
    parser.add_argument("--no-compile", action="store_true", help="leave the compiler out")
    given = parser.parse_args()
    lengths = LENGTHS if given.lengths is None else tuple(map(int, given.lengths.split(",")))
    if given.quick and given.lengths is None:
        lengths = (50,)
    torch.set_num_threads(1)
    rounds = 3 if given.quick else 5
    ratios: dict[str, float] = {}
    cells: list[dict[str, object]] = [ceiling()]
    for length in lengths:
        ways = scoring(given.kind, length, compiles=not (given.no_compile or given.quick))
        cells += shown(f"score {length}", measured(ways, rounds))
        if length == (JUDGED if JUDGED in lengths else lengths[-1]):
            ratios |= compared({way.name: way for way in ways})
    ways = learning(given.kind, min(JUDGED, lengths[-1]))
    cells += shown("learn", measured(ways, rounds))
    ratios["training"] = ways[0].median_s / ways[-1].median_s
    for length in (20, *lengths):
        ranker = WholeRanker(given.kind, length, CANDIDATES)
        ways = [Way(name, run) for name, run in ranker.ways().items()]
        cells += shown(f"whole {length}", measured(ways, rounds))
    finish(given, ratios, cells)


def finish(
    given: argparse.Namespace, ratios: dict[str, float], cells: list[dict[str, object]]
) -> None:
    slack = 0.6 if given.quick else 1.0
    met = {}
    for name, value in ratios.items():
        at_most = name in AT_MOST
        met[name] = value <= GOALS[name] / slack if at_most else value >= slack * GOALS[name]
        sign, missed = "<=" if at_most else ">=", "" if met[name] else "  MISSED"
        print(f"{name:>16} {value:10.4g}  goal {sign} {GOALS[name]:g}{missed}")
    result = {
        "suite": "ranker",
        "ratios": ratios,
        "goals": {name: GOALS[name] for name in ratios},
        "ok": all(met.values()),
        "cells": cells,
    }
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "cells"}))


def ceiling() -> dict[str, object]:
    """Show how fast this machine multiplies matrices at the moment: it bounds everything here."""
    side = 1_024
    square = torch.rand(side, side, generator=torch.Generator().manual_seed(0))
    way = Way("sgemm", lambda: square @ square)
    speed = 2e-9 * side**3 / measured([way], 5)[0].median_s
    print(f"{'machine':>12} {way.name:>10} {speed:10.1f} GFLOP/s")
    return {"what": "machine", "way": way.name, "gflops": speed}


def network(kind: Kind, length: int) -> Backbone:
    """Return a backbone in which every part has a say."""
    shape = BackboneShape(
        kind=kind, width=64, container=length + 1, heads=2, d_qk=32, d_v=32, initial_std=0.1
    )
    return Backbone(shape, torch.Generator().manual_seed(1)).eval()


def world(users: int, length: int, candidates: int) -> World:
    generator = torch.Generator().manual_seed(2)
    gaps = torch.randint(60, 86_400, (users, length + 1), generator=generator)
    return World(
        torch.randn(users, length, 64, generator=generator),
        gaps.cumsum(dim=1),
        torch.full((users,), length),
        torch.randn(users, candidates, 64, generator=generator),
    )


def sequences(given: World, user: int, candidates_CD: Tensor) -> Tensor:
    """Return one sequence per candidate: the history, then the candidate."""
    history_CTD = given.history_1TD[user].expand(len(candidates_CD), -1, -1)
    return torch.cat((history_CTD, candidates_CD[:, None]), dim=1)


def paper_rows(net: Backbone, given: World, user: int, candidates_CD: Tensor) -> Tensor:
    x_CTD = sequences(given, user, candidates_CD)
    times_1U = given.times_1U[user : user + 1]
    times_CU = torch.cat((times_1U, times_1U[:, -1:]), dim=1).expand(len(x_CTD), -1)
    out_CTD: Tensor = net(x_CTD, times_CU, torch.full((len(x_CTD),), x_CTD.shape[1]))
    return out_CTD[:, -1]


def strong_rows(net: Backbone, given: World, user: int, candidates_CD: Tensor) -> Tensor:
    x_CTD = sequences(given, user, candidates_CD)
    times_1U = given.times_1U[user : user + 1]
    where = geometry(torch.cat((times_1U, times_1U[:, -1:]), dim=1))
    *first, last = net.blocks
    for block in first:
        x_CTD = block(x_CTD, where)
    row_C = torch.full((len(x_CTD),), x_CTD.shape[1] - 1)
    assert isinstance(last, Block)
    out_CD: Tensor = last(x_CTD, where, row_C)[:, 0]
    return out_CD


def in_parts(
    rows: Callable[[Backbone, World, int, Tensor], Tensor],
    net: Backbone,
    given: World,
    candidates: int,
) -> Tensor:
    """Score the first candidates in pieces that fit into the caches, as a careful caller would."""
    piece = max(1, 10_000 // given.history_1TD.shape[1])
    pieces = given.candidates_1CD[0, :candidates].split(piece)
    return torch.cat([rows(net, given, 0, each) for each in pieces])


def scoring(kind: Kind, length: int, *, compiles: bool) -> list[Way]:
    net, given = network(kind, length), world(1, length, CANDIDATES)
    state = net.encode(given.history_1TD, given.times_1U - 1, given.length_1)
    few = CANDIDATES if length <= 50 else 50 if length <= JUDGED else 5

    def shared() -> Tensor:
        made = net.encode(given.history_1TD, given.times_1U, given.length_1)
        return net.candidates(given.candidates_1CD, made)[0]

    def cached() -> Tensor:
        return net.candidates(given.candidates_1CD, net.moved(state, given.request_1))[0]

    ways = [
        Way("paper", lambda: in_parts(paper_rows, net, given, few), few / CANDIDATES),
        Way("strong", lambda: in_parts(strong_rows, net, given, few), few / CANDIDATES),
        Way("shared", shared),
        Way("cached", cached),
    ]
    if compiles:
        ways.append(Way("compiled", torch.compile(cached, dynamic=False)))
    with torch.no_grad():
        expected = in_parts(paper_rows, net, given, CANDIDATES if few == CANDIDATES else 50)
        for way in ways:
            agree(way.run(), expected)
    return ways


def agree(found: Tensor, expected: Tensor) -> None:
    both = min(len(found), len(expected))
    gap = float((found[:both] - expected[:both]).abs().max())
    assert gap <= TOLERANCE * float(expected.abs().max()), f"scores differ by {gap}"


def learning(kind: Kind, length: int) -> list[Way]:
    """Ways to learn from 4 requests with ten impressions each; a run returns all gradients."""
    requests = 4
    net, given = network(kind, length).train(), world(requests, length, PER_REQUEST)
    labels_BC = (given.candidates_1CD.sum(dim=2) > 0).float()

    def gradients(outputs: Callable[[], Tensor]) -> Tensor:
        net.zero_grad(set_to_none=True)
        logits_BC = outputs().sum(dim=-1)
        binary_cross_entropy_with_logits(logits_BC, labels_BC).backward()
        held = [each.grad for each in net.parameters()]
        return torch.cat([each.flatten() for each in held if each is not None])

    def one_by_one(rows: Callable[[Backbone, World, int, Tensor], Tensor]) -> Tensor:
        every = range(requests)
        return torch.stack([rows(net, given, user, given.candidates_1CD[user]) for user in every])

    def grouped() -> Tensor:
        state = net.encode(given.history_1TD, given.times_1U, given.length_1)
        return net.candidates(given.candidates_1CD, state)

    ways = [
        Way("paper", lambda: gradients(lambda: one_by_one(paper_rows))),
        Way("strong", lambda: gradients(lambda: one_by_one(strong_rows))),
        Way("grouped", lambda: gradients(grouped)),
    ]
    expected = ways[0].run()
    for way in ways[1:]:
        gap = float((way.run() - expected).abs().max())
        assert gap <= 1e-4 * float(expected.abs().max()), f"gradients differ by {gap}"
    return ways


def measured(ways: list[Way], rounds: int) -> list[Way]:
    """Time all ways in turn, forth and back."""
    learns = any(way.name == "grouped" for way in ways)
    with torch.set_grad_enabled(learns):
        for number in range(rounds):
            for way in ways if number % 2 == 0 else reversed(ways):
                # A quick way is run often enough for the clock.
                times = 1 if way.name in ("paper", "strong") else 30
                began = time.process_time()
                for _ in range(times):
                    way.run()
                way.seconds.append((time.process_time() - began) / times)
    return ways


def compared(ways: dict[str, Way]) -> dict[str, float]:
    took = {name: way.median_s for name, way in ways.items()}
    ratios = {
        "shared_paper": took["paper"] / took["shared"],
        "shared_strong": took["strong"] / took["shared"],
        "cached_strong": took["strong"] / took["cached"],
        "cached_ms": 1_000 * took["cached"],
    }
    if "compiled" in took:
        ratios["compiled_shared"] = took["shared"] / took["compiled"]
    return ratios


def shown(what: str, ways: list[Way]) -> list[dict[str, object]]:
    cells: list[dict[str, object]] = []
    for way in ways:
        ratio = ways[0].median_s / way.median_s
        scaled = f"   {way.share:.0%} of the candidates, scaled" if way.share < 1.0 else ""
        took, best = 1_000 * way.median_s, 1_000 * min(way.seconds) / way.share
        print(f"{what:>12} {way.name:>10} {took:10.2f} ms, best {best:10.2f} {ratio:8.1f}x{scaled}")
        cells.append(
            {
                "what": what,
                "way": way.name,
                "ms": took,
                "best_ms": best,
                "spread": way.spread,
                "share": way.share,
            }
        )
    return cells


if __name__ == "__main__":
    main()
