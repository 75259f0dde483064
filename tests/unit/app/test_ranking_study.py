"""The table over several seeds: what stands in it, and what a mean and a deviation are of."""

from __future__ import annotations

from typing import Any

from app.ranking_study import study, table
from replay.simulator import SimulatedDataset
from tests.loop_worlds import SMALL_MODELS, tiny_scenario

NUMBERS: dict[str, Any] = {"auc": 0.7, "gauc": None, "ne": 0.8, "ece": 0.01, "ms": None}


def test_table_tells_mean_and_deviation_and_leaves_empty_what_nobody_measured() -> None:
    runs = [
        {"a": {**NUMBERS, "auc": auc, "ms": ms, "touched": 1_234.4}}
        for auc, ms in ((0.70, 1.0), (0.72, 2.0))
    ]
    assert table(runs).splitlines()[-1] == (
        "| a | 0.7100 ± 0.0141 |  | 0.8000 ± 0.0000 | 0.0100 ± 0.0000 | 1.50 | 1,234 |"
    )


def test_every_asked_row_stands_beside_live_rankers_rivals_and_baselines() -> None:
    rows = {"two words": ("ranking.averaging.half_life_examples=0",)}
    overrides = [*SMALL_MODELS, "batcher.max_examples=40"]
    found = study(SimulatedDataset(tiny_scenario(60)), 7, overrides, rows)
    names = {"counters/item", "river/fm", "rival/trees", "two-words", "online", "online+memory"}
    assert names <= set(found)
    assert found["two-words"]["touched"] == found["online"]["touched"]
    assert found["counters/item"]["ms"] is None
    ms = found["online"]["ms"]
    assert ms is not None
    assert ms > 0.0
