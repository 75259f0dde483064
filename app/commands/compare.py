"""`headrace compare`: which of several replays is better, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domain.errors import ConfigError


def compare(
    reports: Annotated[
        list[Path],
        typer.Argument(
            help="Reports of `headrace replay --out`; each is compared with the first.",
            metavar="A.json B.json ...",
        ),
    ],
    variant: Annotated[
        str, typer.Option("--variant", help="What is compared.", metavar="NAME")
    ] = "online+memory",
    against: Annotated[
        str,
        typer.Option(
            "--against", help="Variant of the first report, when another.", metavar="NAME"
        ),
    ] = "",
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="auc, gauc, ne, recall@20, ...; repeatable.", metavar="NAME"),
    ] = None,
    head: Annotated[
        str, typer.Option("--head", help="Label head; the first one by default.", metavar="NAME")
    ] = "",
    margin: Annotated[
        list[str] | None,
        typer.Option(
            "--margin", help="Smallest change that matters; repeatable.", metavar="METRIC=VALUE"
        ),
    ] = None,
) -> None:
    """Compare replays of the same events, example by example.

    A change counts when its whole 95 % interval (bootstrap over users, paired) lies beyond the
    smallest change that matters, --margin. See docs/replay.md.

    Ends with 0 when nothing is worse, 1 when something is, 2 when the runs cannot be compared.

    Examples:
    - `headrace compare main.json change.json`
    - `headrace compare main.json change.json --metric auc --margin auc=0.0005`
    - `headrace compare main.json --variant online --against frozen`
    """
    from rich.console import Console

    from app.compare_run import TABLE_WIDTH, run_compare
    from replay.compare import DEFAULT_METRICS, CompareConfig

    config = CompareConfig(
        variant=variant,
        against=against,
        head=head,
        metrics=tuple(metric or DEFAULT_METRICS),
        margins=dict(_margin(text) for text in margin or ()),
    )
    raise typer.Exit(run_compare(reports, config, Console(highlight=False, width=TABLE_WIDTH)))


def _margin(text: str) -> tuple[str, float]:
    name, separator, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        separator = ""
    if not separator:
        raise ConfigError(f"--margin: expected METRIC=VALUE, e.g. auc=0.001, got {text!r}")
    return name, value
