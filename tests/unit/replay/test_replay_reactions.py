"""A replay reacts to drift as a trainer would, and its report says what was done."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from app.replay_run import ReplayWishes, run_replay
from replay.intervals import BootstrapConfig
from replay.report_html import page
from replay.scenarios import TasteChange
from replay.simulator import SimulatedDataset
from tests.loop_worlds import tiny_scenario, tiny_settings

WATCHED_CLOSELY = (
    "drift.point_examples=16",
    "drift.sensitivity.settle=10",
    "drift.fields.max_requests_per_s=0.0",
)
LEARN_FASTER = (
    "reactions.faster_learning.enabled=true",
    "reactions.faster_learning.min_severity=small",
    'reactions.faster_learning.on=["score/"]',
)


def report_with(*overrides: str) -> dict[str, Any]:
    scenario = replace(tiny_scenario(500), changes=(TasteChange(at=0.5),))
    wishes = ReplayWishes(bootstrap=BootstrapConfig(num_draws=4))
    quiet = Console(file=io.StringIO())
    settings = tiny_settings(*WATCHED_CLOSELY, *overrides)
    return run_replay(settings, SimulatedDataset(scenario), quiet, wishes).report


@pytest.fixture(scope="module")
def left_alone() -> dict[str, Any]:
    return report_with()


@pytest.fixture(scope="module")
def reacted() -> dict[str, Any]:
    return report_with(*LEARN_FASTER)


def test_nothing_is_done_and_nothing_is_shown_by_default(left_alone: dict[str, Any]) -> None:
    assert left_alone["drift_signals"] != []
    assert left_alone["reactions"] == []
    assert 'id="reactions"' not in page(left_alone)


def test_what_was_done_is_in_the_report_and_on_its_page(reacted: dict[str, Any]) -> None:
    first_signal = reacted["drift_signals"][0]
    (done,) = reacted["reactions"]
    assert (done["name"], done["stream"]) == ("faster_learning", first_signal["stream"])
    assert done["sentence"].startswith("learns faster for 600 s, because score/online/")
    assert done["sentence"] in page(reacted)


def test_what_was_done_changes_what_comes_after_it_and_nothing_before(
    left_alone: dict[str, Any], reacted: dict[str, Any]
) -> None:
    before, after = (one["variants"]["online"]["windows"] for one in (left_alone, reacted))
    assert before[:10] == after[:10]
    assert before != after
