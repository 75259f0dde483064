"""Flags that say which live run to learn again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

_PANEL = "A live run, learned again (instead of --dataset)"

JournalOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--journal",
        help="Folder of a live run's step journal: learn it again, and compare the bits.",
        metavar="DIR",
        rich_help_panel=_PANEL,
    ),
]
SnapshotOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--snapshot",
        help="Snapshot to go on from: an id, current, latest or its path; with --journal the one "
        "to compare with.",
        metavar="ID|PATH",
    ),
]
LiveDataDirOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        "-d",
        help="Folder of snapshots and embedded log; the one above the journal or --snapshot PATH.",
        metavar="DIR",
    ),
]
LiveLogOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--log",
        help="Event log to replay; with --journal its log, when not the embedded one.",
        metavar="URL",
    ),
]
