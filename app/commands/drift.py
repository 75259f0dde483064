"""`headrace drift`: what changed."""

from __future__ import annotations

from typing import Annotated

import typer

from app.options import ConfigOption, DataDirOption, settings_from

app = typer.Typer(help="Look at drift signals.", no_args_is_help=True)


@app.command("list")
def list_(
    since: Annotated[
        str | None,
        typer.Option(
            "--since", help="Only since a moment, or 6h before the newest.", metavar="TIME"
        ),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(
            "--stream", help="One stream, or all below it: loss/, field/.", metavar="NAME"
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="covariate, label, concept, model or stream.", metavar="KIND"),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Only what has not ended.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", help="The newest so many.", min=1, metavar="N")
    ] = 50,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """List drift signals, the newest first: what changed, since when and how much.

    Times are event time. It reads the records of a trainer, running or not.

    Examples:
    - `headrace drift list --data-dir headrace-data --live`
    - `headrace drift list --data-dir headrace-data --since 6h --stream loss/`
    - `headrace drift list --data-dir headrace-data --json`
    """
    from rich.console import Console

    from app.drift_care import SignalFilter, as_json, find_signals, print_signals

    wanted = SignalFilter(since=since, stream=stream, kind=kind, live=live, limit=limit)
    signals = find_signals(settings_from(config, None, data_dir=data_dir), wanted)
    if json:
        typer.echo(as_json(signals))
    else:
        print_signals(signals, Console())


@app.command("reactions")
def reactions(
    limit: Annotated[
        int, typer.Option("--limit", help="The newest so many.", min=1, metavar="N")
    ] = 50,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """List what the trainer did about drift by itself, the newest first, and why.

    It does nothing unless [reactions] in the settings says so.

    Examples:
    - `headrace drift reactions --data-dir headrace-data`
    - `headrace drift reactions --data-dir headrace-data --json`
    """
    from rich.console import Console

    from app.reaction_care import find_reactions, print_reactions, reactions_as_json

    done = find_reactions(settings_from(config, None, data_dir=data_dir), limit)
    if json:
        typer.echo(reactions_as_json(done))
    else:
        print_reactions(done, Console())
