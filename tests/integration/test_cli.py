"""The command line as a user meets it: help, mistakes, and what commands print and write."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import app
from replay.datasets import DATASETS
from replay.scenarios import SCENARIOS
from tests.command_line import ROOT, Ended, Headrace, counted, quiet_surroundings, write_clicks

SHARED = {"--config", "--data-dir", "--log", "--set"}
DATASET = {"--dataset", "--path", "--limit", "--positive-at", "--columns"}
LETTERS = {"--since", "--until", "--reason", "--partition", "--limit"}
FLAGS = {
    "demo": {"--dataset", "--path", "--limit", "--columns", "--seconds", "--seed", "--keep"},
    "up": {"--config", "--data-dir", "--set", "--grpc", "--on-gap", "--insecure"},
    "train": {*SHARED, "--until-end", "--on-gap"},
    "serve": {*SHARED, "--grpc", "--insecure", "--workers"},
    "replay": {
        *DATASET, *SHARED, "--out", "--html", "--markdown", "--from", "--until", "--seed",
        "--journal", "--snapshot", "--variant", "--rivals", "--resume", "--work",
        "--user-column", "--item-column", "--time-column", "--time-unit", "--kind-column",
        "--value-column", "--label-column", "--impression-column", "--context-column",
    },
    "compare": {"--variant", "--against", "--metric", "--head", "--margin"},
    "publish": {"--columnar", *DATASET, *SHARED},
    "validate": SHARED,
    "freshness": {
        "--server", "--rounds", "--pause-s", "--timeout-s", "--kind", "--weights",
        "--ca", "--token-file",
    },
    "dashboard": {"--config", "--data-dir", "--set", "--port", "--reports"},
    "snapshots list": {"--config", "--data-dir"},
    "snapshots verify": {"--config", "--data-dir"},
    "snapshots promote": {"--config", "--data-dir"},
    "snapshots rollback": {"--config", "--data-dir"},
    "evaluate incremental": {
        "--dataset", "--path", "--slots", "--seeds", "--base-share", "--window",
        "--stop-counters", "--limit", "--out", "--tsv", "--html", "--markdown", "--config",
        "--set",
    },
    "evaluate sequential": {
        "--dataset", "--path", "--model", "--preset", "--epochs", "--seeds", "--rule",
        "--out", "--resume", "--device", "--attention", "--blocks", "--width", "--heads",
        "--d-qk", "--d-v", "--ffn-multiple", "--history-length", "--dropout",
        "--batch-size", "--negatives", "--temperature", "--learning-rate", "--weight-decay",
    },
    "drift list": {
        "--since", "--stream", "--kind", "--live", "--limit", "--json", "--config", "--data-dir",
    },
    "drift reactions": {"--limit", "--json", "--config", "--data-dir"},
    "datasets list": set(),
    "datasets prepare": {*DATASET, "--out"} - {"--dataset"},
    "topics create": {"--config", "--log", "--partitions", "--replication", "--set"},
    "topics check": {"--config", "--log", "--set"},
    "tokens new": {"--allow", "--file"},
    "dead-letters list": {*LETTERS, "--redriven", "--json", *SHARED},
    "dead-letters show": SHARED,
    "dead-letters redrive": {*LETTERS, "--again", "--force", "--dry-run", "--yes", *SHARED},
}  # fmt: skip
"""Every command and its flags. Flags are few: what is not needed daily is a setting."""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quiet_surroundings(monkeypatch):
        yield


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Headrace:
    return Headrace(capsys)


def commands(group: Any = None, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Every command a user may see, by what she types."""
    group = typer.main.get_command(app) if group is None else group
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            found |= commands(command, (*path, name))
        else:
            found[" ".join((*path, name))] = command
    return found


def examples(command: Any) -> list[str]:
    return re.findall(r"^- `(headrace .*)`$", command.help, re.MULTILINE)


# Help


def test_flags_are_few_and_these() -> None:
    found = {
        name: {option for one in command.params for option in one.opts if option[:2] == "--"}
        for name, command in commands().items()
    }
    assert found == FLAGS


@pytest.mark.parametrize("name", ["", *FLAGS])
def test_help_shows_examples_that_can_be_copied(name: str, headrace: Headrace) -> None:
    ended = headrace(*name.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    command = commands()[name] if name else typer.main.get_command(app)
    shown = [line.strip(" •") for line in ended.out.splitlines()]
    assert examples(command)
    assert set(examples(command)) <= set(shown), "an example that is broken cannot be copied"
    assert max(len(line) for line in ended.out.splitlines()) <= 80


@pytest.mark.parametrize("name", FLAGS)
def test_examples_of_help_name_flags_that_exist(name: str) -> None:
    for example in examples(commands()[name]):
        words = shlex.split(example.removeprefix("headrace "))
        assert words[: len(name.split())] == name.split()
        commands()[name].make_context(name, words[len(name.split()) :])


def test_help_alone_is_shown_when_a_command_is_missing(headrace: Headrace) -> None:
    for words in ([], ["snapshots"]):
        ended = headrace(*words)
        assert (ended.code, ended.err) == (2, "")
        assert "Usage: headrace" in ended.out


def test_command_line_starts_without_the_heavy_libraries() -> None:
    heavy = ("torch", "faiss", "pyarrow", "grpc", "numba", "pydantic", "kafka", "river", "numpy")
    check = f"import sys, app.cli; print([name for name in {heavy} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


# Mistakes


def places(folder: Path) -> dict[str, str]:
    """Files and folders that mistakes are made with."""
    csv = folder / "log.csv"
    csv.write_text("who,what,when,click\nann,i1,1000,1\nann,i2,2000,maybe\n")
    (folder / "bad.toml").write_text("[joiner\n")
    (folder / "empty").mkdir()
    return {"FOLDER": str(folder), "CSV": str(csv)}


COLUMNS = "--user-column who --item-column what --time-column when"
MISTAKES = [
    ("replay", "--dataset: expected a dataset, a --log, a --snapshot, or the --journal of a live "),
    ("replay --dataset abrupt --snapshot latest", "--snapshot: goes on in the log it was made fr"),
    ("replay --snapshot latest --from 9", "--from: expected no --snapshot beside it, which says"),
    (
        "replay --snapshot latest --data-dir FOLDER",
        "FOLDER/events.sqlite: there is no event log (--log names it)",
    ),
    ("replay --dataset abrupt --journal FOLDER", "--dataset: expected no --journal and no --log"),
    ("replay --journal FOLDER --resume", "--resume: expected no --journal beside it"),
    ("replay --dataset abrupt --resume", "--resume: expected --out, --html, --markdown or --work "),
    ("replay --dataset abrupt --from soon", "--from: expected a time such as 2022-05-01T12:00 "),
    ("replay --dataset abrupt --from 9 --until 8", "--until: expected later than --from 9, got 8"),
    ("replay --log sqlite:///./x.sqlite --limit 9", "--log: has no use for flags about files"),
    ("compare FOLDER/a.json FOLDER/b.json", "FOLDER/a.json: no such file"),
    ("compare CSV CSV", "CSV: not the report of a replay"),
    ("compare CSV", "compare: expected two reports, or one with --variant and another --against"),
    ("compare CSV CSV --metric acc", "compare.metric: no metric 'acc'; there are: auc, gauc"),
    ("compare CSV CSV --margin auc", "--margin: expected METRIC=VALUE, e.g. auc=0.001, got 'auc'"),
    ("replay --dataset nope", "no dataset 'nope'; there are: kuairand-pure, movielens, "),
    ("replay --dataset movielens", "--path: where is movielens? A folder or file is needed"),
    ("replay --dataset movielens --path FOLDER/nowhere", "FOLDER/nowhere: no such folder"),
    ("replay --dataset movielens --path FOLDER/empty", "FOLDER/empty"),
    ("replay --dataset kuairand-pure --path FOLDER/empty", "FOLDER/empty"),
    ("replay --dataset movietweetings --path CSV", "CSV: no such folder"),
    (f"replay --dataset events --path FOLDER/x.csv {COLUMNS}", "FOLDER/x.csv: no such file"),
    (f"replay --dataset events --path FOLDER/empty {COLUMNS}", "FOLDER/empty: no such file"),
    (
        f"replay --dataset events --path CSV {COLUMNS} --label-column like",
        "CSV: no column 'like'; it has: who, what, when, click",
    ),
    (f"replay --dataset events --path CSV {COLUMNS} --label-column click", "CSV:3: column 'click'"),
    (f"replay --dataset events --path CSV {COLUMNS} --time-unit h", "columns.time_unit must be"),
    (
        "replay --dataset abrupt --limit 0",
        "Invalid value for '--limit': ",
    ),
    ("replay --dataset abrupt --limit many", "Invalid value for '--limit': "),
    ("replay --dataset abrupt --limt 3", "No such option: --limt (Possible options: --limit)"),
    ("replay --dataset abrupt --seed -1", "seed must be at least 0, got -1"),
    ("replay --dataset abrupt --set joner.policy=fast", "joner.policy: unknown setting; did you"),
    ("replay --dataset abrupt --set joiner.policy", "--set joiner.policy: expected section.key="),
    (
        "replay --dataset abrupt --set joiner.policy=slow",
        "joiner.policy: expected 'wait' or 'fast'",
    ),
    (
        "replay --dataset abrupt --set batcher.max_examples=0",
        "batcher.max_examples must be positive",
    ),
    (
        "replay --dataset abrupt --config FOLDER/nope.toml",
        "FOLDER/nope.toml: cannot be read: No su",
    ),
    ("replay --dataset abrupt --config FOLDER/bad.toml", "FOLDER/bad.toml: not TOML: "),
    ("publish --dataset abrupt --log CSV", "data.log must be sqlite:///PATH, "),
    ("publish --dataset abrupt --log file://CSV", "data.log: a recorded log can only be read"),
    ("datasets prepare abrupt", "Missing option '--out'"),
    ("datasets prepare abrupt --out FOLDER/x.csv", "--out must end in .jsonl, .jsonl.gz, .parquet"),
    ("datasets prepare events --path CSV --out FOLDER/x.parquet", "dataset.columns must name the"),
    ("topics create --data-dir FOLDER", "No such option: --data-dir"),
    ("topics create", "data.log: expected kafka://host:port, got sqlite:///"),
    ("topics create --partitions 0", "Invalid value for '--partitions': "),
    ("topics check", "data.log: expected kafka://host:port, got sqlite:///"),
    (
        "topics check --log kafka://127.0.0.1:1 --set kafka.security.protocol=SSL "
        "--set kafka.security.ca_file=FOLDER/no.pem",
        "kafka.security.ca_file: FOLDER/no.pem: No such file or directory",
    ),
    ("train --on-gap maybe", "trainer.on_gap: expected 'fail' or 'skip', got 'maybe'"),
    ("train --set metrics.trainer_port=-1", "metrics.trainer_port must be a port, got -1"),
    ("serve --grpc 50051", "server.address must be host:port, got '50051'"),
    ("demo --path FOLDER", "--path, --limit and --columns: of use only together with --dataset"),
    ("snapshots promote", "Missing argument 'ID' (see headrace snapshots promote --help)"),
    ("dead-letters show", "Missing argument 'WHERE' (see headrace dead-letters show --help)"),
    ("dead-letters list --since soon", "--since: expected an age such as 30m, 2h or 7d, or a time"),
    ("dead-letters list --log file://CSV", "data.log: a recorded log has no dead letters, got"),
    ("snapshot list", "No such command 'snapshot'"),
]


# kafka-python reads its message schemas by an old function; only `topics create` loads it here.
@pytest.mark.filterwarnings("ignore:(open|read)_text is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("line", "message"), MISTAKES)
def test_mistake_is_answered_with_one_line_and_status_2(
    line: str, message: str, headrace: Headrace, tmp_path: Path
) -> None:
    for name, place in places(tmp_path).items():
        line, message = line.replace(name, place), message.replace(name, place)
    ended = headrace(*line.split())
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"headrace: {message}"), ended.err
    assert ended.err.count("\n") == 1


FAILURES = [
    ("validate --data-dir FOLDER", "FOLDER/events.sqlite: there is no event log yet"),
    ("validate --log file://FOLDER/x.parquet", "FOLDER/x.parquet: there is no such file"),
    ("snapshots list --data-dir FOLDER", "FOLDER/snapshots: there are no snapshots yet"),
    ("snapshots rollback --data-dir FOLDER", "FOLDER/snapshots: there are no snapshots yet"),
    ("dead-letters list --data-dir FOLDER", "FOLDER/events.sqlite: there is no event log yet"),
    ("publish --dataset abrupt --limit 3 --data-dir CSV", "CSV: File exists"),
]


@pytest.mark.parametrize(("line", "message"), FAILURES)
def test_failure_is_answered_with_one_line_and_status_1(
    line: str, message: str, headrace: Headrace, tmp_path: Path
) -> None:
    for name, place in places(tmp_path).items():
        line, message = line.replace(name, place), message.replace(name, place)
    ended = headrace(*line.split())
    assert ended == Ended(1, "", f"headrace: {message}\n")
    assert not (tmp_path / "events.sqlite").exists(), "looking must not create anything"


def test_mistake_in_a_process_of_its_own_leaves_no_traceback() -> None:
    command = [sys.executable, "-m", "app.cli", "datasets", "prepare", "nope", "--out", "x.jsonl"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"headrace: no dataset 'nope'; there are: .*\n", ended.stderr)


# Datasets


def test_datasets_list_names_every_dataset_and_world(headrace: Headrace) -> None:
    ended = headrace("datasets", "list")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert [line.split()[0] for line in lines] == [*DATASETS, *SCENARIOS]
    assert all(len(line.split()) > 3 for line in lines), "each says what it is"


@pytest.mark.parametrize("name", ["log.parquet", "a b=c.v1.jsonl.gz"])
def test_prepared_dataset_is_a_log_that_validates(
    name: str, headrace: Headrace, tmp_path: Path
) -> None:
    out = tmp_path / "new folder" / name
    prepared = headrace("datasets", "prepare", "stationary", "--limit", 15, "--out", out)
    schema = Path(re.sub(r"\.(parquet|jsonl\.gz)$", ".schema.toml", str(out)))
    num_events = int(prepared.out.split()[1].replace(",", ""))
    assert prepared == Ended(
        0, f"Wrote {num_events:,} events to {out} and their schema to {schema}\n", ""
    )
    ended = headrace("validate", "--log", f"file://{out}", "--config", schema)
    found = counted(ended.out)
    assert (ended.code, ended.err) == (0, "")
    assert found["impressions"] == 15
    kinds = ("impressions", "feedback", "item updates", "user updates")
    assert sum(found[kind] for kind in kinds) == num_events
    assert sum(found.values()) == num_events, "nothing late, repeated or wrong"


def test_own_file_is_prepared_with_a_columns_file(headrace: Headrace, tmp_path: Path) -> None:
    write_clicks(tmp_path / "clicks.csv", num_rows=40)
    columns = tmp_path / "columns.toml"
    columns.write_text('user = "who"\nitem = "what"\ntime = "when"\nlabel = ["click"]\n')
    out = tmp_path / "log.jsonl"
    words = ["--path", tmp_path / "clicks.csv", "--columns", columns, "--out", out]
    assert headrace("datasets", "prepare", "events", *words).code == 0
    found = counted(headrace("validate", "--log", f"file://{out}").out)
    assert (found["impressions"], found["feedback"]) == (40, 40)


def test_validate_says_once_what_is_wrong_with_many_records(
    headrace: Headrace, tmp_path: Path
) -> None:
    out = tmp_path / "log.parquet"
    headrace("datasets", "prepare", "stationary", "--limit", 5, "--out", out)
    ended = headrace("validate", "--log", f"file://{out}")
    assert ended.code == 1
    problems = ended.out.splitlines()[-2:]
    assert problems[0].startswith("file/0@0: item_update.features.category: no such item field;")
    assert all(line.endswith("more)") for line in problems)
    more = re.findall(r"and ([\d,]+) more", "".join(problems))
    wrong = sum(1 + int(number.replace(",", "")) for number in more)
    assert counted(ended.out)["against the schema"] == wrong
