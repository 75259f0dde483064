"""`headrace datasets`: public data sets as event logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.dataset_options import (
    ColumnsOption,
    LimitOption,
    PathOption,
    PositiveAtOption,
    open_chosen,
)

app = typer.Typer(help="Turn public data sets into event logs.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the data sets that can be read, and the simulated worlds.

    Examples:
    - `headrace datasets list`
    """
    from replay.datasets import DATASETS
    from replay.scenarios import SCENARIOS

    for info in DATASETS.values():
        typer.echo(f"{info.name:16} {info.description}")
    for scenario in SCENARIOS.values():
        typer.echo(f"{scenario.id:16} simulated: {scenario.description}")


@app.command("prepare")
def prepare(
    name: Annotated[
        str, typer.Argument(help="Name, see `headrace datasets list`.", metavar="NAME")
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="File to write: .parquet, .jsonl or .jsonl.gz.", metavar="FILE"
        ),
    ],
    path: PathOption = None,
    limit: LimitOption = None,
    positive_at: PositiveAtOption = None,
    columns: ColumnsOption = None,
) -> None:
    """Write a data set as a recorded event log, and its schema beside it.

    The log can be read as file:///PATH; the schema file is TOML for --config.

    Examples:
    - `headrace datasets prepare movielens --path DIR --out movielens.parquet`
    """
    from app.publish_run import prepare_dataset

    dataset = open_chosen(
        name, path, limit=limit, positive_at=positive_at, columns=columns, named={}
    )
    prepare_dataset(dataset, out)
