"""The incremental protocol on a tiny world: what is the same for all, and what must differ."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from app.incremental_run import fit_memory, run_incremental, write_reports
from domain.errors import ConfigError, DatasetError
from replay.incremental import IncrementalConfig
from replay.incremental_report import markdown, page, tsv
from replay.scenarios import TasteChange
from replay.simulator import SimulatedDataset
from tests.loop_worlds import tiny_scenario, tiny_settings

SLOTS = 4
METHODS = [
    "base",
    "incctr",
    "memory",
    "incctr+memory, kept",
    "incctr+memory, reset",
    "incctr+memory, rewritten",
    "memory, lambda by margin",
    "memory, neighbours",
]


def report_of(num_lists: int = 240, *overrides: str, **how: Any) -> dict[str, Any]:
    scenario = replace(tiny_scenario(num_lists), changes=(TasteChange(at=0.5),))
    config = IncrementalConfig(num_slots=SLOTS, batch_examples=40, window=300, **how)
    settings = tiny_settings("memory.lambda_rule=shares", *overrides)
    quiet = Console(file=io.StringIO())
    reports = list(run_incremental(settings, SimulatedDataset(scenario), [1, 2], config, quiet))
    assert [len(one["runs"]) for one in reports] == [1, 2]
    return reports[-1]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return report_of()


def test_slot_one_is_the_same_for_all_and_no_other_is(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        slots = {name: heads["click"] for name, heads in run["methods"].items()}
        assert list(slots) == METHODS
        first = [{k: v for k, v in one[0].items() if k != "lambda"} for one in slots.values()]
        assert first == first[:1] * len(METHODS)
        assert all(slots[name][0]["lambda"] == 0.0 for name in METHODS if "memory" in name)
        assert slots["base"][1:] != slots["incctr"][1:]


def test_slots_are_equal_and_in_order_of_time(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        sizes = [slot["examples"] for slot in run["slots"]]
        assert sum(sizes) == 120 * 5
        assert max(sizes) - min(sizes) <= 2 * 5, "a list is not cut in two"
        for earlier, later in zip(run["slots"], run["slots"][1:], strict=False):
            assert earlier["until_ms"] <= later["from_ms"]


def test_a_lambda_of_zero_is_the_base_and_another_is_not(report: dict[str, Any]) -> None:
    silent = report_of(240, "memory.lambda_grid=[0.0]")
    for run in silent["runs"]:
        for name, own in (("memory", "base"), ("incctr+memory, kept", "incctr")):
            for ours, theirs in zip(
                run["methods"][name]["click"], run["methods"][own]["click"], strict=True
            ):
                assert {**ours, "lambda": None} == theirs
    fixed = report["runs"][0]["fixed_lambda"]["memory"]
    base = report["runs"][0]["methods"]["base"]["click"]
    assert fixed["1"][0]["ne"] == base[0]["ne"], "an empty memory corrects nothing"
    assert fixed["1"][1]["ne"] != base[1]["ne"]


def test_kept_reset_and_rewritten_memories_know_different_things(report: dict[str, Any]) -> None:
    by_method = report["runs"][0]["fixed_lambda"]
    last = {name: by_method[name]["1"][-1]["ne"] for name in METHODS[3:6]}
    assert len(set(last.values())) == 3


def test_with_the_whole_past_in_the_window_nothing_is_lost_but_the_hidden_states_move() -> None:
    small, whole = report_of(160), report_of(160)
    assert small["runs"] == whole["runs"], "the same twice: nothing but seeds decides"
    other = report_of(160, live_counters=False)
    assert other["runs"][0]["methods"]["base"] != whole["runs"][0]["methods"]["base"]


def test_forms_of_the_report_say_the_same(report: dict[str, Any], tmp_path: Path) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    text = markdown(report)
    assert "mean from 2" in text
    means = [
        np.mean([one["auc"] for one in run["methods"]["incctr"]["click"][1:]])
        for run in report["runs"]
    ]
    assert f"{np.mean(means):.4f}".removeprefix("0") in text
    lines = tsv(report).splitlines()
    assert len(lines) == 1 + 2 * len(METHODS) * len(report["heads"]) * SLOTS
    assert {len(line.split("\t")) for line in lines} == {9}
    assert page(report).count("<div id=") == 3
    files = {name: tmp_path / "deep" / name for name in ("out", "tsv", "markdown", "html")}
    assert write_reports(report, {**files}) == list(files.values())
    assert json.loads(files["out"].read_text())["runs"] == report["runs"]
    with pytest.raises(ConfigError, match=r"--tsv .*: cannot be written"):
        write_reports(report, {"tsv": tmp_path / "deep"})


def test_too_little_to_cut_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"expected at least 4 labelled lists .* got 2"):
        report_of(4)


def test_memory_of_the_protocol_does_not_decay_unless_told_to() -> None:
    assert fit_memory(tiny_settings()).memory.half_life_ms is None
    chosen = fit_memory(tiny_settings("memory.half_life_ms=5_000"))
    assert chosen.memory.half_life_ms == 5_000


@pytest.mark.parametrize(
    ("key", "value"), [("num_slots", 1), ("base_share", 1.0), ("window", 0), ("batch_examples", 0)]
)
def test_config_names_the_key(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"incremental\.{key} must be"):
        IncrementalConfig(**{key: value})
