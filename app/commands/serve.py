"""`headrace serve`: the gRPC server."""

from __future__ import annotations

from typing import Annotated

import typer

from app.options import (
    ConfigOption,
    DataDirOption,
    InsecureOption,
    LogOption,
    SetOption,
    insecure_override,
    quoted,
    settings_from,
)


def serve(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    log: LogOption = None,
    set_: SetOption = None,
    grpc: Annotated[
        str | None,
        typer.Option("--grpc", help="Address to listen on (server.address).", metavar="HOST:PORT"),
    ] = None,
    insecure: InsecureOption = False,
    workers: Annotated[
        int, typer.Option("--workers", help="Server processes that share the port.", min=1)
    ] = 1,
) -> None:
    """Answer Recommend, Retrieve, Rank and Publish over gRPC until Ctrl-C.

    Follows the event log for fresh histories and picks up every new snapshot. Any number of servers
    may run beside one trainer. An address that other machines reach needs TLS and a list of who may
    call (server.tls, server.access), or --insecure.

    Examples:
    - `headrace serve --data-dir headrace-data --grpc 127.0.0.1:50051`
    - `headrace serve --data-dir headrace-data --workers 4`
    """
    from app.server_process import run_server
    from app.workers import run_workers

    overrides = list(set_ or ())
    if grpc is not None:
        overrides.append(f"server.address={quoted(grpc)}")
    overrides += insecure_override(insecure)
    if log is not None:
        overrides.append(f"data.log={quoted(log)}")
    settings = settings_from(config, overrides, data_dir=data_dir)
    if workers == 1:
        run_server(settings)
    else:
        run_workers(settings, config, overrides, workers)
