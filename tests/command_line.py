"""Commands run in the test's own process, as `app.cli.main` runs them, and small files for them."""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from app.cli import app
from app.errors import run_to_exit_code

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def run(*arguments: object) -> int:
    """Run a command in this process, where the models are loaded already; return its exit code."""
    words = [str(argument) for argument in arguments]
    return run_to_exit_code(lambda: app(words, prog_name="headrace", standalone_mode=False))


class Headrace:
    """Runs commands in this process and keeps what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Ended:
        self._capsys.readouterr()
        code = run(*arguments)
        out, err = self._capsys.readouterr()
        return Ended(code, out, err)


@contextmanager
def quiet_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings from the machine, a narrow terminal, and afterwards the log handlers of before.

    Commands set logging up for their process, which here is the test's.
    """
    for name in [name for name in os.environ if name.startswith("HEADRACE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(False)


def counted(table: str) -> dict[str, int]:
    """Return the rows of a printed table with two columns."""
    rows = re.findall(r"│ (\w.*?) +│ +([\d,]+) │", table)
    return {name: int(count.replace(",", "")) for name, count in rows}


def write_clicks(path: Path, num_rows: int) -> None:
    """Write a file of shown items: users with even numbers click items with even numbers, mostly.

    Columns who, what, when (ms), click, like, place.
    """
    random = Random(7)
    time_ms = 1_700_000_000_000
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["who", "what", "when", "click", "like", "place"])
        for _ in range(num_rows):
            time_ms += random.randrange(1_000, 60_000)
            user, item = random.randrange(10), random.randrange(20)
            click = random.random() < (0.7 if (user + item) % 2 == 0 else 0.1)
            like = click and random.random() < 0.5
            place = random.choice(["home", "search"])
            rows.writerow([f"u{user}", f"i{item}", time_ms, int(click), int(like), place])
