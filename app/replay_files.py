"""Where a replay's report goes: the terminal, JSON with records beside it, Markdown, a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from domain.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from app.replay_run import ReplayOutcome


class ReportFiles(NamedTuple):
    """Where a report is written to."""

    out: Path | None
    html: Path | None
    markdown: Path | None

    @property
    def work(self) -> Path | None:
        """Return the folder beside them for checkpoints; None when nothing is to be written.

        >>> ReportFiles(Path("runs/out.json"), None, None).work.as_posix()
        'runs/out.work'
        """
        first = next((path for path in self if path is not None), None)
        return None if first is None else first.with_name(f"{first.stem}.work")

    def write(self, outcome: ReplayOutcome) -> None:
        """Write all of them.

        Raises:
            ConfigError: a file cannot be written.
        """
        if self.out is not None:
            write_report(outcome, self.out)
        if self.html is not None:
            write_html(outcome.report, self.html)
        if self.markdown is not None:
            write_markdown(outcome.report, self.markdown)


def print_report(report: dict[str, Any], console: Console) -> None:
    """Print the second half as Markdown, which a terminal can show and an issue can hold."""
    from replay.report_markdown import markdown

    text = markdown(report, intervals=False)
    console.print(text, soft_wrap=True, highlight=False, markup=False, end="")


def write_markdown(report: dict[str, Any], path: Path) -> None:
    """Write the same with intervals.

    Raises:
        ConfigError: the file cannot be written.
    """
    from replay.report_markdown import markdown

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(markdown(report, intervals=True))
    except OSError as error:
        raise ConfigError(f"--markdown {path}: cannot be written: {error.strerror}") from error


def write_report(outcome: ReplayOutcome, path: Path) -> None:
    """Write the report as JSON, and the records beside it.

    Raises:
        ConfigError: a file cannot be written.
    """
    from replay.records import records_path

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(outcome.report, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written: {error.strerror}") from error
    outcome.records.save(records_path(path))


def write_html(report: dict[str, Any], path: Path) -> None:
    """Write the report as a page.

    Raises:
        ConfigError: the file cannot be written.
    """
    # Imported here because plotly takes a while, which only a page should cost.
    from replay.report_html import page

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(report))
    except OSError as error:
        raise ConfigError(f"--html {path}: cannot be written: {error.strerror}") from error
