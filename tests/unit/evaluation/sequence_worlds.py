"""Small worlds of users who take items in order, for the tests of `evaluation`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.config import SequentialConfig
from evaluation.sequences import Sequences

TINY = {"blocks": 1, "width": 8, "d_qk": 8, "d_v": 8, "history_length": 6, "negatives": 4}


def tiny(**changes: object) -> SequentialConfig:
    return SequentialConfig(**{**TINY, **changes})  # type: ignore[arg-type]


def sequences(
    items: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None = None, *, candidates: int
) -> Sequences:
    """Rows of the item table per user; times are 100, 200, ... where none are given."""
    if times is None:
        times = [[100 * (place + 1) for place in range(len(own))] for own in items]
    sizes = [len(own) for own in items]
    flat = [item for own in items for item in own]
    return Sequences(
        item_E=np.array(flat, np.int64),
        time_s_E=np.array([time for own in times for time in own], np.int64),
        start_U1=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        num_candidates=candidates,
        num_rows=max([candidates, *flat]) + 1,
    )


def circles(num_users: int = 40, num_items: int = 20, longest: int = 12) -> Sequences:
    """Everybody takes items 1, 2, 3, ... in a circle, from a place of her own: one knows what
    comes next from the newest item alone."""
    random = np.random.default_rng(3)
    items = []
    for _ in range(num_users):
        start, length = random.integers(num_items), random.integers(5, longest + 1)
        items.append([int((start + place) % num_items) + 1 for place in range(length)])
    return sequences(items, candidates=num_items)
