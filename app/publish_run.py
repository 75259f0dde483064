"""Datasets into logs and files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import track

from app.schema_file import schema_to_toml
from app.settings import Settings
from domain.errors import ConfigError
from domain.events import Event
from replay.dataset import Dataset
from stream.bulk_append import BulkAppendConfig, append_columnar
from stream.event_file import SUFFIXES, write_event_file
from stream.open_log import open_log

_BATCH = 2_000


def publish_dataset(settings: Settings, dataset: Dataset, columnar: int | None = None) -> None:
    """Append all events of a dataset to the log of the settings, and write its schema.

    `columnar` packs up to so many events into one record; None stores each in a record of its own.

    Raises:
        ConfigError: the log can only be read, or `columnar` is out of range.
        LogError: the log cannot be opened or written.
    """
    url = settings.data.log_url
    if url.startswith("file:"):
        raise ConfigError(
            f"data.log: a recorded log can only be read, got {url}; "
            "`headrace datasets prepare` writes one"
        )
    packing = None
    if columnar is not None:
        span_ms = settings.watermark.allowed_lateness_ms
        packing = BulkAppendConfig(max_events=columnar, max_span_ms=span_ms)
    settings.data.path.mkdir(parents=True, exist_ok=True)
    log = open_log(url, kafka=settings.kafka)
    in_records = ""
    if packing is None:
        count = 0
        for batch in _batches(_tracked(dataset)):
            log.append(batch)
            count += len(batch)
    else:
        appended = append_columnar(log, _tracked(dataset), packing)
        count, in_records = appended.num_events, f" in {appended.num_records:,} records"
    log.close()
    schema_file = settings.data.path / f"{dataset.name}.schema.toml"
    schema_file.write_text(schema_to_toml(dataset.schema), encoding="utf-8")
    _say(f"Published {count:,} events of {dataset.name}{in_records} to {url}")
    _say(f"Their schema is in {schema_file}; whoever reads them needs it: --config {schema_file}")


def prepare_dataset(dataset: Dataset, out: Path) -> None:
    """Write a dataset as an event file, and its schema as TOML beside it.

    Raises:
        ConfigError: the file's name asks for no form there is.
        LogError: the file cannot be written.
    """
    suffix = next((suffix for suffix in SUFFIXES if out.name.endswith(suffix)), None)
    if suffix is None:
        raise ConfigError(f"--out must end in {', '.join(SUFFIXES)}, got {out}")
    count = write_event_file(out, _tracked(dataset))
    schema_file = out.with_name(f"{out.name.removesuffix(suffix)}.schema.toml")
    schema_file.write_text(schema_to_toml(dataset.schema), encoding="utf-8")
    _say(f"Wrote {count:,} events to {out} and their schema to {schema_file}")


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(line)


def _tracked(dataset: Dataset) -> Iterable[Event]:
    console = Console(stderr=True)
    return track(
        dataset.events(),
        description=dataset.name,
        total=dataset.num_events_hint,
        console=console,
        transient=True,
        disable=not console.is_terminal,
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
