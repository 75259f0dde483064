"""Several rankers in one replay: each scores as it would alone, and none disturbs another."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from app.ranker_variants import RankerWish, ranker_wishes
from app.replay_run import ReplayOutcome, ReplayWishes, run_replay
from domain.errors import ConfigError
from replay.intervals import BootstrapConfig
from replay.scenarios import Noise
from replay.simulator import SimulatedDataset
from tests.loop_worlds import tiny_scenario, tiny_settings

NOISE = Noise(duplicate_rate=0.1, late_rate=0.05, late_by_ms=600_000, disorder_ms=10_000)


def _wishes(*texts: str, base: tuple[str, ...] = ()) -> tuple[RankerWish, ...]:
    return ranker_wishes(texts, lambda more: tiny_settings(*base, *more))


def _replay(*overrides: str, rankers: tuple[RankerWish, ...] = ()) -> ReplayOutcome:
    wishes = ReplayWishes(bootstrap=BootstrapConfig(num_draws=4), rankers=rankers)
    dataset = SimulatedDataset(tiny_scenario(100, noise=NOISE))
    return run_replay(tiny_settings(*overrides), dataset, Console(file=io.StringIO()), wishes)


def _scores(outcome: ReplayOutcome) -> Any:
    return outcome.records.examples.scores


@pytest.mark.parametrize("policy", ["wait", "fast"])
def test_each_ranker_scores_as_it_would_alone(policy: str) -> None:
    base = (f"joiner.policy={policy}",)
    rankers = _wishes(
        "alike=ranking.hidden=[16,8]",
        "wide=ranking.hidden=[24, 8],ranking.learning_rate=0.01",
        "counts=ranking.counters.prior_strength=2.0",
        "seeded=seed=9",
        base=base,
    )
    together = _replay(*base, rankers=rankers)
    scores = _scores(together)
    np.testing.assert_array_equal(scores["online"], _scores(_replay(*base))["online"])
    np.testing.assert_array_equal(scores["alike"], scores["online"])
    for wish in rankers[1:]:
        alone = _scores(_replay(*base, *wish.changes))["online"]
        if wish.name == "seeded":
            # The seed of the whole replay would change more than the ranker.
            assert not np.array_equal(scores["seeded"], scores["online"])
            continue
        np.testing.assert_array_equal(scores[wish.name], alone)
        assert not np.array_equal(alone, scores["online"])


def test_rivals_share_the_captures_and_learn_beside_the_others() -> None:
    wishes = ReplayWishes(bootstrap=BootstrapConfig(num_draws=4), rivals=True)
    dataset = SimulatedDataset(tiny_scenario(100))
    quiet = Console(file=io.StringIO())
    outcome = run_replay(tiny_settings(), dataset, quiet, wishes)
    alone = run_replay(tiny_settings(), dataset, quiet, replace(wishes, rivals=False))
    scores = _scores(outcome)
    np.testing.assert_array_equal(scores["online"], _scores(alone)["online"])
    assert list(outcome.report["costs"]) == ["online", "rival/trees", "rival/network"]
    assert outcome.report["costs"]["rival/trees"]["parameters_touched"] is None
    # Too few examples for trees: they say the rate so far, of the primary head alone.
    assert scores["rival/trees"].shape == (500, 1)
    assert scores["rival/network"].shape == scores["online"].shape
    assert not np.array_equal(scores["rival/network"], scores["online"])


def test_report_tells_what_was_asked_for_what_it_cost_and_who_wins() -> None:
    rankers = _wishes("wide=ranking.hidden=[24,8]", "counts=ranking.counters.prior_strength=2.0")
    report = _replay(rankers=rankers).report
    assert report["asked_variants"] == {
        "wide": ["ranking.hidden=[24,8]"],
        "counts": ["ranking.counters.prior_strength=2.0"],
    }
    assert list(report["costs"]) == ["online", "wide", "counts"]
    costs = report["costs"]
    assert costs["wide"]["capture_ms"] == costs["online"]["capture_ms"]
    for cost in costs.values():
        assert cost["examples"] == report["examples"]
        assert min(cost[name] for name in ("capture_ms", "predict_ms", "learn_ms")) > 0.0
    assert costs["wide"]["parameters_touched"] > costs["online"]["parameters_touched"] > 1_000
    said = " ".join(report["words"])
    assert "Variant wide:" in said
    assert "Variant counts:" in said


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("wide", "expected NAME=ranking.KEY=VALUE"),
        ("=ranking.hidden=[8]", "expected NAME=ranking.KEY=VALUE"),
        ("wide=", "expected NAME=ranking.KEY=VALUE"),
        ("online=ranking.hidden=[8]", "there is a variant online already"),
        ("river/fm=ranking.hidden=[8]", "there is a variant river/fm already"),
        ("rival/x=ranking.hidden=[8]", "there is a variant rival/x already"),
        ("wide=batcher.max_examples=8", "expected settings of the ranker"),
        ("wide=ranking.hiden=[8]", "ranking.hiden: unknown setting"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=r"variant|setting") as caught:
        _wishes(text)
    assert complaint in str(caught.value)


def test_lists_of_values_keep_their_commas() -> None:
    (wish,) = _wishes("a/b=ranking.hidden=[16, 8],ranking.table.dimension=8, ranking.device=cpu")
    assert wish.name == "a/b"
    assert wish.config.hidden == (16, 8)
    assert wish.config.table.dimension == 8
    assert wish.changes == (
        "ranking.hidden=[16, 8]",
        "ranking.table.dimension=8",
        "ranking.device=cpu",
    )
