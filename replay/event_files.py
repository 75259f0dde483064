"""Someone's own log in one CSV, Parquet or JSON-lines file, turned into events.

Three forms, told apart by the columns that are named (`replay.event_columns`):

- actions: a row is something a user did, of one kind or of the kind its row says, with a value
  (a rating) or without. Organic feedback.
- shown and done: as above, and rows of kind "impression" say what was shown. Rows of one impression
  id are one list; actions with that id answer it.
- outcomes: a row is a shown item with columns of 0 and 1 that say what came of it. When that became
  known is not in the file, so it is known when the user's session is over.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path

from domain.errors import ConfigError, SchemaError
from domain.events import Event
from domain.features import FeatureSchema, Field, Head
from replay.announce import announced
from replay.column_table import ColumnTable, read_columns
from replay.dataset import DatasetOptions, JoinerHints
from replay.event_columns import EventFileColumns
from replay.event_file_forms import EventSource, FileContent, read_actions, read_outcomes
from replay.event_rows import EventRows, contexts, derived_fields


class EventFile:
    """A file as events; `open_event_file` makes it."""

    name = "events"

    def __init__(self, schema: FeatureSchema, content: FileContent) -> None:
        self._schema = schema
        self._content = content

    @property
    def schema(self) -> FeatureSchema:
        """Return the schema given, or the one derived from the columns."""
        return self._schema

    @property
    def num_events_hint(self) -> int:
        """Return the number of lists and actions; item updates come on top."""
        return len(self._content.shown) + len(self._content.feedback)

    @property
    def joiner_hints(self) -> JoinerHints:
        """Return how labels become known."""
        return self._content.hints

    def events(self) -> Iterator[Event]:
        """Return item updates, impressions and feedback in order of event time.

        At equal times what was shown comes before what was done.
        """
        merged: Iterator[Event] = heapq.merge(
            self._content.shown.events(), self._content.feedback, key=attrgetter("time_ms")
        )
        return announced(merged, self.name, item_features=lambda item: {})


def open_event_file(path: Path, options: DatasetOptions) -> EventFile:
    """Read a file whose columns `options.columns` names.

    Raises:
        ConfigError: an option is missing or contradicts another.
        DatasetError: the file or a column is missing, or a line cannot be read.
        SchemaError: the given schema does not fit the file.
    """
    columns = options.columns
    if columns is None:
        raise ConfigError("dataset.columns must name the user, item and time columns of the file")
    _check_positive_at(columns, options)
    table = read_columns(path, columns.names())
    rows = EventRows(table, columns, options.limit)
    fields = _context_fields(table, columns, options.schema)
    source = EventSource(path.stem, table, columns, rows, contexts(table, rows, fields))
    if columns.label:
        content = read_outcomes(source, options.session_gap_ms)
    else:
        content = read_actions(source)
    return EventFile(_schema(content.kinds, fields, options), content)


def _check_positive_at(columns: EventFileColumns, options: DatasetOptions) -> None:
    if columns.label and options.positive_at is not None:
        raise ConfigError("dataset.positive_at: label columns are 0 or 1 already")
    if columns.value and options.positive_at is None and options.schema is None:
        raise ConfigError(
            f"dataset.positive_at must be given: from which {columns.value!r} on is an action a "
            "positive?"
        )


def _context_fields(
    table: ColumnTable, columns: EventFileColumns, schema: FeatureSchema | None
) -> tuple[Field, ...]:
    if schema is None:
        return derived_fields(table, columns.context)
    declared = {field.name: field for field in schema.of("context")}
    for name in columns.context:
        if name not in declared:
            raise SchemaError(f"columns.context: {name!r} is no context field of the schema")
    return tuple(declared[name] for name in columns.context)


def _schema(
    kinds: Sequence[str], fields: tuple[Field, ...], options: DatasetOptions
) -> FeatureSchema:
    given = options.schema
    if given is None:
        if not kinds:
            raise SchemaError("schema.heads: the file says what was shown, but no action")
        bar = 1.0 if options.positive_at is None else options.positive_at
        heads = tuple(Head(name=kind, feedback_kind=kind, positive_at=bar) for kind in kinds)
        return FeatureSchema(fields=fields, heads=heads)
    if not any(head.feedback_kind in kinds for head in given.heads):
        raise SchemaError(
            f"schema.heads: the file decides none of them, it has: {', '.join(kinds)}"
        )
    return given
