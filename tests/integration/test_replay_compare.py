"""Replays that are compared, cut to a part of the stream, or interrupted, as a user does it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replay.records import load_records
from tests.command_line import ROOT, Headrace, quiet_surroundings, run
from tests.loop_worlds import SMALL_MODELS

SMALL = [word for setting in SMALL_MODELS for word in ("--set", setting)]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quiet_surroundings(monkeypatch):
        yield


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Headrace:
    return Headrace(capsys)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scenario under two seeds, and a shorter one."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as monkeypatch, quiet_surroundings(monkeypatch):
        for name, flags in (("a", ("--seed", "1")), ("b", ("--seed", "2"))):
            out = folder / f"{name}.json"
            dataset = ("--dataset", "stationary", "--limit", "60")
            assert run("replay", *dataset, *SMALL, *flags, "--out", str(out)) == 0
        out = folder / "short.json"
        dataset = ("--dataset", "stationary", "--limit", "30")
        assert run("replay", *dataset, *SMALL, "--out", str(out)) == 0
    return folder


def test_two_seeds_differ_by_nothing_that_matters(headrace: Headrace, runs: Path) -> None:
    margins = [
        word
        for metric in ("auc", "gauc", "ne", "recall@20", "mrr")
        for word in ("--margin", f"{metric}=0.2")
    ]
    ended = headrace("compare", runs / "a.json", runs / "b.json", *margins)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == (
        "b.json against a.json: no difference on AUC, session GAUC, NE, recall@20, MRR"
    )


def test_variants_of_one_run_are_compared_and_worse_ends_with_one(
    headrace: Headrace, runs: Path
) -> None:
    path = runs / "a.json"
    pair = ("online", "counters/item")
    codes = set()
    for variant, against in (pair, pair[::-1]):
        flags = ("--variant", variant, "--against", against, "--metric", "ne", "--margin", "ne=0")
        ended = headrace("compare", path, *flags)
        codes.add(ended.code)
        verdict = {0: ("better", "no difference"), 1: ("worse",)}[ended.code]
        last = ended.out.splitlines()[-1]
        assert last.startswith(f"{variant} against {against}: ")
        assert any(word in last for word in verdict)
    assert codes <= {0, 1}


def test_runs_over_different_events_are_refused(headrace: Headrace, runs: Path) -> None:
    ended = headrace("compare", runs / "a.json", runs / "short.json")
    assert (ended.code, ended.out) == (2, "")
    assert "headrace: the runs measured different examples: 300 and 150 in the second" in ended.err


def test_report_says_how_to_do_it_again(runs: Path) -> None:
    report: dict[str, Any] = json.loads((runs / "a.json").read_text())
    assert report["command"].startswith("headrace replay --dataset stationary --out ")
    assert " --limit 60 --seed 1 --set " in report["command"]
    assert "seed=1" in report["changed"]
    assert report["configuration"]["seed"] == 1


def test_log_is_replayed_from_one_time_to_another(headrace: Headrace, tmp_path: Path) -> None:
    assert headrace("publish", "--dataset", "stationary", "--limit", "40", "--data-dir", tmp_path)
    config = ["--config", tmp_path / "stationary.schema.toml"]
    log = ["--log", f"sqlite://{tmp_path}/events.sqlite", *config, *SMALL]
    out = tmp_path / "whole.json"
    assert headrace("replay", *log, "--out", out).code == 0
    whole = json.loads(out.read_text())
    assert (whole["demands"], whole["dead_letters"]) == (40, 0)
    window = whole["windows"]["click"][10]
    part = tmp_path / "part.json"
    assert headrace("replay", *log, "--from", window["from_ms"], "--out", part).code == 0
    assert 10 <= json.loads(part.read_text())["demands"] <= 20


def test_ctrl_c_leaves_a_report_that_says_it_is_partial(headrace: Headrace, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    words = ["replay", "--dataset", "stationary", "--limit", "5000", *SMALL, "--out", str(out)]
    seen = tmp_path / "printed"
    with seen.open("w") as printed:
        process = subprocess.Popen(
            [sys.executable, "-c", _LOUD, *words],
            cwd=ROOT,
            stdout=printed,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "100"},
        )
        assert process.stderr is not None
        assert process.stderr.readline() == "replaying\n"
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.endswith("headrace: interrupted\n")
    assert "PARTIAL: interrupted after " in seen.read_text()
    report = json.loads(out.read_text())
    assert 0 < report["demands"] < 5_000
    assert report["partial"].startswith(f"interrupted after {report['demands']:,} of 5,000 lists")
    assert load_records(tmp_path / "out.records.npz").num_demands == report["demands"]
    ended = headrace("compare", out, out)
    assert ended.code == 2
    assert f"{out}: a partial report of stationary" in ended.err


_LOUD = """
import sys
import app.replay_run as replay_run
from app.cli import main
real = replay_run.replay_events
def loud(events, loop, *rest):
    def told():
        for at, event in enumerate(events):
            if at == 600:
                print("replaying", file=sys.stderr, flush=True)
            yield event
    return real(told(), loop, *rest)
replay_run.replay_events = loud
sys.argv = ["headrace", *sys.argv[1:]]
main()
"""
