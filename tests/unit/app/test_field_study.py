"""The study of fields on streams small enough to run here: what takes part, and what is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.field_study import (
    COPIES,
    LastCaptures,
    by_activity,
    looked_up,
    main,
    mask_runners,
    quality,
    race,
    tenths,
)
from app.selection_watch import WatchedSelector
from app.settings import Settings
from monitoring.quality import auc
from ranking.aefs import AefsConfig
from ranking.field_layout import layout_of
from ranking.learner import RankingModel
from replay.scenarios import SCENARIOS
from replay.simulator import SimulatedDataset

SCENARIO = SCENARIOS["abrupt"].resized(120)
BASE = replace(Settings().ranking, hidden=(8, 4))


def test_tenths_keep_equal_values_together() -> None:
    found = tenths(np.array([0] * 15 + [1, 2, 3, 4, 5]))
    assert found[:15].tolist() == [0] * 15
    assert found[15:].tolist() == [7, 8, 8, 9, 9]


def test_same_ranker_twice_comes_to_the_same_numbers() -> None:
    """Contenders are led as the live ranker is: to the bit, and so its quality is."""
    dataset = SimulatedDataset(SCENARIO)
    twin = RankingModel(dataset.schema, BASE, seed=5)
    raced = race(dataset, BASE, 5, {"twin": twin})
    np.testing.assert_array_equal(raced.records.scores["twin"], raced.records.scores["online"])
    assert quality(raced, "twin", raced.rows) == quality(raced, "online", raced.rows)
    assert (raced.records.columns["ordinal"][raced.rows] >= 60).all()
    parts = by_activity(raced, "twin")
    assert {side: sum(part["examples"] for part in each) for side, each in parts.items()} == {
        "user": len(raced.rows),
        "item": len(raced.rows),
    }
    inside = raced.records.columns["item_shown"][raced.rows] <= parts["item"][0]["until"]
    rows = raced.rows[inside]
    expected = auc(raced.records.label_NH[rows, 0], raced.records.scores["twin"][rows, 0])
    assert parts["item"][0]["auc"] == expected


def test_lookups_are_those_of_chosen_fields() -> None:
    dataset = SimulatedDataset(SCENARIO)
    layout = layout_of(dataset.schema, BASE.encoder.max_values)
    config = replace(BASE, aefs=AefsConfig(keep=0.4))
    model = RankingModel(dataset.schema, config, seed=5)
    last = LastCaptures(model)
    race(dataset, BASE, 5, {"selecting": last})
    everything, chosen = (looked_up(last.captured, layout, m) for m in (None, model))
    # user, segment, item, category, and one to three tags; two fields are chosen
    assert 5 <= everything <= 7
    assert 1 < chosen <= 1 + 3
    two = looked_up(last.captured[:1], layout, None)
    arrays = last.captured[0].arrays
    present = np.count_nonzero(arrays["item_ids"]) / len(arrays["item_ids"])
    assert two == np.count_nonzero(arrays["request_ids"]) + present


def test_watch_tells_of_every_window_and_item() -> None:
    dataset = SimulatedDataset(SCENARIO)
    config = replace(BASE, aefs=AefsConfig(keep=0.4, controller_every=1))
    model = RankingModel(dataset.schema, config, seed=5)
    watched = WatchedSelector(model, SCENARIO.start_ms, SCENARIO.duration_ms // 4)
    race(dataset, BASE, 5, {"selecting": watched})
    reports = watched.finish()
    assert [report.window for report in reports] == [0, 1, 2, 3]
    assert sum(report.items for report in reports) == 120 * 10
    for report in reports:
        assert sum(report.shares.values()) == pytest.approx(2.0)
        assert report.prediction_gap >= 0.0
        assert report.churn is not None
        assert 0.0 <= report.churn <= 1.0
    assert any(report.churn for report in reports)


def test_watching_changes_nothing() -> None:
    dataset = SimulatedDataset(SCENARIO)
    config = replace(BASE, aefs=AefsConfig(keep=0.4))
    watched, alone = (RankingModel(dataset.schema, config, seed=5) for _ in range(2))
    watch = WatchedSelector(watched, SCENARIO.start_ms, SCENARIO.duration_ms // 4)
    raced = race(dataset, BASE, 5, {"watched": watch, "alone": alone})
    np.testing.assert_array_equal(raced.records.scores["watched"], raced.records.scores["alone"])


def test_masks_are_compared_at_equal_passes() -> None:
    runners = {runner.name: runner for runner in mask_runners()}
    assert not runners["base"].config.adaf2m2.adapter
    assert runners["base, 4 passes"].passes == COPIES + 1
    assert runners["base, 4 passes"].config == runners["base"].config
    assert runners["both"].config.adaf2m2.masked_forwards == COPIES
    assert runners["both"].config.adaf2m2.adapter


def test_command_writes_what_it_prints(tmp_path: Path) -> None:
    said: list[str] = []
    out = tmp_path / "drift.json"
    arguments = ["drift", "--scenarios", "abrupt", "--lists", "60", "--windows", "3"]
    assert main([*arguments, "--json", str(out)], said.append) == 0
    found = json.loads(out.read_text())
    assert found == json.loads(said[0])
    assert [window["window"] for window in found["scenarios"]["abrupt"]] == [0, 1, 2]
    assert {"auc", "auc_all_fields", "churn", "agreement"} <= set(found["scenarios"]["abrupt"][0])


def test_command_asks_for_a_path(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["masks"])
    assert "--path: expected where the dataset is" in capsys.readouterr().err
