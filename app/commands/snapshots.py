"""`headrace snapshots`: look after snapshots."""

from __future__ import annotations

from typing import Annotated

import typer

from app.options import ConfigOption, DataDirOption, settings_from

app = typer.Typer(help="List, verify, promote and roll back snapshots.", no_args_is_help=True)

IdArgument = Annotated[
    str, typer.Argument(help="As `headrace snapshots list` prints it.", metavar="ID")
]


@app.command("list")
def list_(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """List all snapshots, oldest first; the served one is marked.

    Examples:
    - `headrace snapshots list --data-dir headrace-data`
    """
    from app.snapshot_care import print_list

    print_list(settings_from(config, None, data_dir=data_dir))


@app.command("verify")
def verify(
    snapshot_id: Annotated[
        str | None, typer.Argument(help="One snapshot; all of them when left out.", metavar="ID")
    ] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Check every file of a snapshot against its checksum.

    Examples:
    - `headrace snapshots verify --data-dir headrace-data`
    """
    from app.snapshot_care import verify as verify_snapshots

    verify_snapshots(settings_from(config, None, data_dir=data_dir), snapshot_id)


@app.command("promote")
def promote(
    snapshot_id: IdArgument, config: ConfigOption = None, data_dir: DataDirOption = None
) -> None:
    """Make a snapshot the one that servers answer from, until the trainer publishes the next.

    Examples:
    - `headrace snapshots promote 000000000120-1f2e3d4c --data-dir headrace-data`
    """
    from app.snapshot_care import promote as promote_snapshot

    promote_snapshot(settings_from(config, None, data_dir=data_dir), snapshot_id)


@app.command("rollback")
def rollback(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Make the snapshot before the served one the served one.

    Examples:
    - `headrace snapshots rollback --data-dir headrace-data`
    """
    from app.snapshot_care import rollback as roll_back

    roll_back(settings_from(config, None, data_dir=data_dir))
