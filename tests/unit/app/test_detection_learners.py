"""A still day with the real learners: what it feeds, and what the summary makes of signals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app import detection_learners
from app.detection_learners import Still, main, still_day, summary, watch_learners
from monitoring.drift_signal import DriftSignal
from replay.scenarios import Scenario
from replay.simulator import simulate


def signal(stream: str) -> DriftSignal:
    return DriftSignal(
        stream=stream, kind="model", detector="adwin", time_ms=2, since_ms=1, before=0.1,
        after=0.2, deviations=3.0, points_before=9, points_after=9,
    )  # fmt: skip


def test_nothing_changes_on_a_still_day_but_records_are_what_records_are() -> None:
    day = still_day(3, 50)
    assert day.changes == ()
    assert day.incident is None
    marks = {arrival.mark for arrival in simulate(still_day(3, 2_000))}
    assert marks == {"clean", "duplicate", "late", "malformed"}


def test_short_day_is_led_through_the_loop_to_its_last_record() -> None:
    day = still_day(1, 60)
    found = watch_learners(day)
    assert found == Still(seed=1, events=sum(1 for _ in simulate(day)), signals=())


def test_summary_counts_by_stream_and_per_million_events() -> None:
    days = [
        Still(1, 250_000, (signal("ne/online/click"), signal("vectors/norm"))),
        Still(2, 250_000, (signal("vectors/norm"),)),
    ]
    assert summary(days) == {
        "days": 2,
        "events": 500_000,
        "false_signals": 3,
        "false_per_million": 6.0,
        "by_stream": {"ne/online/click": 1, "vectors/norm": 2},
    }


def test_command_says_what_it_found_and_fails_when_that_is_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    given: list[DriftSignal] = []

    def seen(scenario: Scenario) -> Still:
        return Still(scenario.seed, 1_000, tuple(given))

    monkeypatch.setattr(detection_learners, "watch_learners", seen)
    arguments = ["--seeds", "2", "--json", str(tmp_path / "days.json")]
    assert main(arguments, said.append) == 0
    assert json.loads((tmp_path / "days.json").read_text()) == json.loads(said[0])
    given.append(signal("vectors/norm"))
    assert main(arguments, said.append) == 1
    assert json.loads(said[1])["false_signals"] == 2
