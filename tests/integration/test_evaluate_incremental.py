"""`headrace evaluate incremental` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import Headrace, quiet_surroundings
from tests.loop_worlds import SMALL_MODELS

SMALL = [word for setting in SMALL_MODELS for word in ("--set", setting)]
ABRUPT = ("evaluate", "incremental", "--dataset", "abrupt", "--limit", "200", *SMALL)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quiet_surroundings(monkeypatch):
        yield


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Headrace:
    return Headrace(capsys)


def test_command_prints_tables_and_writes_files(headrace: Headrace, tmp_path: Path) -> None:
    out, tsv, html = (tmp_path / name for name in ("r.json", "r.tsv", "r.html"))
    flags = ("--out", out, "--tsv", tsv, "--html", html)
    ended = headrace(*ABRUPT, "--slots", "2", "--seeds", "7", *flags)
    assert ended.code == 0, ended.err
    assert "# Incremental protocol on abrupt, head click" in ended.out
    assert f"Wrote {html}" in ended.out
    report = json.loads(out.read_text())
    assert [run["seed"] for run in report["runs"]] == [7]
    assert [slot["examples"] for slot in report["runs"][0]["slots"]] == [500, 500]
    assert tsv.read_text().count("\n") > 10
    assert "<!doctype html>" in html.read_text()[:20]


@pytest.mark.parametrize("seeds", ["", "1,x", "-1", "1,1"])
def test_seeds_that_are_none_are_refused(headrace: Headrace, seeds: str) -> None:
    ended = headrace(*ABRUPT, f"--seeds={seeds}")
    assert ended.code == 2
    assert "--seeds: expected different whole numbers with commas between them" in ended.err


def test_slots_and_shares_that_make_no_sense_are_refused(headrace: Headrace) -> None:
    assert "incremental.num_slots" in headrace(*ABRUPT, "--slots", "1").err
    assert "incremental.base_share" in headrace(*ABRUPT, "--base-share", "1.5").err
