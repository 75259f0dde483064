"""`headrace up`: trainer and server on one folder, until told to stop."""

from __future__ import annotations

from typing import Annotated

import typer

from app.options import (
    ConfigOption,
    DataDirOption,
    InsecureOption,
    OnGapOption,
    SetOption,
    insecure_override,
    on_gap_override,
    quoted,
    settings_from,
)


def up(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    set_: SetOption = None,
    grpc: Annotated[
        str | None,
        typer.Option("--grpc", help="Address to listen on (server.address).", metavar="HOST:PORT"),
    ] = None,
    on_gap: OnGapOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Run everything in the foreground on one folder, until Ctrl-C or SIGTERM.

    Starts a trainer and a server as processes of their own and ends them in order: the server
    first, then the trainer, which publishes a last snapshot.

    Examples:
    - `headrace up --data-dir headrace-data --grpc 127.0.0.1:50051`
    - `headrace up --config my.toml`
    """
    from app.up_process import run_up

    overrides = [*(set_ or ()), *on_gap_override(on_gap), *insecure_override(insecure)]
    if grpc is not None:
        overrides.append(f"server.address={quoted(grpc)}")
    run_up(settings_from(config, overrides, data_dir=data_dir), config, overrides)
