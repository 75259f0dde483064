"""The forms an event file can have: actions, actions with what was shown, outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domain.events import Features, Feedback
from replay.column_table import ColumnTable
from replay.dataset import JoinerHints
from replay.event_columns import IMPRESSION_KIND, EventFileColumns
from replay.event_rows import EventRows
from replay.sessions import session_revealed_ms
from replay.shown_lists import ShownLists

_COVERED_SHARE = 0.99
"""Share of the feedback that the suggested attribution window catches, where the log says when
feedback came: one click after a week should not keep every label waiting for a week."""


@dataclass(frozen=True, slots=True, eq=False)
class EventSource:
    """A file whose rows are sorted and whose contexts are read; N rows.

    Attributes:
        stem: beginning of the ids of events that have none in the file.
        contexts: context of each row.
    """

    stem: str
    table: ColumnTable
    columns: EventFileColumns
    rows: EventRows
    contexts: Sequence[Features]

    def row_id(self, row: int) -> str:
        """Return an id made from the row's place in the file: equal rows may be two actions."""
        return f"{self.stem}-{int(self.rows.order[row]) + 1}"


@dataclass(frozen=True, slots=True, eq=False)
class FileContent:
    """What a file says.

    Attributes:
        kinds: kinds of feedback, the primary one first.
        feedback: in order of time.
    """

    kinds: tuple[str, ...]
    feedback: Sequence[Feedback]
    shown: ShownLists
    hints: JoinerHints


def read_outcomes(source: EventSource, session_gap_ms: int) -> FileContent:
    """Read rows that are shown items with their outcomes; known when the session is over.

    Raises:
        DatasetError: a label is not 0 or 1, or a list contradicts itself.
    """
    rows, columns = source.rows, source.columns
    labels = {name: _labels(rows, name) for name in columns.label}
    shown = ShownLists(rows, source.contexts)
    if columns.impression is None:
        ids = [source.row_id(row) for row in range(len(rows))]
    else:
        ids = rows.take(source.table.ids(columns.impression))
    for row, impression_id in enumerate(ids):
        shown.add(row, impression_id)
    started = shown.started_ms()
    shown_ms = np.array([started[impression_id] for impression_id in ids], np.int64)
    users = np.unique(np.array(rows.users), return_inverse=True)[1].astype(np.int64)
    revealed_ms = session_revealed_ms(users, shown_ms, session_gap_ms)
    feedback = [
        Feedback(
            event_id=f"{ids[row]}/{rows.items[row]}/{kind}",
            time_ms=int(revealed_ms[row]),
            user_id=rows.users[row],
            item_id=rows.items[row],
            kind=kind,
            value=values[row],
            impression_id=ids[row],
        )
        for row in np.argsort(revealed_ms, kind="stable").tolist()
        for kind, values in labels.items()
    ]
    hints = JoinerHints(
        attribution_window_ms=int((revealed_ms - shown_ms).max()), explicit_negatives=True
    )
    return FileContent(columns.label, feedback, shown, hints)


def read_actions(source: EventSource) -> FileContent:
    """Read rows that are actions, and shown items where their kind says so.

    Raises:
        DatasetError: a value is no number, or a list contradicts itself.
    """
    rows, columns = source.rows, source.columns
    kinds = _kinds(source)
    ids: Sequence[str | None] = [None] * len(rows)
    if columns.impression is not None:
        ids = rows.take(source.table.text(columns.impression))
    values: Sequence[float | None] = [None] * len(rows)
    if columns.value is not None:
        values = rows.optional_numbers(columns.value)
    shown = ShownLists(rows, source.contexts)
    feedback: list[Feedback] = []
    for row, kind in enumerate(kinds):
        impression_id, value = ids[row], values[row]
        if kind != IMPRESSION_KIND:
            feedback.append(
                Feedback(
                    event_id=f"{source.row_id(row)}-{kind}",
                    time_ms=int(rows.times_ms[row]),
                    user_id=rows.users[row],
                    item_id=rows.items[row],
                    kind=kind,
                    value=1.0 if value is None else value,
                    impression_id=impression_id or None,
                    context=source.contexts[row],
                )
            )
        elif impression_id:
            shown.add(row, impression_id)
        else:
            raise rows.error(row, f"a row of kind {IMPRESSION_KIND!r} needs an impression id")
    hints = JoinerHints(
        attribution_window_ms=_window_ms(shown, feedback),
        organic=any(action.impression_id is None for action in feedback),
    )
    return FileContent(_by_frequency(kinds, columns.default_kind), feedback, shown, hints)


def _labels(rows: EventRows, name: str) -> list[float]:
    values = rows.numbers(name)
    bad = np.flatnonzero((values != 0.0) & (values != 1.0))
    if len(bad):
        row = int(bad[0])
        raise rows.error(row, f"column {name!r}: expected 0 or 1, got {values[row]:g}")
    labels: list[float] = values.tolist()
    return labels


def _kinds(source: EventSource) -> list[str]:
    if source.columns.kind is None:
        return [source.columns.default_kind] * len(source.rows)
    return source.rows.take(source.table.ids(source.columns.kind))


def _by_frequency(kinds: Sequence[str], default: str) -> tuple[str, ...]:
    """Return the kinds of feedback, the default one first, then the most frequent."""
    counts: dict[str, int] = {}
    for kind in kinds:
        if kind != IMPRESSION_KIND:
            counts[kind] = counts.get(kind, 0) + 1
    return tuple(sorted(counts, key=lambda kind: (kind != default, -counts[kind], kind)))


def _window_ms(shown: ShownLists, feedback: Sequence[Feedback]) -> int | None:
    started = shown.started_ms()
    waits = [
        action.time_ms - started[action.impression_id]
        for action in feedback
        if action.impression_id in started
    ]
    return max(1, int(np.quantile(waits, _COVERED_SHARE))) if waits else None
