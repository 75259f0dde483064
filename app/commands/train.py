"""`headrace train`: the trainer, the one writer of model state."""

from __future__ import annotations

from typing import Annotated

import typer

from app.options import ConfigOption, DataDirOption, LogOption, SetOption, settings_from


def train(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    log: LogOption = None,
    set_: SetOption = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop when the log's end is reached.", metavar="")
    ] = False,
) -> None:
    """Learn from an event log until Ctrl-C, publishing snapshots.

    Goes on from the newest whole snapshot. What arrives is scored before it is learned.

    Examples:
    - `headrace train --data-dir headrace-data`
    - `headrace train --log kafka://localhost:9092 --config my.toml`
    """
    from app.trainer_process import run_trainer

    run_trainer(settings_from(config, set_, data_dir=data_dir, log=log), until_end=until_end)
