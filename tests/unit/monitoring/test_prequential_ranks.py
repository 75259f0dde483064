"""Recall, NDCG and reciprocal rank over the run and over the window."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from domain.errors import ConfigError
from domain.state import state_hash
from monitoring import quality
from monitoring.prequential_ranks import PrequentialRanks, PrequentialRanksConfig, RankQuality

RANKS = np.random.default_rng(2).integers(-1, 60, 500)  # misses and unevaluated ones among them


def test_progressive_values_equal_those_over_all_ranks() -> None:
    ranks = PrequentialRanks()
    for start in range(0, 500, 13):
        ranks.update(RANKS[start : start + 13])
    got = ranks.get("progressive")
    assert got.evaluated == (RANKS != 0).sum()
    assert got.recall_at_k == pytest.approx(quality.recall_at_k(RANKS, 20))
    assert got.ndcg_at_k == pytest.approx(quality.ndcg_at_k(RANKS, 20))
    assert got.mrr == pytest.approx(quality.mrr(RANKS))


def test_window_holds_the_last_evaluated_ranks_only() -> None:
    ranks = PrequentialRanks(PrequentialRanksConfig(window=3))
    ranks.update([1, 1, 0, 50])
    ranks.update([0, 2, 0])
    assert ranks.get("window") == RankQuality(
        evaluated=3,
        recall_at_k=2 / 3,
        ndcg_at_k=pytest.approx((1 + 1 / np.log2(3)) / 3),
        mrr=pytest.approx((1 + 1 / 50 + 1 / 2) / 3),
    )


@pytest.mark.parametrize("scope", ["progressive", "window"])
def test_values_are_none_when_nothing_was_evaluated(scope: str) -> None:
    ranks = PrequentialRanks()
    ranks.update([0, 0])
    nothing = RankQuality(evaluated=0, recall_at_k=None, ndcg_at_k=None, mrr=None)
    assert ranks.get(scope) == nothing  # type: ignore[arg-type]


def test_load_continues_bit_for_bit_where_save_stood() -> None:
    config = PrequentialRanksConfig(window=40, k=5)
    straight, before, after = (PrequentialRanks(config) for _ in range(3))
    straight.update(RANKS[:300])
    before.update(RANKS[:300])
    after.load(before.save())
    straight.update(RANKS[300:])
    after.update(RANKS[300:])
    assert state_hash(after.save()) == state_hash(straight.save())
    assert after.get("window") == straight.get("window")


@pytest.mark.parametrize("bad", [{"window": 0}, {"k": 0}])
def test_config_names_the_key_when_a_value_is_out_of_range(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=rf"^prequential_ranks\.{next(iter(bad))} "):
        replace(PrequentialRanksConfig(), **bad)
