"""`headrace replay`: a recorded stream through the real train loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.dataset_options import (
    ColumnsOption,
    ContextColumnOption,
    ImpressionColumnOption,
    ItemColumnOption,
    KindColumnOption,
    LabelColumnOption,
    LimitOption,
    PathOption,
    PositiveAtOption,
    TimeColumnOption,
    TimeUnitOption,
    UserColumnOption,
    ValueColumnOption,
    open_chosen,
)
from app.options import ConfigOption, SetOption, settings_from
from domain.errors import ConfigError

_LIVE = "A live run, learned again (instead of --dataset)"


def replay(
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="Name, see `headrace datasets list`.", metavar="NAME"),
    ] = None,
    path: PathOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the report as JSON.", metavar="FILE")
    ] = None,
    limit: LimitOption = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of every generator (seed).", metavar="N")
    ] = None,
    positive_at: PositiveAtOption = None,
    user_column: UserColumnOption = None,
    item_column: ItemColumnOption = None,
    time_column: TimeColumnOption = None,
    time_unit: TimeUnitOption = None,
    kind_column: KindColumnOption = None,
    value_column: ValueColumnOption = None,
    label_column: LabelColumnOption = None,
    impression_column: ImpressionColumnOption = None,
    context_column: ContextColumnOption = None,
    columns: ColumnsOption = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            "--journal",
            help="Folder of a live run's step journal: learn it again, and compare the bits.",
            metavar="DIR",
            rich_help_panel=_LIVE,
        ),
    ] = None,
    snapshot: Annotated[
        str,
        typer.Option(
            "--snapshot",
            help="Snapshot to compare with: an id, current or latest.",
            metavar="ID",
            rich_help_panel=_LIVE,
        ),
    ] = "current",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            "-d",
            help="Folder of its snapshots and embedded log; the one above the journal.",
            metavar="DIR",
            rich_help_panel=_LIVE,
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            "--log",
            help="Its event log, when that is not the embedded one (data.log).",
            metavar="URL",
            rich_help_panel=_LIVE,
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Replay a recorded stream: every example is scored before it is learned.

    Prints the quality of the online model, with and without the error memory, beside a copy that
    stopped learning half-way and counting baselines.

    With --journal, learns again what a trainer learned live, in the same order, and compares the
    bits of everything learned with its snapshot; ends with status 1 when they differ.

    Examples:
    - `headrace replay --dataset kuairand-pure --path DIR --out out.json`
    - `headrace replay --dataset movielens --path DIR --positive-at 4`
    - `headrace replay --dataset abrupt --limit 5000`
    - `headrace replay --dataset events --path clicks.csv --columns columns.toml`
    - `headrace replay --journal headrace-data/journal`
    - `headrace replay --journal DATA/journal --log kafka://localhost:9092`
    """
    overrides = list(set_ or ())
    if (dataset is None) == (journal is None):
        raise ConfigError("--dataset: expected a dataset, or --journal with that of a live run")
    if journal is not None:
        from app.journal_run import run_journal_replay

        settings = settings_from(
            config, overrides, data_dir=data_dir or journal.absolute().parent, log=log
        )
        raise typer.Exit(run_journal_replay(settings, journal, snapshot))
    from rich.console import Console

    from app.replay_run import print_report, run_replay, write_report

    assert dataset is not None
    if seed is not None:
        overrides.append(f"seed={seed}")
    settings = settings_from(config, overrides)
    chosen = open_chosen(
        dataset,
        path,
        limit=limit,
        positive_at=positive_at,
        columns=columns,
        named={
            "user": user_column,
            "item": item_column,
            "time": time_column,
            "time_unit": time_unit,
            "kind": kind_column,
            "value": value_column,
            "label": label_column,
            "impression": impression_column,
            "context": context_column,
        },
    )
    outcome = run_replay(settings, chosen, Console(stderr=True))
    print_report(outcome.report, Console())
    if out is not None:
        write_report(outcome, out)
        typer.echo(f"Wrote {out}")
