"""FuXi-alpha's training step on a GPU: one attention kernel beside the plain form, step by step.

    python benchmarks/gpu_ranker.py [--quick] [--json FILE]

Both forms have the same weights and get the same histories of 200 and of 800 events. Before any
time is taken, output and all gradients are compared, in float32. Then, in turn: tokens per second
of a training step (forward, backward, AdamW) and the most memory it held, in float32 and under
bfloat16 autocast, as it is and with torch.compile around the rest of the block.

    tokens_L200, tokens_L800    tokens per second of the kernel over the plain form, bfloat16
    memory_L800                 memory of the plain form over that of the kernel, bfloat16

Where there is no CUDA GPU it says so in one line, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from encoders.backbone import Backbone
from encoders.shape import AttentionMode, BackboneShape

GOALS = {"tokens_L200": 3.0, "tokens_L800": 3.0, "memory_L800": 1.0}
LENGTHS = (200, 800)
FORMS: tuple[AttentionMode, ...] = ("plain", "fused")
MAX_DIFFERENCE = 2e-3
"""Largest difference of an output or gradient, relative to its largest value: float32 sums in
another order, over 800 events."""


@dataclass(frozen=True)
class Cell:
    """One form at one length: medians over rounds."""

    length: int
    form: str
    precision: str
    compiled: bool
    tokens_per_s: float
    spread: float
    peak_mib: float


@dataclass(frozen=True)
class Work:
    """What a step is made of."""

    x_BTD: Tensor
    times_BU: Tensor
    length_B: Tensor
    weight_BTD: Tensor

    @property
    def tokens(self) -> int:
        """Return the number of events."""
        return int(self.length_B.sum())


def shape(length: int, given: argparse.Namespace) -> BackboneShape:
    """Return the published large setting for MovieLens-20M, with fewer blocks when quick."""
    return BackboneShape(
        width=256, container=length + 11, blocks=given.blocks, heads=8, d_qk=32, d_v=32,
        ffn_multiple=4,
    )  # fmt: skip


def work(length: int, batch: int, width: int) -> Work:
    """Return full histories whose events are seconds to weeks apart."""
    generator = torch.Generator().manual_seed(length)
    gaps = torch.rand(batch, length + 1, generator=generator).mul(14.0).exp().long()
    return Work(
        torch.randn(batch, length, width, generator=generator).cuda(),
        gaps.cumsum(dim=1).cuda(),
        torch.full((batch,), length).cuda(),
        torch.randn(batch, length, width, generator=generator).cuda(),
    )


def networks(length: int, given: argparse.Namespace) -> dict[AttentionMode, Backbone]:
    """Return both forms with equal weights."""
    return {
        form: Backbone(
            replace(shape(length, given), attention=form), torch.Generator().manual_seed(1)
        ).cuda()
        for form in FORMS
    }


def largest_difference(length: int, given: argparse.Namespace) -> float:
    """Return how far output and gradients are apart, relative to the largest value of each."""
    asked = work(length, 4, 256)
    found: dict[AttentionMode, dict[str, Tensor]] = {}
    for form, network in networks(length, given).items():
        out_BTD = network(asked.x_BTD, asked.times_BU, asked.length_B)
        (out_BTD * asked.weight_BTD).sum().backward()
        grads = {name: x.grad for name, x in network.named_parameters() if x.grad is not None}
        found[form] = {"output": out_BTD.detach(), **grads}
    return max(
        float((found["fused"][name] - value).abs().max() / value.abs().max().clamp(min=1e-9))
        for name, value in found["plain"].items()
    )


def step_of(network: torch.nn.Module, asked: Work, precision: str) -> Callable[[], None]:
    """Return a training step."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        around: AbstractContextManager[object] = nullcontext()
        if precision == "bf16":
            around = torch.autocast("cuda", torch.bfloat16)
        optimizer.zero_grad()
        with around:
            out_BTD = network(asked.x_BTD, asked.times_BU, asked.length_B)
        (out_BTD.float() * asked.weight_BTD).mean().backward()
        optimizer.step()

    return step


def seconds(step: Callable[[], None], repeats: int) -> float:
    """Return the time of one step as the GPU saw it."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    for _ in range(repeats):
        step()
    after.record()
    torch.cuda.synchronize()
    return float(before.elapsed_time(after)) / 1_000 / repeats


def cells(length: int, precision: str, compiled: bool, given: argparse.Namespace) -> list[Cell]:
    """Return both forms, measured in turn."""
    asked = work(length, given.batch, 256)
    steps: dict[AttentionMode, Callable[[], None]] = {}
    peaks: dict[AttentionMode, float] = {}
    for form, network in networks(length, given).items():
        led = torch.compile(network) if compiled else network
        steps[form] = step_of(led, asked, precision)  # type: ignore[arg-type]
        torch.cuda.empty_cache()
        steps[form]()  # compiles; the next one tells the memory
        torch.cuda.reset_peak_memory_stats()
        steps[form]()
        peaks[form] = torch.cuda.max_memory_allocated() / 2**20
    taken: dict[AttentionMode, list[float]] = {form: [] for form in FORMS}
    for number in range(given.rounds):
        for form in FORMS if number % 2 == 0 else reversed(FORMS):
            taken[form].append(seconds(steps[form], given.repeats))
    found = []
    for form in FORMS:
        middle = statistics.median(taken[form])
        quarters = statistics.quantiles(taken[form], n=4)
        found.append(
            Cell(
                length,
                form,
                precision,
                compiled,
                asked.tokens / middle,
                (quarters[2] - quarters[0]) / middle,
                peaks[form],
            )
        )
    return found


def ratios(measured: list[Cell]) -> dict[str, float]:
    """Return the kernel's gain, bfloat16, not compiled."""
    plain, fused = (
        {one.length: one for one in measured
         if (one.form, one.precision, one.compiled) == (form, "bf16", False)}
        for form in FORMS
    )  # fmt: skip
    gains = {
        f"tokens_L{length}": fused[length].tokens_per_s / plain[length].tokens_per_s
        for length in LENGTHS
    }
    return {**gains, "memory_L800": plain[800].peak_mib / fused[800].peak_mib}


def table(measured: list[Cell]) -> str:
    """Return what was measured as Markdown."""
    lines = [
        "| length | form | precision | compiled | tokens/s | spread | peak MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.length} | {one.form} | {one.precision} | {'yes' if one.compiled else 'no'} "
        f"| {one.tokens_per_s:,.0f} | {one.spread:.0%} | {one.peak_mib:,.0f} |"
        for one in measured
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 block, 8 histories, 3 rounds")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64, help="histories per step")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=5, help="steps per round")
    parser.add_argument("--json", type=Path, help="write the measurements there")
    given = parser.parse_args()
    if given.quick:
        given.blocks, given.batch, given.rounds, given.repeats = 1, 8, 3, 2
    if not torch.cuda.is_available():
        print("not measured: torch finds no CUDA GPU here")
        print(json.dumps({"suite": "gpu_ranker", "ratios": {}, "goals": GOALS, "ok": False}))
        return 0
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for length in LENGTHS:
        difference = largest_difference(length, given)
        print(f"L = {length}: output and gradients differ by at most {difference:.1e}")
        if difference > MAX_DIFFERENCE:
            print(f"the kernel is wrong: expected at most {MAX_DIFFERENCE:.0e}; no times are taken")
            print(json.dumps({"suite": "gpu_ranker", "ratios": {}, "goals": GOALS, "ok": False}))
            return 1
    measured = [
        cell
        for length in LENGTHS
        for precision in ("fp32", "bf16")
        for compiled in (False, True)
        for cell in cells(length, precision, compiled, given)
    ]
    print(table(measured))
    found = ratios(measured)
    share = 0.6 if given.quick else 1.0
    ok = all(found[name] >= share * goal for name, goal in GOALS.items())
    result = {"suite": "gpu_ranker", "ratios": found, "goals": GOALS, "ok": ok}
    if given.json:
        given.json.write_text(json.dumps({**result, "cells": [asdict(x) for x in measured]}))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
