"""The detection table: what counts as found, missed and false, and that a run is a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app import detection_run
from app.detection_run import ALL, Watched, judge, main, markdown, monitors_of, table, watch
from app.settings import Settings
from monitoring.drift_signal import DriftSignal
from replay.scenarios import SCENARIOS, DriftTruth, Scenario

TRUTHS = (
    DriftTruth(what="", at=0.25, streams=("loss/",)),
    DriftTruth(what="", at=0.5, streams=("item_novelty",)),
)
MOVED = Scenario(id="moved", description="", start_ms=1_000, duration_ms=1_000, truth=TRUTHS)
STILL = Scenario(id="still", description="", start_ms=1_000, duration_ms=1_000)


def signal(at_ms: int, stream: str = "loss/online/click", detector: str = "adwin") -> DriftSignal:
    return DriftSignal(
        stream=stream, kind="concept", detector=detector, time_ms=at_ms, since_ms=at_ms - 1,
        before=0.1, after=0.2, deviations=3.0, points_before=9, points_after=9,
    )  # fmt: skip


def test_first_signal_that_names_the_truth_before_the_next_one_begins_finds_it() -> None:
    watched = Watched(MOVED, events=5_000)
    found = judge(watched, [signal(1_300), signal(1_280), signal(1_600, "item_novelty")])
    assert found.delays == (150, 500)
    assert judge(watched, [signal(1_600), signal(1_300, "item_novelty")]).delays == (None, None)


def test_signals_before_the_truth_or_without_one_are_false() -> None:
    assert judge(Watched(MOVED), [signal(1_249), signal(1_250)]).false == 1
    assert judge(Watched(STILL), [signal(1_001), signal(1_999)]).false == 2


def test_table_counts_per_million_events_and_takes_medians() -> None:
    still = Watched(STILL, 500_000, {"adwin": [], ALL: [signal(1_500, "field/x", "psi")]})
    moved = [
        Watched(MOVED, 5_000, {"adwin": [signal(at)], ALL: [signal(at)]}) for at in (1_260, 1_300)
    ]
    result = table([still, *moved])
    assert list(result) == ["adwin", "psi", "share", ALL]
    assert [one["false_per_million"] for one in result.values()] == [0.0, 2.0, 0.0, 2.0]
    assert result["adwin"]["scenarios"]["moved"] == {
        "truths": 4, "missed": 2, "median_delay_events": 150,
    }  # fmt: skip
    lines = markdown(result).splitlines()
    assert lines[0] == "| scenario | adwin | psi | share | all together |"
    assert lines[2] == "| false signals per million events | 0 | 2 | 0 | 2 |"
    assert lines[3] == "| moved | 150 (2 of 4 missed) | - | - | 150 (2 of 4 missed) |"


def test_bots_are_found_by_the_click_rate_and_the_same_run_finds_the_same() -> None:
    scenario = SCENARIOS["bot-burst"].resized(9_000)
    configs = monitors_of(Settings().drift)
    first, second = watch(scenario, configs), watch(scenario, configs)
    assert first.signals == second.signals
    assert first.events == second.events > 9_000
    for name in ("page_hinkley", ALL):
        assert judge(first, first.signals[name]).delays != (None,), name


def test_command_prints_the_table_and_fails_when_false_signals_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    false: list[DriftSignal] = []

    def seen(scenario: Scenario, configs: dict[str, Any]) -> Watched:
        return Watched(scenario, 1_000, dict.fromkeys(configs, false))

    monkeypatch.setattr(detection_run, "watch", seen)
    told: list[str] = []
    arguments = ["--seeds", "2", "--scenario-seeds", "1", "--json", str(tmp_path / "table.json")]
    assert main(arguments, told.append) == 0
    assert told[0].startswith("| scenario | adwin | page_hinkley |")
    assert json.loads((tmp_path / "table.json").read_text())[ALL]["stationary_events"] == 2_000
    false.append(signal(SCENARIOS["stationary"].start_ms + 1))
    assert main(arguments, told.append) == 1
