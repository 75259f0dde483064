"""Datasets into logs and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from app.schema_file import schema_to_toml
from app.settings import Settings
from domain.events import Event
from replay.dataset import Dataset
from stream.event_file import write_event_file
from stream.open_log import open_log

_BATCH = 2_000


def publish_dataset(settings: Settings, dataset: Dataset) -> None:
    """Append all events of a dataset to the log of the settings."""
    console = Console(stderr=True)
    settings.data.path.mkdir(parents=True, exist_ok=True)
    log = open_log(settings.data.log_url, kafka=settings.kafka)
    count = 0
    for batch in _batches(_tracked(dataset, console)):
        log.append(batch)
        count += len(batch)
    log.close()
    console.print(f"Published {count:,} events of {dataset.name} to {settings.data.log_url}")


def prepare_dataset(dataset: Dataset, out: Path) -> None:
    """Write a dataset as an event file, and its schema as TOML beside it."""
    console = Console(stderr=True)
    count = write_event_file(out, _tracked(dataset, console))
    schema_file = out.with_name(out.name.split(".")[0] + ".schema.toml")
    schema_file.write_text(schema_to_toml(dataset.schema))
    console.print(f"Wrote {count:,} events to {out} and their schema to {schema_file}")


def _tracked(dataset: Dataset, console: Console) -> Iterable[Event]:
    return track(
        dataset.events(),
        description=dataset.name,
        total=dataset.num_events_hint,
        console=console,
        transient=True,
    )


def _batches(events: Iterable[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    for event in events:
        batch.append(event)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
