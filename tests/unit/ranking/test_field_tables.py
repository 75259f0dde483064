"""Which ids a choice of fields needs, against working it out example by example."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from domain.requests import CapturedRequest
from ranking.collate import collate
from ranking.embedding_table import EmbeddingTableConfig
from ranking.feature_encoder import EncoderConfig
from ranking.field_layout import FieldLayout, layout_of
from ranking.field_tables import LARGE, SMALL, FieldTables, needed_counts, spread
from ranking.learner import RankingModel
from tests.contract.test_ranking_learner import SCHEMA, request
from tests.contract.test_ranking_learner import SMALL as CONFIG

LAYOUT = layout_of(SCHEMA, EncoderConfig().max_values)


def captures(seed: int, count: int) -> list[CapturedRequest]:
    rng = np.random.default_rng(seed)
    model = RankingModel(SCHEMA, CONFIG, seed=0)
    return [model.capture(request(rng, 60_000 * k)) for k in range(count)]


def slow_counts(
    captured: list[CapturedRequest], layout: FieldLayout, chosen_MF: NDArray[np.bool_]
) -> Counter[int]:
    """Go through requests, items, fields and columns one by one."""
    counts: Counter[int] = Counter()
    row = 0
    for each in captured:
        arrays: Any = each.arrays
        wanted: set[tuple[int, int]] = set()
        for item in range(len(each.item_ids)):
            for column, field in enumerate(layout.request.fields_of_columns()):
                if chosen_MF[row, field]:
                    wanted.add((column, int(arrays["request_ids"][column])))
            for column, field in enumerate(layout.item.fields_of_columns()):
                if chosen_MF[row, layout.request.num_fields + field]:
                    counts[int(arrays["item_ids"][item, column])] += 1
            row += 1
        counts.update(value for _, value in wanted)
        counts.update(arrays["history_ids"].tolist())
    del counts[0]
    return counts


@pytest.mark.parametrize("seed", range(6))
def test_needed_counts_are_those_counted_one_by_one(seed: int) -> None:
    captured = captures(seed, 5)
    batch = collate(captured)
    shape = (len(batch.item_MI), LAYOUT.num_fields)
    chosen_MF = np.random.default_rng(seed).random(shape) < 0.3
    counts_U = needed_counts(batch, LAYOUT, chosen_MF, history=True)
    found = {int(i): int(n) for i, n in zip(batch.ids, counts_U, strict=True) if n}
    assert found == dict(slow_counts(captured, LAYOUT, chosen_MF))


def test_everything_is_needed_when_all_fields_are_chosen() -> None:
    batch = collate(captures(0, 4))
    every_MF = np.ones((len(batch.item_MI), LAYOUT.num_fields), bool)
    counts_U = needed_counts(batch, LAYOUT, every_MF, history=True)
    real = batch.ids != 0
    assert counts_U[real].tolist() == batch.counts[real].tolist()


def test_rows_that_were_not_needed_are_zeros_and_learn_nothing() -> None:
    tables = FieldTables(EmbeddingTableConfig(dimension=3, initial_spread=1.0), 2, seed=0)
    batch = collate(captures(0, 2))
    for name in (LARGE, SMALL):
        first = tables.look_up(name, batch, torch.device("cpu"))
        first.rows_ND.sum().backward()  # type: ignore[no-untyped-call]
        first.learn(0)
    needed = np.flatnonzero(batch.ids != 0)[[2, 5]].tolist()
    counts_U = np.zeros(len(batch.ids), np.int64)
    counts_U[needed] = 1
    lookup = tables.look_up(LARGE, batch, torch.device("cpu"), counts_U)
    assert lookup.ids.tolist() == batch.ids[needed].tolist()
    rows_UD = spread(lookup, counts_U)
    assert rows_UD[needed].any(dim=1).all()
    rows_UD.sum().backward()  # type: ignore[no-untyped-call]
    assert not rows_UD[[row for row in range(len(batch.ids)) if row not in needed]].any()
    gradient = lookup.rows_ND.grad
    assert gradient is not None
    assert gradient.tolist() == [[1.0] * 3] * 2
    before = tables.save()[LARGE]["rows"]["columns"]["weight"].copy()
    lookup.learn(1)
    moved = (tables.save()[LARGE]["rows"]["columns"]["weight"] != before).any(axis=1)
    assert moved.sum() == 2
