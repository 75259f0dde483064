"""The fused kernel beside its oracle, in a process where Triton interprets kernels on the CPU.

    TRITON_INTERPRET=1 python -m tests.unit.encoders.fused_cases

Triton reads that variable when it is imported, so a test starts this as a process of its own. It
prints one JSON object: per case and quantity, the largest difference relative to the largest value.
"""

from __future__ import annotations

import json
import sys
from typing import NamedTuple

import torch
from torch import Tensor

from encoders.backbone import Backbone
from encoders.fused_attention import use_fused
from encoders.shape import AttentionMode, BackboneShape
from encoders.time_bucket import time_bucket
from encoders.triton_fuxi import bucket_starts


class Case(NamedTuple):
    """Sizes of one comparison; tiles are 16 wide, so most lengths do not fill them."""

    sequences: int
    length: int
    heads: int
    d_qk: int
    d_v: int
    longest_gap_s: int


CASES = {
    "tiny": Case(2, 3, 1, 2, 3, 100),
    "one event": Case(1, 1, 2, 4, 4, 100),
    "two tiles, uneven": Case(2, 19, 2, 5, 7, 100_000),
    "exact tile, many buckets": Case(1, 16, 2, 16, 16, 10**9),
    "milliseconds": Case(1, 18, 1, 4, 4, 10**12),
    "wide heads": Case(1, 5, 1, 20, 33, 1_000),
}


def outcomes(case: Case, attention: AttentionMode) -> dict[str, Tensor]:
    """Return output and gradients of two FuXi-alpha blocks; equal numbers go in each time."""
    generator = torch.Generator().manual_seed(case.length)
    width = 6
    shape = BackboneShape(
        width=width, container=case.length + 4, blocks=2, heads=case.heads, d_qk=case.d_qk,
        d_v=case.d_v, initial_std=0.5, attention=attention,
    )  # fmt: skip
    model = Backbone(shape, generator)
    size = (case.sequences, case.length + 1)
    times_BU = torch.randint(0, case.longest_gap_s, size, generator=generator).cumsum(dim=1)
    x_BTD = torch.randn(case.sequences, case.length, width, generator=generator).requires_grad_()
    length_B = torch.randint(1, case.length + 1, (case.sequences,), generator=generator)
    out_BTD = model(x_BTD, times_BU, length_B)
    weight_BTD = torch.randn(out_BTD.shape, generator=generator)
    (out_BTD * weight_BTD).sum().backward()
    grads = {name: x.grad for name, x in model.named_parameters()}
    return {"out": out_BTD.detach(), "x": x_BTD.grad, **grads}  # type: ignore[dict-item]


def differences(case: Case) -> dict[str, float]:
    """Return how far the kernel is from the oracle, for each quantity."""
    plain, fused = outcomes(case, "plain"), outcomes(case, "fused")
    return {
        name: float((fused[name] - value).abs().max() / value.abs().max().clamp(min=1e-6))
        for name, value in plain.items()
    }


def edges_of_buckets() -> int:
    """Return how many of the smallest gaps of buckets are in another bucket than they should."""
    starts = bucket_starts(torch.device("cpu"))[:-1]
    buckets = torch.arange(len(starts))
    reached = starts < 2**62
    wrong = (time_bucket(starts) < buckets) | (time_bucket(starts - 1) >= buckets.clamp(min=1))
    return int((wrong & reached).sum())


def main() -> None:
    heads = torch.zeros(1, 2, 1, 4)
    found = {
        "cases": {name: differences(case) for name, case in CASES.items()},
        "edges": edges_of_buckets(),
        "fits": {
            "whole seconds": use_fused("auto", heads.to("meta"), heads, torch.zeros(1, 2).long()),
            "fused": use_fused("fused", heads, heads, torch.zeros(1, 2).long()),
        },
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
