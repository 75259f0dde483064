"""Logs that are not what one hopes for: each ends in a sentence, never in a NaN or a traceback."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from stream.sqlite_log import SqliteLog
from tests.command_line import Ended, Headrace, quiet_surroundings
from tests.loop_worlds import SMALL_MODELS

SMALL = [word for setting in SMALL_MODELS for word in ("--set", setting)]
COLUMNS = ("--user-column", "who", "--item-column", "what", "--time-column", "when")
START_MS = 1_700_000_000_000
Row = tuple[str, str, int, int]
Replay = Callable[[list[Row]], Ended]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quiet_surroundings(monkeypatch):
        yield


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Headrace:
    return Headrace(capsys)


@pytest.fixture
def replay(headrace: Headrace, tmp_path: Path) -> Replay:
    """Replay a file of these rows: who was shown what, when, and whether she clicked."""

    def replayed(rows: list[Row]) -> Ended:
        path = tmp_path / "log.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("who", "what", "when", "click"), *rows])
        dataset = ("--dataset", "events", "--path", path, *COLUMNS, "--label-column", "click")
        files = [(f"--{name}", tmp_path / f"out.{name}") for name in ("html", "markdown")]
        files.append(("--out", tmp_path / "out.json"))
        words = [word for pair in files for word in pair]
        ended = headrace("replay", *dataset, *SMALL, *words)
        if ended.code == 0:
            assert "nan" not in ended.out.lower()
            assert "NaN" not in (tmp_path / "out.json").read_text()
            before, *_, data = (tmp_path / "out.html").read_text().split("<script>")
            assert "NaN" not in before + data
            assert "nan" not in (tmp_path / "out.markdown").read_text().lower()
        return ended

    return replayed


def rows(label: Callable[[int], int], users: int = 5, num_rows: int = 60) -> list[Row]:
    return [
        (f"u{at % users}", f"i{at % 9}", START_MS + 60_000 * at, label(at))
        for at in range(num_rows)
    ]


def numbers(tmp_path: Path, variant: str = "online") -> dict[str, Any]:
    report = json.loads((tmp_path / "out.json").read_text())
    found: dict[str, Any] = report["heads"]["click"]["second_half"]["variants"][variant]
    return found


def test_file_without_rows_is_refused(replay: Replay, tmp_path: Path) -> None:
    ended = replay([])
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"headrace: {tmp_path}/log.csv: the file has no rows\n"


def test_empty_log_is_refused(headrace: Headrace, tmp_path: Path) -> None:
    SqliteLog(tmp_path / "log.sqlite").close()
    url = f"sqlite://{tmp_path}/log.sqlite"
    ended = headrace("replay", "--log", url, *SMALL)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"headrace: {url}: nothing in it asks for a score (no impressions,")


def test_log_without_a_positive_label_says_what_is_missing_and_why(
    replay: Replay, headrace: Headrace, tmp_path: Path
) -> None:
    ended = replay(rows(lambda at: 0))
    assert (ended.code, ended.err) == (0, "")
    assert "no variant has an AUC: all 30 labels are 0: nothing to tell apart." in ended.out
    assert "\n- AUC, NE: all 30 labels are 0: nothing to tell apart\n" in ended.out
    assert "\n- calibration: no label is positive: nothing to divide by\n" in ended.out
    found = numbers(tmp_path)
    assert found["calibration"]["value"] is None
    assert found["log_loss"]["value"] > 0.0
    ended = headrace("compare", tmp_path / "out.json", tmp_path / "out.json")
    assert ended.code == 2
    assert "no verdict on AUC (it cannot be computed over these examples)" in ended.out


def test_log_of_positives_only_has_a_calibration_and_no_auc(replay: Replay, tmp_path: Path) -> None:
    ended = replay(rows(lambda at: 1))
    assert (ended.code, ended.err) == (0, "")
    assert "all 30 labels are 1: nothing to tell apart" in ended.out
    assert numbers(tmp_path)["calibration"]["value"] > 0.0


def test_log_of_a_single_user_has_numbers_and_says_why_there_are_no_intervals(
    replay: Replay, tmp_path: Path
) -> None:
    ended = replay(rows(lambda at: int(at % 3 == 0), users=1))
    assert (ended.code, ended.err) == (0, "")
    why = "no interval: fewer than two users to draw from"
    assert f"online+memory cannot be told from the best baseline, counters/item: {why}." in (
        ended.out
    )
    auc = numbers(tmp_path)["auc"]
    assert (auc["low"], auc["high"], auc["reason"]) == (None, None, why)
    assert 0.0 <= auc["value"] <= 1.0


def test_log_of_a_single_row_is_replayed(replay: Replay) -> None:
    ended = replay(rows(lambda at: 1, num_rows=1))
    assert (ended.code, ended.err) == (0, "")
    assert "the only label is 1: nothing to tell apart" in ended.out


def test_rows_out_of_order_are_put_in_order(replay: Replay, tmp_path: Path) -> None:
    orderly = rows(lambda at: int(at % 3 == 0))
    assert replay(orderly).code == 0
    expected = numbers(tmp_path)
    shuffled = list(orderly)
    Random(1).shuffle(shuffled)
    ended = replay(shuffled)
    assert (ended.code, ended.err) == (0, "")
    assert ", 0 late, 0 dead letters" in ended.out
    assert numbers(tmp_path) == expected
