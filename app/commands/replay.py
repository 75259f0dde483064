"""`headrace replay`: a recorded stream through the real train loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

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
from app.journal_options import (
    JournalOption,
    LiveDataDirOption,
    LiveLogOption,
    SnapshotOption,
)
from app.options import ConfigOption, SetOption, settings_from
from domain.errors import ConfigError

if TYPE_CHECKING:
    from app.settings import Settings

_DatasetOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--dataset", help="Name, see `headrace datasets list`.", metavar="NAME"),
]
_SeedOption: TypeAlias = Annotated[
    int | None, typer.Option("--seed", help="Seed of every generator (seed).", metavar="N")
]


def replay(
    dataset: _DatasetOption = None,
    path: PathOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the report as JSON.", metavar="FILE")
    ] = None,
    limit: LimitOption = None,
    seed: _SeedOption = None,
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
    journal: JournalOption = None,
    snapshot: SnapshotOption = "current",
    data_dir: LiveDataDirOption = None,
    log: LiveLogOption = None,
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
        data_dir = data_dir or journal.absolute().parent
        settings = settings_from(config, overrides, data_dir=data_dir, log=log)
        raise typer.Exit(_learn_again(settings, journal, snapshot))
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


def _learn_again(settings: Settings, journal: Path, snapshot: str) -> int:
    from app.journal_run import run_journal_replay

    return run_journal_replay(settings, journal, snapshot)
