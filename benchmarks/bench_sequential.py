"""Training a sequence model on the CPU: what a compiled loss and padding to one's own length save.

    python benchmarks/bench_sequential.py [--quick] [--json FILE]

    loss     time of the sampled softmax in torch over the compiled one, loss and gradients
    groups   time of an encoder's forward and backward pass over histories that are all padded to
             the container, over that of groups padded to their own longest

Both are compared with their slow twin before a ratio is printed. CPU time of one thread, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

from evaluation.config import SequentialConfig
from evaluation.model import SequenceModel
from evaluation.sampled_softmax import draw_negatives, sampled_softmax, unit
from evaluation.sampled_softmax_kernel import fused_sampled_softmax
from evaluation.sequences import Ints, Sequences, batch, lengths

GOALS = {"loss": 8.0, "groups": 1.3}
ITEMS, WIDTH, DRAWN, TEMPERATURE = 9_125, 50, 128, 0.05
LENGTHS = (20, 35, 60, 120, 200)
"""Lengths of histories, about those of MovieLens latest-small."""


def cpu_ms(steps: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the median CPU time of each step, in turn."""
    taken: list[list[float]] = [[] for _ in steps]
    for number in range(rounds + 1):
        for own, step in zip(taken, steps, strict=True):
            before = time.process_time()
            step()
            if number:  # the first round warms up, and compiles
                own.append(1_000 * (time.process_time() - before))
    return [statistics.median(own) for own in taken]


def loss_ratio(places: int, rounds: int) -> float:
    """Compare the two forms of the loss, then return how much faster the compiled one is."""
    generator = torch.Generator().manual_seed(1)
    target_P = torch.randint(1, ITEMS + 1, (places,), generator=generator)
    negative_PR = draw_negatives(places, DRAWN, ITEMS, generator)
    query_PD = unit(torch.randn(places, WIDTH, generator=generator))
    item_VD = unit(torch.randn(ITEMS + 1, WIDTH, generator=generator))

    def gradients(form: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
        query, item = (x.clone().requires_grad_() for x in (query_PD, item_VD))
        loss = form(query, item, target_P, negative_PR, TEMPERATURE)
        found = torch.autograd.grad(loss, (query, item))
        return found[0], found[1]

    for ours, twin in zip(
        gradients(fused_sampled_softmax), gradients(sampled_softmax), strict=True
    ):
        torch.testing.assert_close(ours, twin, rtol=1e-3, atol=1e-4)
    plain_ms, ours_ms = cpu_ms(
        [lambda: gradients(sampled_softmax), lambda: gradients(fused_sampled_softmax)], rounds
    )
    print(f"loss: {1_000 * plain_ms / places:.1f} us per place in torch, "
          f"{1_000 * ours_ms / places:.1f} compiled")  # fmt: skip
    return plain_ms / ours_ms


def world(users: int) -> Sequences:
    """Return users with histories of very different length."""
    random = np.random.default_rng(2)
    sizes = random.choice(LENGTHS, users) + 2
    gaps = np.exp(random.uniform(0.0, 14.0, sizes.sum())).astype(np.int64)
    return Sequences(
        item_E=random.integers(1, ITEMS + 1, sizes.sum()),
        time_s_E=np.cumsum(gaps),
        start_U1=np.concatenate(([0], np.cumsum(sizes))),
        num_candidates=ITEMS,
        num_rows=ITEMS + 1,
    )


def groups_ratio(users: int, rounds: int) -> float:
    """Compare padded and grouped passes, then return how much faster groups are."""
    config = SequentialConfig(dropout=0.0)
    sequences = world(users)
    model = SequenceModel(config, sequences.num_rows, torch.Generator().manual_seed(1))
    everybody = np.arange(users)
    sized = lengths(sequences, everybody, cut=1, longest=config.history_length)
    by_length = [everybody[sized == size] for size in np.unique(sized)]

    def gradient(groups: list[Ints], width: int | None) -> Tensor:
        model.zero_grad()
        for group in groups:
            part = batch(sequences, group, cut=1, longest=config.history_length, width=width)
            out_BTD = model(
                torch.from_numpy(part.histories()),
                torch.from_numpy(part.time_s_BT1),
                torch.from_numpy(part.length_B),
            )
            torch.autograd.backward(out_BTD.sum())
        assert model.place_ND.grad is not None
        return model.place_ND.grad.clone()

    def padded() -> Tensor:
        return gradient([everybody], config.container - 1)

    def grouped() -> Tensor:
        return gradient(by_length, None)

    torch.testing.assert_close(grouped(), padded(), rtol=1e-3, atol=1e-3)
    padded_ms, grouped_ms = cpu_ms([padded, grouped], rounds)
    print(f"encoder, {users} users: {padded_ms:,.0f} ms padded, {grouped_ms:,.0f} ms in groups")
    return padded_ms / grouped_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer places, users and rounds")
    parser.add_argument("--json", type=Path, help="write the measurements there")
    given = parser.parse_args()
    places, users, rounds = (500, 16, 3) if given.quick else (2_000, 64, 7)
    found = {"loss": loss_ratio(places, rounds), "groups": groups_ratio(users, rounds)}
    share = 0.6 if given.quick else 1.0
    ok = all(found[name] >= share * goal for name, goal in GOALS.items())
    result = {"suite": "sequential", "ratios": found, "goals": GOALS, "ok": ok}
    if given.json:
        given.json.write_text(json.dumps(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
