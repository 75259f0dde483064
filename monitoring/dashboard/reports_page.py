"""Replay reports: the files of a folder, to be opened."""

from __future__ import annotations

from pathlib import Path

from dash import html

from monitoring.dashboard.page import Page, View
from monitoring.dashboard.parts import Component, empty, panel, table
from monitoring.dashboard.records import Look
from monitoring.dashboard.words import moment, size

FILES = "/report-files/"
KINDS = {".html": "report", ".json": "numbers"}
_MAX_FILES = 200


def report_files(folder: Path) -> list[Path]:
    """Return the reports of a folder, newest first; none when there is no folder."""
    if not folder.is_dir():
        return []
    files = [one for one in folder.iterdir() if one.suffix in KINDS and one.is_file()]
    return sorted(files, key=lambda one: (-one.stat().st_mtime_ns, one.name))[:_MAX_FILES]


def build(look: Look, view: View) -> Component:
    """Return the page."""
    folder = look.records.places.reports
    files = report_files(folder)
    if not files:
        return panel(
            "Replay reports",
            empty(
                f"There are no reports in {folder}. A replay writes one there:",
                html.Pre(f"headrace replay --dataset abrupt --html {folder}/abrupt.html"),
            ),
        )
    rows = [
        [
            html.A(one.name, href=f"{FILES}{one.name}", target="_blank", rel="noopener"),
            KINDS[one.suffix],
            moment(one.stat().st_mtime_ns // 1_000_000),
            size(one.stat().st_size),
        ]
        for one in files
    ]
    return panel(
        "Replay reports",
        table("Replay reports, newest first", ["File", "Kind", "Written (UTC)", "Size"], rows, 1),
        note=f"Files of {folder}. Each opens in a tab of its own.",
        wide=True,
    )


PAGE = Page("/reports", "Replay reports", build, has_span=False)
