"""The datasets Headrace can read, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from domain.errors import DatasetError
from replay.dataset import Dataset, DatasetOptions, JoinerHints
from replay.event_columns import EventFileColumns, columns_from_mapping
from replay.event_files import open_event_file
from replay.kuairand import open_kuairand
from replay.ratings import open_movielens, open_movietweetings

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetInfo",
    "DatasetOptions",
    "EventFileColumns",
    "JoinerHints",
    "columns_from_mapping",
    "open_dataset",
]


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One line of `headrace datasets list`, and how to open it."""

    name: str
    description: str
    open: Callable[[Path, DatasetOptions], Dataset]


DATASETS: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "kuairand-pure",
            "short videos shown one by one, with clicks, long views and likes (a folder)",
            open_kuairand,
        ),
        DatasetInfo(
            "movielens",
            "film ratings 0.5 to 5: ratings.csv, ratings.dat or u.data as published (a folder)",
            open_movielens,
        ),
        DatasetInfo(
            "movietweetings",
            "film ratings 0 to 10 from tweets: ratings.dat as published (a folder)",
            open_movietweetings,
        ),
        DatasetInfo(
            "events",
            "your own log: one CSV, Parquet or JSON-lines file whose columns you name",
            open_event_file,
        ),
    )
}


def open_dataset(name: str, path: Path | str, options: DatasetOptions | None = None) -> Dataset:
    """Open a dataset by name and read its tables.

    Raises:
        DatasetError: no such dataset, or what is at `path` is not it.
        ConfigError: an option is missing, or this dataset has no use for it.
        SchemaError: the given schema does not fit the data.
    """
    info = DATASETS.get(name)
    if info is None:
        raise DatasetError(f"no dataset {name!r}; there are: {', '.join(DATASETS)}")
    return info.open(Path(path), DatasetOptions() if options is None else options)
