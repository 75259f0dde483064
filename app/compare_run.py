"""`headrace compare` at work: reports and records in; a table, a verdict and an exit code out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from domain.errors import ConfigError, DatasetError
from replay.compare import TITLES, CompareConfig, Difference, compare, verdict_line
from replay.records import ReplayRecords, load_records, records_path

TABLE_WIDTH = 140
"""Wider than a narrow terminal if need be: a Markdown row that is broken is none."""

SAME_OR_BETTER, WORSE, CANNOT_COMPARE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Run:
    """A replay as it was written down."""

    name: str
    report: dict[str, Any]
    records: ReplayRecords


def load_run(path: Path) -> Run:
    """Read a report and the records beside it.

    Raises:
        DatasetError: one of them is missing, or something else.
    """
    try:
        report = json.loads(path.read_text())
        dataset = report["dataset"]
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise DatasetError(f"{path}: not the report of a replay") from None
    if report.get("partial"):
        raise DatasetError(f"{path}: a partial report of {dataset}: replay it to its end")
    return Run(path.name, report, load_records(records_path(path)))


def run_compare(paths: Sequence[Path], config: CompareConfig, console: Console) -> int:
    """Compare later runs with the first, print what was found, and return the exit code.

    Raises:
        DatasetError: a run cannot be read, or the runs measured different events.
        ConfigError: one run only, and no other variant of it to compare with.
    """
    if len(paths) == 1:
        if config.against in ("", config.variant):
            raise ConfigError(
                "compare: expected two reports, or one with --variant and another --against"
            )
        paths = [paths[0], paths[0]]
    runs = [load_run(path) for path in paths]
    datasets = [run.report["dataset"] for run in runs]
    for one, other in pairwise(datasets):
        if one != other:
            raise DatasetError(f"the runs replayed different datasets: {one} and {other}")
    first, codes = runs[0], []
    for at, later in enumerate(runs[1:], start=1):
        differences = compare(first.records, later.records, config)
        names = _names(first, later, at, config)
        _print_table(names, differences, console)
        console.print(verdict_line(names[1], names[0], differences), soft_wrap=True)
        codes.append(_code(differences))
    # Worse anywhere is worse; runs of which nothing can be said cannot be passed either.
    return WORSE if WORSE in codes else max(codes)


def _code(differences: Sequence[Difference]) -> int:
    verdicts = {one.verdict for one in differences}
    if "worse" in verdicts:
        return WORSE
    return CANNOT_COMPARE if verdicts == {"n/a"} else SAME_OR_BETTER


def _names(first: Run, later: Run, at: int, config: CompareConfig) -> tuple[str, str]:
    """Return what to call the two sides; runs of equal names are told apart by their place."""
    if config.against not in ("", config.variant):
        if first.report is later.report or first.name == later.name:
            return config.against, config.variant
        return f"{first.name} ({config.against})", f"{later.name} ({config.variant})"
    if first.name == later.name:
        return f"{first.name} (1)", f"{later.name} ({at + 1})"
    return first.name, later.name


def _print_table(
    names: tuple[str, str], differences: Sequence[Difference], console: Console
) -> None:
    table = Table(box=box.MARKDOWN)
    table.add_column("metric", no_wrap=True)
    for name in (*names, "change [95 % interval]", "matters from", "verdict"):
        table.add_column(name, justify="left" if name == "verdict" else "right", no_wrap=True)
    for one in differences:
        table.add_row(
            TITLES[one.metric],
            _number(one.before),
            _number(one.after),
            _change(one),
            f"{one.margin:g}",
            one.verdict,
        )
    console.print(table)
    for one in differences:
        if one.reason:
            console.print(f"{TITLES[one.metric]}: {one.reason}", soft_wrap=True)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def _change(one: Difference) -> str:
    if one.change is None:
        return "n/a"
    if one.low is None or one.high is None:
        return f"{one.change:+.4f}"
    return f"{one.change:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
