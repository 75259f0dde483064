"""`headrace evaluate sequential` from a published folder to table, TSV and plot; and resumed."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from app import evaluate_sequential
from evaluation.sequential import Watch
from tests.command_line import Ended, Headrace, quiet_surroundings

NUM_USERS, NUM_FILMS = 12, 15
SMALL = [
    *("--blocks", 1, "--width", 8, "--d-qk", 8, "--d-v", 8, "--history-length", 6),
    *("--batch-size", 5, "--negatives", 6, "--epochs", 3, "--seeds", "1,2"),
]
REPORTS = ("report.json", "report.md", "epochs.tsv")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quiet_surroundings(monkeypatch):
        yield


def ratings() -> list[tuple[int, int, float, int]]:
    random = Random(2)
    rows = []
    for user in range(1, NUM_USERS + 1):
        films = random.sample(range(10, 10 + NUM_FILMS), random.randrange(5, 12))
        rows += [(user, film, 4.0, 1_000_000_000 + 50 * at) for at, film in enumerate(films)]
    random.shuffle(rows)
    return rows


def write(folder: Path, form: str) -> Path:
    folder.mkdir()
    films = [(film, f"Film {film} (1990)") for film in range(10, 10 + NUM_FILMS + 2)]
    if form == "csv":
        lines = [f"{user},{film},{rating},{time}" for user, film, rating, time in ratings()]
        (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *lines]))
        lines = [f"{film},{title},Drama" for film, title in films]
        (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *lines]))
    else:
        lines = [f"{user}::{film}::{rating:g}::{time}" for user, film, rating, time in ratings()]
        (folder / "ratings.dat").write_text("\n".join(lines))
        (folder / "movies.dat").write_text(
            "\n".join(f"{film}::{title}::War" for film, title in films)
        )
    return folder


class Evaluated:
    """The command on one folder, with small models."""

    def __init__(self, headrace: Headrace, path: Path) -> None:
        self._headrace = headrace
        self._path = path

    def __call__(self, *flags: object) -> Ended:
        dataset = ("--dataset", "movielens", "--path", self._path, "--device", "cpu")
        return self._headrace("evaluate", "sequential", *dataset, *SMALL, *flags)


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Evaluated:
    return Evaluated(Headrace(capsys), write(tmp_path / "small", "csv"))


def texts(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in REPORTS}


@pytest.mark.parametrize("form", ["csv", "dat"])
@pytest.mark.parametrize("model", ["fuxi-alpha", "fuxi-beta", "hstu", "sasrec"])
def test_each_model_and_file_form_gives_a_table_and_reports(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, form: str, model: str
) -> None:
    evaluate = Evaluated(Headrace(capsys), write(tmp_path / form, form))
    out = tmp_path / "run"
    ended = evaluate("--model", model, "--out", out)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"# {model}: 1 blocks, width 8, 1 heads\n\nLeave-one-out, 12 users")
    assert f"full ranking over {NUM_FILMS + 2} items" in ended.out
    assert ended.out.count("mean ± sd") == 2
    report = json.loads((out / "report.json").read_text())
    assert [(one["rule"], one["seed"]) for one in report["chosen"]] == [
        ("upstream", 1), ("upstream", 2), ("validation", 1), ("validation", 2),
    ]  # fmt: skip
    # Whoever ranks 17 films less those seen finds every target among the first 50.
    assert {one["metrics"]["hr@50"] for one in report["chosen"]} == {1.0}
    rows = list(csv.DictReader((out / "epochs.tsv").read_text().splitlines(), delimiter="\t"))
    assert len(rows) == 4 * 3
    assert "Plotly.newPlot" in (out / "curves.html").read_text()
    assert (out / "report.md").read_text() in ended.out


def test_both_file_forms_hold_the_same_numbers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = [
        Evaluated(Headrace(capsys), write(tmp_path / form, form))("--seeds", "1").out
        for form in ("csv", "dat")
    ]
    assert found[0] == found[1]


def test_a_run_interrupted_twice_and_resumed_ends_with_the_numbers_of_one_that_was_not(
    evaluate: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    assert evaluate("--out", whole).code == 0
    broken, epochs_until_stop = tmp_path / "broken", 5
    original = evaluate_sequential._Bars.watch

    def interrupted(bars, run, steps, epochs, stop):  # type: ignore[no-untyped-def]
        watch = original(bars, run, steps, epochs, stop)

        def after_epoch(result):  # type: ignore[no-untyped-def]
            nonlocal epochs_until_stop
            watch.after_epoch(result)
            epochs_until_stop -= 1
            if not epochs_until_stop:
                stop.set()

        return Watch(watch.after_step, after_epoch, watch.is_stopped)

    with monkeypatch.context() as patched:
        patched.setattr(evaluate_sequential._Bars, "watch", interrupted)
        ended = evaluate("--out", broken)
        assert ended.code == 130
        assert re.search(r"upstream +\| 1 +\| \d/3 .*\n.*upstream +\| 2 +\| \d/2 ", ended.out)
        assert "- validation" not in ended.out
        epochs_until_stop = 3
        assert evaluate("--out", broken, "--resume").code == 130
    assert texts(broken) != texts(whole)
    assert evaluate("--out", broken, "--resume").code == 0
    assert texts(broken) == texts(whole)


def test_more_epochs_may_be_asked_for_later(evaluate: Evaluated, tmp_path: Path) -> None:
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    flags = ("--rule", "validation", "--seeds", "4")
    assert evaluate(*flags, "--epochs", 4, "--out", whole).code == 0
    assert evaluate(*flags, "--epochs", 2, "--out", longer).code == 0
    assert evaluate(*flags, "--epochs", 4, "--out", longer, "--resume").code == 0
    assert texts(longer) == texts(whole)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "kuairand-pure"], "--dataset: expected movielens, got 'kuairand-pure'"),
        (["--model", "bert"], "--model: expected one of fuxi-alpha"),
        (["--rule", "test"], "--rule: expected both, upstream or validation"),
        (["--seeds", "1,1"], "--seeds: expected different whole numbers"),
        (["--seeds", "a"], "--seeds: expected different whole numbers"),
        (["--resume"], "--resume: expected the folder of the run as --out"),
        (["--device", "tpu"], "--device: expected auto, cpu or cuda"),
        (["--epochs", 0], "--epochs must be at least 1, got 0"),
        (["--path", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    evaluate: Evaluated, flags: list[object], message: str
) -> None:
    ended = evaluate(*flags)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
