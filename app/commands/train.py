"""`headrace train`: the trainer, the one writer of model state."""

from __future__ import annotations

from typing import Annotated

import typer

from app.options import (
    ConfigOption,
    DataDirOption,
    LogOption,
    OnGapOption,
    SetOption,
    on_gap_override,
    settings_from,
)


def train(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    log: LogOption = None,
    set_: SetOption = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop when the log's end is reached.", metavar="")
    ] = False,
    on_gap: OnGapOption = None,
) -> None:
    """Learn from an event log until Ctrl-C, publishing snapshots.

    Goes on from the newest whole snapshot. What arrives is scored before it is learned. While the
    log is away it waits; when the log has lost records that were still to be read, it stops and
    says which, unless told to skip them.

    Examples:
    - `headrace train --data-dir headrace-data`
    - `headrace train --log kafka://localhost:9092 --config my.toml`
    - `headrace train --data-dir headrace-data --on-gap skip`
    """
    from app.trainer_process import run_trainer

    overrides = [*(set_ or ()), *on_gap_override(on_gap)]
    run_trainer(settings_from(config, overrides, data_dir=data_dir, log=log), until_end=until_end)
