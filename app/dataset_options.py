"""Flags that say which dataset to read and what its columns mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from app.setting_layers import read_toml
from domain.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from replay.dataset import Dataset

_COLUMNS = "Columns of your own file (--dataset events)"


def _column(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text, metavar="COLUMN", rich_help_panel=_COLUMNS)


DatasetOption: TypeAlias = Annotated[
    str, typer.Option("--dataset", help="Name, see `headrace datasets list`.", metavar="NAME")
]
PathOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--path", help="Folder or file of the dataset; simulated ones need none.", metavar="PATH"
    ),
]
LimitOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--limit", help="Only the first N impressions (or ratings).", min=1, metavar="N"),
]
PositiveAtOption: TypeAlias = Annotated[
    float | None,
    typer.Option("--positive-at", help="Smallest rating that counts as liked.", metavar="X"),
]
UserColumnOption: TypeAlias = Annotated[str | None, _column("--user-column", "Who.")]
ItemColumnOption: TypeAlias = Annotated[str | None, _column("--item-column", "What.")]
TimeColumnOption: TypeAlias = Annotated[str | None, _column("--time-column", "When.")]
TimeUnitOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--time-unit", help="s, ms, us, ns or iso.", metavar="UNIT", rich_help_panel=_COLUMNS
    ),
]
KindColumnOption: TypeAlias = Annotated[
    str | None, _column("--kind-column", "What was done; `impression` means shown.")
]
ValueColumnOption: TypeAlias = Annotated[
    str | None, _column("--value-column", "How much, e.g. a rating.")
]
LabelColumnOption: TypeAlias = Annotated[
    list[str] | None,
    _column("--label-column", "0/1 outcome of a shown item; repeatable, each is a label head."),
]
ImpressionColumnOption: TypeAlias = Annotated[
    str | None, _column("--impression-column", "Which shown list a row belongs to.")
]
ContextColumnOption: TypeAlias = Annotated[
    list[str] | None, _column("--context-column", "Describes the moment; repeatable.")
]
ColumnsOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--columns",
        help="TOML file that names them: user, item, time, time_unit, ...; see docs/events.md.",
        metavar="FILE",
        rich_help_panel=_COLUMNS,
    ),
]


def open_chosen(
    name: str,
    path: Path | None,
    *,
    limit: int | None,
    positive_at: float | None,
    columns: Path | None,
    named: Mapping[str, Any],
) -> Dataset:
    """Open the dataset that the flags describe; flags win over the `--columns` file.

    Raises:
        DatasetError: there is no such dataset, or it cannot be read.
        ConfigError: a flag is missing, or of no use here.
    """
    from replay.datasets import DATASETS, DatasetOptions, columns_from_mapping, open_dataset
    from replay.scenarios import SCENARIOS
    from replay.simulator import SimulatedDataset

    if name not in DATASETS and name not in SCENARIOS:
        names = [*DATASETS, *SCENARIOS]
        close = get_close_matches(name, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}"
        raise DatasetError(f"no dataset {name!r}; {hint}")
    given = {key: value for key, value in named.items() if value}
    if name != "events" and (given or columns is not None):
        raise ConfigError(f"flags that name columns are for --dataset events, got {name}")
    if name in SCENARIOS:
        if path is not None or positive_at is not None:
            raise ConfigError(
                f"--path and --positive-at: {name} is simulated and has no use for it"
            )
        scenario = SCENARIOS[name]
        return SimulatedDataset(scenario if limit is None else scenario.resized(limit))
    if path is None:
        raise ConfigError(f"--path: where is {name}? A folder or file is needed")
    raw = {} if columns is None else read_toml(columns, f"--columns {columns}")
    raw |= given
    try:
        options = DatasetOptions(
            limit=limit,
            positive_at=positive_at,
            columns=columns_from_mapping(raw) if raw else None,
        )
        return open_dataset(name, path, options)
    except ConfigError as error:
        raise ConfigError(f"{error}{_flag_for(str(error), named)}") from error


def _flag_for(message: str, named: Collection[str]) -> str:
    """Return which flag sets the key that a message begins with, as the message's end."""
    key = message.split()[0].rstrip(":")
    section, _, name = key.partition(".")
    flag = name.replace("_", "-")
    if key == "dataset.columns":
        return " (--columns FILE)"
    if section == "columns" and name in named:
        return f" (--{flag})" if name == "time_unit" else f" (--{flag}-column)"
    return f" (--{flag})" if key in ("dataset.limit", "dataset.positive_at") else ""
