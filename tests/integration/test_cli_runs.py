"""What commands do to logs, snapshots and reports, as a user meets it."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.sqlite_log import SqliteLog
from tests.command_line import (
    ROOT,
    Ended,
    Headrace,
    counted,
    quiet_surroundings,
    run,
    write_clicks,
)
from tests.loop_worlds import SMALL_MODELS

SMALL = [word for setting in SMALL_MODELS for word in ("--set", setting)]
TRAINER = [*SMALL, "--set", "metrics.trainer_port=0"]
NUM_ROWS = 240
COUNTERS = ("counters/item", "counters/user+item")
VARIANTS = (*COUNTERS, "river/logistic", "river/fm", "frozen", "online", "online+memory")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quiet_surroundings(monkeypatch):
        yield


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Headrace:
    return Headrace(capsys)


# Replay


class Replayed:
    """A replay of the same small file, once for each set of further flags."""

    def __init__(self, headrace: Headrace, folder: Path) -> None:
        self.out = folder / "reports" / "report.json"
        self._headrace = headrace
        self._clicks = folder / "clicks.csv"
        write_clicks(self._clicks, NUM_ROWS)

    def run(self, *flags: str) -> tuple[Ended, dict[str, Any]]:
        columns = ["--user-column", "who", "--item-column", "what", "--time-column", "when"]
        labels = ["--label-column", "click", "--label-column", "like"]
        dataset = ["--dataset", "events", "--path", self._clicks]
        ended = self._headrace(
            "replay", *dataset, *columns, *labels, *SMALL, "--out", self.out, *flags
        )
        return ended, json.loads(self.out.read_text())


@pytest.fixture
def replayed(headrace: Headrace, tmp_path: Path) -> Replayed:
    return Replayed(headrace, tmp_path)


def test_replay_prints_a_table_and_writes_the_report(replayed: Replayed) -> None:
    ended, report = replayed.run()
    assert (ended.code, ended.err) == (0, "")
    check_report(report)
    check_table(ended.out, report)
    assert ended.out.endswith(f"Wrote {replayed.out}\n")


def check_report(report: dict[str, Any]) -> None:
    assert report["dataset"] == "events"
    assert report["seed"] == 42
    assert report["examples"] == report["demands"] == NUM_ROWS
    # Each row is an impression and two outcomes; each of the 20 items is announced once.
    assert report["events"] == 3 * NUM_ROWS + 20
    assert [report[name] for name in ("duplicates", "late", "dead_letters", "quarantined")] == [
        0
    ] * 4
    assert report["seconds"] > 0
    assert tuple(report["variants"]) == VARIANTS
    for variant in report["variants"].values():
        half, windows = variant["second_half"], variant["windows"]
        assert half["examples"] == NUM_ROWS // 2
        assert 0 <= half["auc"] <= 1
        assert 0 <= half["gauc"] <= 1
        assert half["ne"] > 0
        assert half["calibration"] > 0
        assert len(windows) == 20
        assert sum(window["examples"] for window in windows) == NUM_ROWS
        assert all(
            {"from_ms", "until_ms", "auc", "gauc", "ne", "calibration"} <= set(window)
            for window in windows
        )
    found = report["retrieval"]
    assert set(found) == {"recall@20", "ndcg@20", "mrr", "predictions", "catalog"}
    assert found["catalog"] == 20
    assert 0 < found["mrr"] < found["ndcg@20"] < found["recall@20"] < 1, "a repetition is a miss"


def check_table(text: str, report: dict[str, Any]) -> None:
    table = text[text.index("| variant ") :].split("\n\n")[0]
    split = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    rows = {name: cells for name, *cells in split[2:]}
    assert tuple(rows) == VARIANTS
    for name, cells in rows.items():
        half = report["variants"][name]["second_half"]
        numbers = [f"{half[key]:.4f}" for key in ("auc", "gauc", "ne", "calibration")]
        ece = report["heads"]["click"]["second_half"]["variants"][name]["ece"]["value"]
        assert cells == [*numbers, f"{ece:.4f}"]
    assert "…" not in text, "nothing is cut in a narrow terminal"
    assert f"Ranking, head click: {NUM_ROWS // 2} examples, " in text
    assert f"| online    |    {report['retrieval']['recall@20']:.4f} |" in text
    assert f"{report['events']:,} events, {NUM_ROWS} examples, 0 duplicates" in text


def test_replay_repeats_itself_under_a_seed_and_differs_under_another(replayed: Replayed) -> None:
    (_, first), (_, again) = replayed.run("--seed", "3"), replayed.run("--seed", "3")
    _, other = replayed.run("--seed", "4")
    for report in (first, again, other):
        del report["seconds"], report["costs"]  # measured time
    assert first == again
    assert first["variants"]["online"] != other["variants"]["online"]
    for counter in COUNTERS:
        assert first["variants"][counter] == other["variants"][counter], "counters draw nothing"


def test_replay_limit_takes_the_first_rows(replayed: Replayed) -> None:
    _, report = replayed.run("--limit", "60")
    assert report["examples"] == 60


def test_replay_stops_at_ctrl_c_with_one_line(tmp_path: Path) -> None:
    words = ["replay", "--dataset", "stationary", "--limit", "3000", *SMALL]
    terminal, ours = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=ours,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(ours)
    seen = read_until(terminal, "replaying 2024")
    process.send_signal(signal.SIGINT)
    seen += read_until(terminal, None)
    out, _ = process.communicate(timeout=60)
    os.close(terminal)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in seen
    assert seen.endswith("headrace: interrupted\r\n")
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l"), "the cursor is shown again"


def read_until(terminal: int, text: str | None) -> str:
    """Read what is printed until it contains `text`, or to its end."""
    seen = ""
    while text is None or text not in seen:
        try:
            chunk = os.read(terminal, 4_096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not chunk:
            break
        seen += chunk.decode(errors="replace")
    return seen


# Logs


def test_published_dataset_validates_with_the_schema_written_beside_it(
    headrace: Headrace, tmp_path: Path
) -> None:
    folder = tmp_path / "a folder=with 100%"
    dataset = ["--dataset", "stationary", "--limit", 15]
    published = headrace("publish", *dataset, "--data-dir", folder)
    assert (published.code, published.err) == (0, "")
    num_events = int(
        re.findall(r"^Published ([\d,]+) events of stationary to", published.out)[0].replace(
            ",", ""
        )
    )
    schema = folder / "stationary.schema.toml"
    assert f"--config {schema}\n" in published.out
    found = counted(headrace("validate", "--data-dir", folder, "--config", schema).out)
    assert found["impressions"] == 15
    assert sum(found.values()) == num_events

    headrace("publish", *dataset, "--data-dir", folder)
    ended = headrace("validate", "--data-dir", folder, "--config", schema)
    assert ended.code == 0
    assert counted(ended.out)["repeated event ids"] == num_events


def test_validate_names_records_that_would_be_set_aside(headrace: Headrace, tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "events.sqlite")
    log.append_raw([("ann", b"not an event"), ("bob", b"neither")])
    log.close()
    ended = headrace("validate", "--data-dir", tmp_path)
    assert ended.code == 1
    assert counted(ended.out)["undecodable"] == 2
    assert "events/0@0: " in ended.out


# Snapshots


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log and two snapshots: nothing learned, and everything learned."""
    folder = tmp_path_factory.mktemp("trained")
    place = ["--data-dir", str(folder)]
    schema = ["--config", str(folder / "stationary.schema.toml")]
    with pytest.MonkeyPatch.context() as monkeypatch, quiet_surroundings(monkeypatch):
        assert run("publish", "--dataset", "stationary", "--limit", "30", *place) == 0
        assert run("train", "--until-end", *place, *schema, *TRAINER) == 0
    return folder


@pytest.fixture
def data(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "data"))


def ids(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "snapshots").glob("0*"))


def listed(headrace: Headrace, data: Path) -> dict[str, list[str]]:
    """The rows of `snapshots list` by id, the mark of the served one in front."""
    ended = headrace("snapshots", "list", "--data-dir", data)
    assert (ended.code, ended.err) == (0, "")
    assert max(len(line.rstrip()) for line in ended.out.splitlines()) <= 80
    rows = re.findall(r"^ ?(\*?) *(\d{12}-\w{12}) +(.*?) *$", ended.out, re.MULTILINE)
    return {one: [mark, *rest.split("  ")] for mark, one, rest in rows}


def test_snapshots_list_shows_whole_ids_and_marks_the_served_one(
    headrace: Headrace, data: Path
) -> None:
    rows = listed(headrace, data)
    empty, full = ids(data)
    assert list(rows) == [empty, full]
    assert rows[empty][:3] == ["", "0", " none yet"]
    mark, step, *_ = rows[full]
    assert mark == "*"
    assert int(step) == int(full.partition("-")[0]) > 0
    assert "2024-01-01" in " ".join(rows[full])


def test_snapshots_verify_says_which_are_sound(headrace: Headrace, data: Path) -> None:
    empty, full = ids(data)
    tail = "Every file is what its manifest says.\n"
    ended = headrace("snapshots", "verify", "--data-dir", data)
    assert ended == Ended(0, f"Verified: {empty}, {full}. {tail}", "")
    ended = headrace("snapshots", "verify", full, "--data-dir", data)
    assert ended == Ended(0, f"Verified: {full}. {tail}", "")


def test_snapshots_roll_back_and_are_promoted_again(headrace: Headrace, data: Path) -> None:
    empty, full = ids(data)
    ended = headrace("snapshots", "rollback", "--data-dir", data)
    assert ended == Ended(0, f"Rolled back: {empty} is the served snapshot now.\n", "")
    assert listed(headrace, data)[empty][0] == "*"

    ended = headrace("snapshots", "rollback", "--data-dir", data)
    assert (ended.code, ended.out) == (1, "")
    assert re.fullmatch(rf"headrace: .*nothing is older than {empty}\n", ended.err)

    for name in (full, "latest"):
        ended = headrace("snapshots", "promote", name, "--data-dir", data)
        assert ended == Ended(0, f"{full} is the served snapshot now.\n", "")
    assert listed(headrace, data)[full][0] == "*"


def test_snapshot_that_is_not_there_is_said_with_those_that_are(
    headrace: Headrace, data: Path
) -> None:
    for command in ("promote", "verify"):
        ended = headrace("snapshots", command, "000000000001-abcdefabcdef", "--data-dir", data)
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert all(one in ended.err for one in ids(data))


def test_damaged_snapshot_is_named_and_not_promoted(headrace: Headrace, data: Path) -> None:
    empty, full = ids(data)
    file = data / "snapshots" / empty / "ranking.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for words in (["verify"], ["verify", empty], ["promote", empty], ["rollback"]):
        ended = headrace("snapshots", *words, "--data-dir", data)
        assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert str(file) in ended.err
    assert listed(headrace, data)[full][0] == "*"

    (data / "snapshots" / empty / "manifest.json").unlink()
    assert listed(headrace, data)[empty][1:] == ["damaged"]
    assert headrace("snapshots", "verify", "--data-dir", data).code == 1


def test_trainer_refuses_a_folder_of_other_learners(headrace: Headrace, data: Path) -> None:
    schema = ["--config", data / "stationary.schema.toml"]
    ended = headrace(
        "train", "--until-end", "--data-dir", data, *schema, *TRAINER, "--set", "seed=7"
    )
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.splitlines()[-1].startswith("headrace: seed: differs from what snapshot ")
