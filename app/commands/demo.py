"""`headrace demo`: everything, for two minutes, on an empty folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.dataset_options import ColumnsOption, LimitOption, open_chosen
from domain.errors import ConfigError


def demo(
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Stream real impressions instead.", metavar="NAME"),
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option("--path", help="Folder or file of the dataset.", metavar="PATH"),
    ] = None,
    limit: LimitOption = None,
    seconds: Annotated[
        int, typer.Option("--seconds", help="How long simulated users come.", min=20, metavar="N")
    ] = 100,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the simulated world.", min=0, metavar="N")
    ] = 7,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", help="Keep log, snapshots and results there.", metavar="DIR"),
    ] = None,
    columns: ColumnsOption = None,
) -> None:
    """Stream a world with a change of taste through everything and print what happened.

    Starts an event log, a trainer, a gRPC server and simulated users as real processes, and ends
    them again; under three minutes on two cores.

    Examples:
    - `headrace demo`
    - `headrace demo --seconds 60 --keep demo-files`
    - `headrace demo --dataset kuairand-pure --path DIR`
    """
    from rich.console import Console

    console = Console()
    if dataset is None:
        if path is not None or limit is not None or columns is not None:
            raise ConfigError("--path, --limit and --columns: of use only together with --dataset")
        from app.demo.plan import DemoPlan
        from app.demo.run import run_demo

        run_demo(DemoPlan(seconds=seconds, seed=seed), keep, console)
        return
    from app.demo.recorded import DEFAULT_LIMIT, run_recorded_demo

    chosen = open_chosen(
        dataset, path, limit=limit or DEFAULT_LIMIT, positive_at=None, columns=columns, named={}
    )
    run_recorded_demo(chosen, keep, console)


def demo_users(
    start_ms: Annotated[int, typer.Option("--start-ms")],
    address: Annotated[str, typer.Option("--address")],
    report: Annotated[Path, typer.Option("--report")],
    seconds: Annotated[int, typer.Option("--seconds")],
    seed: Annotated[int, typer.Option("--seed")],
) -> None:
    """Be the simulated users of a running demo."""
    from app.demo.plan import DemoPlan
    from app.demo.users import run_users

    run_users(DemoPlan(seconds=seconds, seed=seed), start_ms, address, report)
