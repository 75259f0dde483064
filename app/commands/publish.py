"""`headrace publish`: recorded events into a log."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from app.dataset_options import (
    ColumnsOption,
    DatasetOption,
    LimitOption,
    PathOption,
    PositiveAtOption,
    open_chosen,
)
from app.options import ConfigOption, DataDirOption, LogOption, SetOption, settings_from

ColumnarOption: TypeAlias = Annotated[
    int | None,
    typer.Option("--columnar", help="Pack up to N events into each record.", min=1, metavar="N"),
]


def publish(
    dataset: DatasetOption,
    path: PathOption = None,
    limit: LimitOption = None,
    positive_at: PositiveAtOption = None,
    columns: ColumnsOption = None,
    columnar: ColumnarOption = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    log: LogOption = None,
    set_: SetOption = None,
) -> None:
    """Write a recorded data set to an event log, as fast as the log takes it.

    Event times stay as recorded. Publishing twice has no second effect: event ids are the same.
    With --columnar, up to N events share a record, which readers take in many times faster; see
    docs/events.md. The data set's schema goes into the data folder, as a file for --config.

    Examples:
    - `headrace publish --dataset kuairand-pure --path DIR --data-dir data`
    - `headrace publish --dataset abrupt --log kafka://localhost:9092`
    - `headrace publish --dataset abrupt --columnar 1000`
    """
    from app.publish_run import publish_dataset

    settings = settings_from(config, set_, data_dir=data_dir, log=log)
    chosen = open_chosen(
        dataset, path, limit=limit, positive_at=positive_at, columns=columns, named={}
    )
    publish_dataset(settings, chosen, columnar)
