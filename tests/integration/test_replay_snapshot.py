"""A replay that goes on from a trainer's snapshot scores as one that began at the beginning."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from app.replay_run import ReplayWishes, run_replay
from replay.intervals import BootstrapConfig
from replay.log_dataset import LogDataset
from replay.records import ReplayRecords, load_records
from snapshot.local_store import LocalSnapshotStore
from stream.sqlite_log import SqliteLog
from tests.command_line import Headrace, quiet_surroundings
from tests.loop_worlds import tiny_settings, tiny_world
from tests.trainer_worlds import Workshop

STREAM = (
    "batcher.max_examples=40",
    "batcher.linger_ms=60_000",
    "joiner.attribution_window_ms=360_000",
    "joiner.fast_delay_ms=20_000",
)
SETTINGS = tiny_settings()
AS_TRAINED = [word for setting in STREAM for word in ("--set", setting)]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quiet_surroundings(monkeypatch):
        yield


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Headrace:
    return Headrace(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: the first half of a log was learned, the second has come since."""
    folder = tmp_path_factory.mktemp("data")
    schema, events = tiny_world(120)
    workshop = Workshop(folder, schema, SETTINGS)
    half = len(events) // 2
    workshop.log.append(events[:half])
    workshop.run_to_end()
    workshop.log.append(events[half:])
    workshop.close()
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> ReplayRecords:
    """Everything replayed from the beginning."""
    schema, _ = tiny_world(120)
    log = LogDataset("whole", schema, lambda: SqliteLog(folder / "events.sqlite"))
    wishes = ReplayWishes(bootstrap=BootstrapConfig(num_draws=4))
    with pytest.MonkeyPatch.context() as monkeypatch, quiet_surroundings(monkeypatch):
        return run_replay(SETTINGS, log, Console(file=io.StringIO()), wishes).records


def scores_of(records: ReplayRecords, variant: str) -> dict[int, bytes]:
    columns, scores = records.examples.columns["key"], records.examples.scores[variant]
    return {key: row.tobytes() for key, row in zip(columns.tolist(), scores, strict=True)}


def ranks_of(records: ReplayRecords) -> dict[int, int]:
    taken = records.taken
    pairs = zip(taken.columns["key"].tolist(), taken.ranks["online"].tolist(), strict=True)
    return dict(pairs)


@pytest.mark.parametrize("by", ["id", "path"])
def test_rest_of_the_log_is_scored_as_if_nothing_had_come_between(
    by: str, folder: Path, whole: ReplayRecords, headrace: Headrace, tmp_path: Path
) -> None:
    latest = LocalSnapshotStore(folder / "snapshots").latest_id() or ""
    path = folder / "snapshots" / latest
    snapshot = ["current", "--data-dir", folder] if by == "id" else [path]
    out, html = tmp_path / "out.json", tmp_path / "out.html"
    words = ["--snapshot", *snapshot, *AS_TRAINED, "--out", out, "--html", html]
    ended = headrace("replay", *words)
    assert (ended.code, ended.err) == (0, "")
    assert f"# Replay of sqlite:///{folder}/events.sqlite, from snapshot {latest}" in ended.out
    assert f"from snapshot {latest}" in html.read_text()
    rest = load_records(tmp_path / "out.records.npz")
    assert 50 <= rest.num_demands <= 70
    assert list(rest.examples.scores) == ["frozen", "online", "online+memory"]
    for variant in ("online", "online+memory"):
        ours, expected = scores_of(rest, variant), scores_of(whole, variant)
        assert ours == {key: expected[key] for key in ours}
        assert len(ours) > 250
    frozen, online = scores_of(rest, "frozen"), scores_of(rest, "online")
    assert frozen.keys() == online.keys()
    assert frozen != online, "the snapshot as it was has learned no more"
    ranks, expected_ranks = ranks_of(rest), ranks_of(whole)
    assert ranks == {key: expected_ranks[key] for key in ranks}
    assert any(rank > 0 for rank in ranks.values())

    report: dict[str, Any] = json.loads(out.read_text())
    assert report["demands"] == rest.num_demands
    assert report["snapshot"] == latest
    assert report["words"][0].startswith("Baselines are left out")
    assert f"snapshot {latest} as it was" in report["words"][1]
    assert list(report["retrievers"]) == ["online"]
    assert np.isfinite(report["heads"]["click"]["all"]["variants"]["online"]["auc"]["value"])


def test_learners_that_the_snapshot_does_not_have_are_refused(
    folder: Path, headrace: Headrace
) -> None:
    live = ["replay", "--snapshot", "current", "--data-dir", folder]
    ended = headrace(*live, "--set", "ranking.hidden=[8]")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("headrace: ranking: differs from what snapshot 0000")
    ended = headrace(*live, "--seed", "9")
    assert ended.err.startswith("headrace: seed: differs from what snapshot 0000")


def test_snapshot_and_log_that_do_not_belong_together_are_refused(
    folder: Path, headrace: Headrace, tmp_path: Path
) -> None:
    SqliteLog(tmp_path / "other.sqlite").close()
    words = ["replay", "--snapshot", "current", "--data-dir", folder]
    ended = headrace(*words, "--log", f"sqlite://{tmp_path}/other.sqlite")
    assert (ended.code, ended.out) == (2, "")
    assert "expected events/0 to hold offset " in ended.err
    assert "records were deleted, or it is another log" in ended.err
    ended = headrace("replay", "--snapshot", "000000000001-0123456789ab", "--data-dir", folder)
    assert ended.code == 1
    assert "000000000001-0123456789ab" in ended.err


def test_snapshot_that_has_read_everything_has_nothing_to_replay(
    headrace: Headrace, tmp_path: Path
) -> None:
    schema, events = tiny_world(10)
    workshop = Workshop(tmp_path, schema, SETTINGS)
    workshop.log.append(events)
    workshop.run_to_end()
    workshop.close()
    ended = headrace("replay", "--snapshot", "latest", "--data-dir", tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.endswith("has read all of it\n")
