"""Flags that say which part of a stream is replayed, beside what, and where its report goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

OutOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="Write the report as JSON, and records to compare.", metavar="FILE"
    ),
]
HtmlOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--html", help="Write the report as a page to look at.", metavar="FILE"),
]
MarkdownOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--markdown", help="Write the tables as Markdown.", metavar="FILE"),
]
FromOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--from", help="Begin at this event time: ISO (UTC) or ms.", metavar="TIME"),
]
WorkOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--work",
        help="Folder for checkpoints of this replay; default: beside the report.",
        metavar="DIR",
    ),
]
ResumeOption: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Go on where the same replay was interrupted.")
]
UntilOption: TypeAlias = Annotated[
    str | None, typer.Option("--until", help="End before this event time.", metavar="TIME")
]
VariantOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--variant",
        help="One more ranker, e.g. --variant small=ranking.hidden=[32]; repeatable.",
        metavar="NAME=KEY=VALUE,...",
    ),
]
RivalsOption: TypeAlias = Annotated[
    bool,
    typer.Option("--rivals", help="Boosted trees and a plain network on the same inputs, too."),
]
