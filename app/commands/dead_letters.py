"""`headrace dead-letters`: look at the records that were set aside, and send them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from app.options import ConfigOption, DataDirOption, LogOption, SetOption, settings_from

if TYPE_CHECKING:
    from app.dead_letter_filter import LetterFilter

app = typer.Typer(
    help="Look at records that were set aside, and send them again.", no_args_is_help=True
)

SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--since", help="Set aside since: an age (2h, 7d) or a UTC time.", metavar="TIME"),
]
UntilOption: TypeAlias = Annotated[
    str | None, typer.Option("--until", help="Set aside before that, likewise.", metavar="TIME")
]
ReasonOption: TypeAlias = Annotated[
    str | None, typer.Option("--reason", help="The reason holds this text.", metavar="TEXT")
]
PartitionOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--partition", help="From this partition, e.g. events/0.", metavar="NAME"),
]
LimitOption: TypeAlias = Annotated[
    int | None, typer.Option("--limit", help="So many, oldest first.", min=1, metavar="N")
]
RedrivenOption: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--redriven/--not-redriven", help="Sent again already, or not; both when left out."
    ),
]


@app.command("list")
def list_(
    since: SinceOption = None,
    until: UntilOption = None,
    reason: ReasonOption = None,
    partition: PartitionOption = None,
    limit: LimitOption = None,
    redriven: RedrivenOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, the bytes in base64.")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    log: LogOption = None,
    set_: SetOption = None,
) -> None:
    """List dead letters, oldest first.

    Examples:
    - `headrace dead-letters list --data-dir headrace-data --since 2h`
    - `headrace dead-letters list --log kafka://localhost:9092 --json`
    """
    from app.dead_letter_care import print_list

    wanted = _filter(since, until, reason, partition, limit, redriven)
    print_list(settings_from(config, set_, data_dir=data_dir, log=log), wanted, as_json=as_json)


@app.command("show")
def show(
    where: Annotated[str, typer.Argument(help="As `list` prints it.", metavar="WHERE")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    log: LogOption = None,
    set_: SetOption = None,
) -> None:
    """Show one dead letter: reason, key, the event if it can be decoded now, and all its bytes.

    Examples:
    - `headrace dead-letters show events/0@1203 --data-dir headrace-data`
    """
    from app.dead_letter_care import print_letter

    print_letter(settings_from(config, set_, data_dir=data_dir, log=log), where)


@app.command("redrive")
def redrive(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            help="As `list` prints them; all that match when left out.", metavar="[WHERE]..."
        ),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    reason: ReasonOption = None,
    partition: PartitionOption = None,
    limit: LimitOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were redriven before.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also those that still cannot be decoded.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    log: LogOption = None,
    set_: SetOption = None,
) -> int:
    """Append the original bytes of dead letters to the log again, and mark them as redriven.

    An event that was learned already is not learned again: its id is known.

    Examples:
    - `headrace dead-letters redrive --data-dir headrace-data --dry-run`
    - `headrace dead-letters redrive --reason "no such item field" --yes`
    """
    from app.dead_letter_redrive import RedriveChoice
    from app.dead_letter_redrive import redrive as redrive_letters

    wanted = _filter(since, until, reason, partition, limit, None)
    choice = RedriveChoice(
        places=tuple(places or ()),
        wanted=wanted,
        again=again,
        force=force,
        dry_run=dry_run,
        yes=yes,
    )
    return redrive_letters(settings_from(config, set_, data_dir=data_dir, log=log), choice)


def _filter(
    since: str | None,
    until: str | None,
    reason: str | None,
    partition: str | None,
    limit: int | None,
    redriven: bool | None,
) -> LetterFilter:
    from app.dead_letter_filter import LetterFilter, time_from
    from domain.clock import SystemClock

    now_ms = SystemClock().now_ms()
    return LetterFilter(
        since_ms=None if since is None else time_from("--since", since, now_ms),
        until_ms=None if until is None else time_from("--until", until, now_ms),
        reason=reason,
        partition=partition,
        redriven=redriven,
        limit=limit,
    )
