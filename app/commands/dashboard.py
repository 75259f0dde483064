"""`headrace dashboard`: the web page for people on call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.options import ConfigOption, DataDirOption, SetOption, quoted, settings_from


def dashboard(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    set_: SetOption = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port of the page; 0 is any free one.", metavar="N", show_default=False),
    ] = None,
    reports: Annotated[
        Path | None,
        typer.Option(help="Folder of replay reports.", metavar="DIR", show_default=False),
    ] = None,
) -> None:
    """Show what runs, or what ran, as a web page on this machine.

    Reads the records in the data folder: it works beside `headrace up`, and over a run that has
    ended. Only this machine can open it.

    Examples:
    - `headrace dashboard --data-dir headrace-data`
    - `headrace dashboard --port 8051 --reports out`
    """
    from app.dashboard_process import run_dashboard

    overrides = list(set_ or ())
    if port is not None:
        overrides.append(f"dashboard.port={port}")
    if reports is not None:
        overrides.append(f"dashboard.reports={quoted(str(reports))}")
    run_dashboard(settings_from(config, overrides, data_dir=data_dir))
