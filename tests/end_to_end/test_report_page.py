"""A replay's page in a real Chromium: opened from a file, offline, it shows the report."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.replay_files import write_html
from app.replay_run import ReplayWishes, run_replay
from monitoring.drift_signal import DriftSignal, signal_to_plain
from replay.intervals import BootstrapConfig
from replay.report import measure
from replay.report_html import page
from replay.simulator import SimulatedDataset
from replay.words import SERVED
from tests.browser import ARTEFACTS, Browser, browser
from tests.loop_worlds import tiny_scenario, tiny_settings
from tests.unit.replay.test_report import records

FIGURES = ("curve-auc", "curve-gauc", "curve-ne", "curve-calibration", "slices", "calibration")
SIGNAL = DriftSignal(
    stream="label_rate/click</script><b>",
    kind="label",
    detector="adwin",
    time_ms=1_704_070_800_000,
    since_ms=1_704_067_200_000,
    before=0.2,
    after=0.9,
    deviations=9.0,
    points_before=40,
    points_after=10,
)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    wishes = ReplayWishes(bootstrap=BootstrapConfig(num_draws=10), command="headrace replay ...")
    quiet = Console(file=io.StringIO())
    dataset = SimulatedDataset(tiny_scenario(100))
    outcome = run_replay(tiny_settings("seed=7"), dataset, quiet, wishes)
    told = {"severity": SIGNAL.severity, "sentence": SIGNAL.describe()}
    return outcome.report | {"drift_signals": [{**signal_to_plain(SIGNAL), **told}]}


@pytest.fixture
def chromium() -> Iterator[Browser]:
    with browser() as own:
        yield own


def test_page_opens_offline_and_shows_the_numbers_of_the_report(
    chromium: Browser, report: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "reports" / "a page.html"
    write_html(report, path)
    tab = chromium.tab
    tab.context.set_offline(True)
    tab.goto(path.as_uri())
    for name in (*FIGURES, "scores"):
        tab.locator(f"#{name} .main-svg").first.wait_for()
    assert chromium.complaints == []
    assert chromium.asked == {""}, "the file itself and nothing else"

    rows = {
        row.locator("td").first.inner_text(): row.locator("td").nth(1).inner_text()
        for row in tab.locator("#headline tbody tr").all()
    }
    assert list(rows) == list(report["variants"])
    part = report["heads"]["click"]["second_half"]["variants"]
    for name, cell in rows.items():
        auc = part[name]["auc"]
        assert cell.split("\n") == [
            f"{auc['value']:.4f}",
            f"{auc['low']:.4f} to {auc['high']:.4f}",
        ]
    assert tab.locator("#words li").all_inner_texts() == report["words"]
    assert SIGNAL.describe() in tab.locator("#signals").inner_text()
    assert tab.locator("#command").inner_text() == report["command"]
    find = "name => document.getElementById('curve-auc').data.find(one => one.name === name).y"
    points = tab.evaluate(find, SERVED)
    windows = report["windows"]["click"]
    assert points == [window["variants"][SERVED]["auc"]["value"] for window in windows]
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=ARTEFACTS / "replay-report.png", full_page=True)


def test_page_of_one_class_says_why_numbers_are_missing(report: dict[str, Any]) -> None:
    silent = records([0.0] * 40, {SERVED: [0.5] * 40}, users=[1] * 40, ranks={"online": [0]})
    numbers = measure(silent, BootstrapConfig(num_draws=5))
    text = page({**report, **numbers, "variants": {SERVED: {}}})
    assert "n/a<small>all 20 labels are 0: nothing to tell apart</small>" in text
    assert "no interval: fewer than two users to draw from" in text
    assert "NaN" not in json.dumps(numbers)
