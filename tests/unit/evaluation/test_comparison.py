"""The report of a comparison: numbers picked by each rule, their mean, and their forms."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from domain.errors import ConfigError
from evaluation import comparison
from evaluation.config import configured
from evaluation.curves_page import page
from evaluation.full_ranking import METRICS
from evaluation.sequential import EpochResult, Run
from tests.unit.evaluation.sequence_worlds import sequences, tiny

WORLD = sequences([[1, 2, 3, 4, 5], [2, 3, 4, 5]], candidates=5)


def results(values: list[tuple[float | None, float]]) -> list[EpochResult]:
    return [
        EpochResult(
            epoch,
            2.0 / epoch,
            None if validation is None else dict.fromkeys(METRICS, validation),
            dict.fromkeys(METRICS, test),
        )
        for epoch, (validation, test) in enumerate(values, start=1)
    ]


def report() -> dict[str, Any]:
    return comparison.report(
        WORLD,
        tiny(),
        {
            Run("upstream", 1): results([(None, 0.1), (None, 0.3), (None, 0.2)]),
            Run("upstream", 2): results([(None, 0.5)]),
            Run("validation", 1): results([(0.9, 0.1), (0.2, 0.8)]),
            Run("validation", 2): [],
        },
    )


def test_report_picks_by_each_rule_and_averages_over_seeds() -> None:
    found = report()
    picked = [(one["rule"], one["seed"], one["epoch"]) for one in found["chosen"]]
    assert picked == [("upstream", 1, 2), ("upstream", 2, 1), ("validation", 1, 1)]
    upstream = found["rules"]["upstream"]["ndcg@10"]
    assert upstream["mean"] == pytest.approx(0.4)
    assert upstream["deviation"] == pytest.approx(0.2 / 2**0.5)
    assert found["rules"]["validation"]["mrr"] == {"mean": 0.1, "deviation": None}
    assert found["dataset"] == {"users": 2, "users_asked": 2, "events": 9, "candidates": 5}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_tsv_has_a_line_per_run_and_epoch() -> None:
    rows = list(csv.DictReader(io.StringIO(comparison.tsv(report())), delimiter="\t"))
    assert [(row["rule"], row["seed"], row["epoch"]) for row in rows] == [
        ("upstream", "1", "1"), ("upstream", "1", "2"), ("upstream", "1", "3"),
        ("upstream", "2", "1"), ("validation", "1", "1"), ("validation", "1", "2"),
    ]  # fmt: skip
    assert rows[0]["validation.ndcg@10"] == ""
    assert float(rows[5]["test.mrr"]) == 0.8
    assert float(rows[5]["loss"]) == 1.0


def test_markdown_is_a_table_and_says_what_each_rule_is() -> None:
    text = comparison.markdown(report())
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert "| 0.4000 ± 0.1414 |" in text
    assert "| upstream     | 1         | 2/3   | 0.3000 " in text
    assert "- upstream: best epoch on the test itself, by NDCG@10" in text
    assert "**validation**" not in text  # one seed has no mean


def test_page_holds_the_table_and_a_curve_per_run_and_part() -> None:
    text = page(report())
    figures = json.loads(text.partition("const FIGURES = ")[2].partition(";\nfor")[0])
    assert len(figures["m0"]["data"]) == 4
    assert [len(line["x"]) for line in figures["loss"]["data"]] == [3, 1, 2]
    assert "0.4000 ± 0.1414" in text


def test_presets_are_the_published_settings_and_flags_win() -> None:
    base = configured("fuxi-alpha", "ml-1m", {"epochs": None})
    assert (base.blocks, base.width, base.heads, base.d_qk, base.container) == (2, 50, 1, 50, 211)
    large = configured("hstu", "ml-1m-large", {"dropout": 0.1})
    assert (large.blocks, large.heads, large.d_v, large.dropout) == (8, 2, 25, 0.1)
    assert configured("hstu", "ml-20m-large", {}).blocks == 16
    assert configured("sasrec", "ml-20m", {}).shape.ffn_multiple == 1
    assert configured("fuxi-alpha", "ml-20m", {}).shape.ffn_multiple == 4


@pytest.mark.parametrize(
    ("model", "preset", "changes", "message"),
    [
        ("gru4rec", "ml-1m", {}, "--model: expected one of fuxi-alpha"),
        ("hstu", "ml-2m", {}, "--preset: expected one of ml-1m"),
        ("hstu", "ml-1m", {"d_qk": 0}, "--d-qk must be at least 1, got 0"),
        ("hstu", "ml-1m", {"dropout": 1.0}, "--dropout must lie in"),
        ("hstu", "ml-1m", {"temperature": 0.0}, "--temperature must be positive"),
        ("hstu", "ml-1m", {"learning_rate": 0.0}, "--learning-rate must be positive"),
        ("hstu", "ml-1m", {"weight_decay": -1.0}, "--weight-decay must not be negative"),
        ("hstu", "ml-1m", {"attention": "fast"}, "--attention: expected one of auto, plain, fused"),
        ("sasrec", "ml-1m", {"heads": 3}, "--heads: SASRec shares its width of 50"),
    ],
)
def test_settings_that_cannot_be_are_named_by_their_flag(
    model: str, preset: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(model, preset, changes)
