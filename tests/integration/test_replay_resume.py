"""A replay that was interrupted, however and however often, ends with the report of one that was
not: to the last digit, the seconds aside."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from app.ranker_variants import ranker_wishes
from app.replay_checkpoints import ReplayCheckpoints
from app.replay_run import ReplayOutcome, ReplayWishes, run_replay
from app.settings import Settings
from domain.errors import ConfigError, SnapshotError
from domain.events import Event
from replay.intervals import BootstrapConfig
from replay.records import load_records
from replay.scenarios import Noise, TasteChange
from replay.simulator import SimulatedDataset
from snapshot.local_store import LocalSnapshotStore
from stream.sqlite_log import SqliteLog
from tests.command_line import ROOT, Headrace, quiet_surroundings
from tests.loop_worlds import SMALL_MODELS, tiny_scenario, tiny_settings, tiny_world, with_organic
from tests.process_helpers import wait_until
from tests.trainer_worlds import Crash, Workshop

SMALL = [word for setting in SMALL_MODELS for word in ("--set", setting)]
NOISE = Noise(duplicate_rate=0.1, late_rate=0.05, late_by_ms=600_000, disorder_ms=10_000)
EVERYTHING = (
    "evaluation.next_item=true",
    "drift.point_examples=8",
    "drift.sensitivity.settle=4",
    "drift.sensitivity.warm_up=6",
    "drift.sensitivity.page_hinkley_threshold=2.0",
    "drift.sensitivity.page_hinkley_slack=0.1",
    "drift.fields.max_requests_per_s=0.0",
    "reactions.faster_learning.enabled=true",
    "reactions.faster_learning.min_severity=small",
    'reactions.faster_learning.on=["score/"]',
)
VARIANTS = (("shallow", "backbone.blocks=0"), ("other-counters", "counters.prior_strength=3.0"))
"""One that shares the live ranker's captures, and one that has its own."""
FEW_DRAWS = BootstrapConfig(num_draws=4)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quiet_surroundings(monkeypatch):
        yield


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Headrace:
    return Headrace(capsys)


class Eventful(SimulatedDataset):
    """Noise, a change of taste, some organic feedback; and something may happen at an event."""

    def __init__(self, num_lists: int = 240, at: int = -1, happens: Callable[[], None] = int):
        scenario = tiny_scenario(num_lists, noise=NOISE)
        super().__init__(replace(scenario, changes=(TasteChange(at=0.5),)))
        self.at, self.happens, self.passes = at, happens, 0

    def events(self) -> Iterator[Event]:
        self.passes += 1  # the first pass only counts
        for index, event in enumerate(with_organic(super().events(), every=9)):
            if index == self.at and self.passes == 2:
                self.happens()
            yield event


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def crash() -> None:
    raise Crash


def lead(
    dataset: Eventful, checkpoints: ReplayCheckpoints | None, config: Settings
) -> tuple[ReplayOutcome, str]:
    said = io.StringIO()
    changes = [f"{name}=ranking.{change}" for name, change in VARIANTS]
    rankers = ranker_wishes(changes, lambda more: tiny_settings(*EVERYTHING, *more))
    wishes = ReplayWishes(
        bootstrap=FEW_DRAWS, keep_partial=True, checkpoints=checkpoints, rankers=rankers
    )
    return run_replay(config, dataset, Console(file=said), wishes), said.getvalue()


def comparable(outcome: ReplayOutcome, folder: Path) -> tuple[dict[str, Any], bytes]:
    """Everything that is written, the seconds aside."""
    assert outcome.report.pop("seconds") > 0.0
    examples = {name: cost["examples"] for name, cost in outcome.report.pop("costs").items()}
    assert list(examples) == ["online", *(name for name, _ in VARIANTS)]
    assert len(set(examples.values())) == 1
    path = folder / "records.npz"
    outcome.records.save(path)
    return json.loads(json.dumps(outcome.report, allow_nan=False)), path.read_bytes()


@pytest.fixture(scope="module")
def config() -> Settings:
    return tiny_settings(*EVERYTHING)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, config: Settings) -> Any:
    """The report of a replay that nobody interrupted."""
    with pytest.MonkeyPatch.context() as monkeypatch, quiet_surroundings(monkeypatch):
        outcome, _ = lead(Eventful(), None, config)
    report, records = comparable(outcome, tmp_path_factory.mktemp("whole"))
    # Otherwise there would be nothing in these that could get lost.
    assert report["drift_signals"]
    assert report["reactions"]
    assert report["next_item"]["index"]["lists"] > 0 < report["duplicates"]
    assert report["late"] > 0
    return report, records


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(1, 680), max_size=4, unique=True).map(sorted))
def test_interrupted_at_any_events_it_ends_with_the_same_report(
    cuts: Sequence[int],
    tmp_path_factory: pytest.TempPathFactory,
    config: Settings,
    whole: Any,
) -> None:
    tmp_path = tmp_path_factory.mktemp("drawn")
    for number, at in enumerate(cuts):
        checkpoints = ReplayCheckpoints(tmp_path / "work")
        if number:
            checkpoints.find()
        outcome, _ = lead(Eventful(at=at, happens=ctrl_c), checkpoints, config)
        assert outcome.counts.interrupted == ("partial" in outcome.report)
        assert outcome.counts.records == at or not outcome.counts.interrupted
    checkpoints = ReplayCheckpoints(tmp_path / "work")
    if cuts:
        checkpoints.find()
    outcome, said = lead(Eventful(), checkpoints, config)
    assert comparable(outcome, tmp_path) == whole
    assert (f"Goes on after {cuts[-1]:,} events." in said) if cuts else (said == "")
    checkpoints.remove()
    assert not (tmp_path / "work").exists()


def test_what_was_done_since_the_last_checkpoint_is_done_again(
    tmp_path: Path, config: Settings, whole: Any
) -> None:
    often = config.model_copy(
        update={"replay": replace(config.replay, checkpoint_every_s=0.05, report_every_s=0.0)}
    )
    for at in (300, 600):
        checkpoints = ReplayCheckpoints(tmp_path / "work")
        if at > 300:
            checkpoints.find()
        with pytest.raises(Crash):
            lead(Eventful(at=at, happens=crash), checkpoints, often)
        kept = LocalSnapshotStore(tmp_path / "work").list()
        assert 1 <= len(kept) <= 2
        assert 0 < kept[-1].step <= at
        del checkpoints
    checkpoints = ReplayCheckpoints(tmp_path / "work")
    checkpoints.find()
    outcome, _ = lead(Eventful(), checkpoints, config)
    assert comparable(outcome, tmp_path) == whole


def interrupted(tmp_path: Path, config: Settings, num_lists: int = 40) -> Path:
    """A work folder with a checkpoint after a hundred events."""
    folder = tmp_path / "work"
    lead(Eventful(num_lists, at=100, happens=ctrl_c), ReplayCheckpoints(folder), config)
    return folder


def test_report_from_before_the_half_says_what_had_not_begun(
    tmp_path: Path, config: Settings
) -> None:
    checkpoints = ReplayCheckpoints(tmp_path / "work")
    report = lead(Eventful(at=250, happens=ctrl_c), checkpoints, config)[0].report
    assert report["demands"] < 120
    (learning_on,) = [said for said in report["words"] if said.startswith("Learning on: ")]
    assert learning_on == (
        "Learning on: nothing to compare, a copy that stopped learning half-way was not there yet "
        "or never differed."
    )
    reason = "lists are counted from half of the whole replay on, which was not reached"
    assert [one["reason"] for one in report["recommended_lists"].values()] == [reason] * 4


@pytest.mark.parametrize(
    ("num_lists", "override", "reason"),
    [
        (40, "seed=9", "settings.seed was 42, is 9"),
        (40, "ranking.hidden=[8]", "settings.ranking.hidden was [16, 8], is [8]"),
        (41, "log.level=info", "lists was "),
    ],
)
def test_another_replay_than_the_one_that_was_interrupted_is_refused(
    num_lists: int, override: str, reason: str, tmp_path: Path
) -> None:
    folder = interrupted(tmp_path, tiny_settings())
    checkpoints = ReplayCheckpoints(folder)
    checkpoints.find()
    with pytest.raises(ConfigError, match="holds another replay") as refused:
        lead(Eventful(num_lists), checkpoints, tiny_settings(override))
    assert reason in str(refused.value)


def test_another_version_and_other_events_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupted(tmp_path, tiny_settings())
    monkeypatch.setattr("app.replay_run.VERSION", "99.0")
    dataset = Eventful(40)
    dataset.at, dataset.happens = -1, int
    checkpoints = ReplayCheckpoints(folder)
    checkpoints.find()
    with pytest.raises(ConfigError, match=r"version was .*, is 99\.0"):
        lead(dataset, checkpoints, tiny_settings())


def test_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, config: Settings, whole: Any
) -> None:
    folder = tmp_path / "work"
    lead(Eventful(at=300, happens=ctrl_c), ReplayCheckpoints(folder), config)
    checkpoints = ReplayCheckpoints(folder)
    checkpoints.find()
    lead(Eventful(at=600, happens=ctrl_c), checkpoints, config)
    newest = sorted(folder.glob("0*"))[-1]
    (newest / "measured.json").write_text("{")
    checkpoints = ReplayCheckpoints(folder)
    checkpoints.find()
    outcome, said = lead(Eventful(), checkpoints, config)
    assert "Checkpoint passed over: " in said
    assert "measured.json" in said
    assert "Goes on after 300 events." in said
    assert comparable(outcome, tmp_path) == whole
    (newest.parent / "CURRENT").unlink()
    for one in folder.glob("0*"):
        (one / "measured.json").write_text("{")
    with pytest.raises(SnapshotError, match="no checkpoint is whole; the newest: "):
        ReplayCheckpoints(folder).find()


def test_folder_that_holds_something_else_is_left_alone(headrace: Headrace, tmp_path: Path) -> None:
    flags = ["replay", "--dataset", "stationary", "--limit", "5", *SMALL]
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear")
    ended = headrace(*flags, "--work", tmp_path / "letters")
    assert (ended.code, ended.out) == (2, "")
    assert "expected an empty folder, or one with the checkpoints of a replay, found dear.txt" in (
        ended.err
    )
    schema, events = tiny_world(10)
    workshop = Workshop(tmp_path, schema, tiny_settings())
    workshop.log.append(events)
    workshop.run_to_end()
    workshop.close()
    for resume in ((), ("--resume",)):
        ended = headrace(*flags, "--work", tmp_path / "snapshots", *resume)
        assert (ended.code, ended.out) == (2, "")
    assert LocalSnapshotStore(tmp_path / "snapshots").verify() == []


def test_nothing_to_go_on_from_is_said(headrace: Headrace, tmp_path: Path) -> None:
    flags = ["replay", "--dataset", "stationary", "--limit", "5", *SMALL, "--resume"]
    ended = headrace(*flags)
    assert ended.code == 2
    assert "--resume: expected --out, --html, --markdown or --work beside it" in ended.err
    ended = headrace(*flags, "--out", tmp_path / "out.json")
    assert ended.code == 2
    assert (
        f"--resume: there is no checkpoint of a replay in {tmp_path}/out.work; leave it out to "
        "begin at the beginning" in ended.err
    )


def test_killed_replay_of_a_log_that_grew_goes_on_with_the_log_as_it_was(
    headrace: Headrace, tmp_path: Path
) -> None:
    """The whole of it on the command line, with kill -9."""
    published = ("publish", "--dataset", "stationary", "--data-dir", tmp_path)
    assert headrace(*published, "--limit", "160").code == 0
    schema = tmp_path / "stationary.schema.toml"
    log = ["--log", f"sqlite://{tmp_path}/events.sqlite", "--config", str(schema)]
    flags = ["replay", *log, *SMALL, "--set", "replay.checkpoint_every_s=0.2"]
    flags += ["--set", "replay.report_every_s=0.3"]
    expected = tmp_path / "expected.json"
    assert headrace(*flags, "--out", expected).code == 0
    assert not (tmp_path / "expected.work").exists()

    out = tmp_path / "out.json"
    words = [*flags, "--out", str(out)]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *words], cwd=ROOT, stdout=said, stderr=said
        )
        try:
            wait_until((tmp_path / "out.work" / "CURRENT").exists, 240.0, "a checkpoint")
            wait_until((tmp_path / "out.records.npz").exists, 240.0, "a partial report")
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in (tmp_path / "said").read_text()
    SqliteLog(tmp_path / "events.sqlite").append(tiny_world(20)[1])

    ended = headrace("compare", out, expected)
    assert ended.code == 2
    assert f"{out}: a partial report of sqlite://" in ended.err
    partial = json.loads(out.read_text())
    assert partial["partial"].startswith(f"not at its end yet, after {partial['demands']:,} of 160")

    ended = headrace(*words, "--resume")
    assert ended.code == 0
    assert ended.err.startswith("Goes on after ")
    found, wanted = (json.loads(path.read_text()) for path in (out, expected))
    for report in (found, wanted):
        del report["seconds"], report["costs"]
    assert found.pop("command").replace("out.json", "expected.json") == wanted.pop("command")
    assert found == wanted
    records = [(tmp_path / f"{name}.records.npz").read_bytes() for name in ("out", "expected")]
    assert records[0] == records[1]
    assert load_records(tmp_path / "out.records.npz").num_demands == 160
    assert not (tmp_path / "out.work").exists()
