"""`headrace validate`: what is wrong with a log, before anything learns from it."""

from __future__ import annotations

import typer

from app.options import ConfigOption, DataDirOption, LogOption, SetOption, settings_from


def validate(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    log: LogOption = None,
    set_: SetOption = None,
) -> None:
    """Read a whole log and count what a trainer would set aside, drop or find late.

    Checks that records are events, that features fit the schema, that feedback names impressions
    which exist and items they showed, and the order of event times. Changes nothing. Exit status 1
    when a record would become a dead letter.

    Examples:
    - `headrace validate --data-dir headrace-data`
    - `headrace validate --log file:///data/log.parquet --config log.schema.toml`
    """
    from app.validate_run import validate_log

    if not validate_log(settings_from(config, set_, data_dir=data_dir, log=log)):
        raise typer.Exit(1)
