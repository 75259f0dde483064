"""Snapshots: which there are, which one is served, and the way back to an earlier one."""

from __future__ import annotations

from collections.abc import Sequence

from dash import html

from monitoring.dashboard.page import Page, View
from monitoring.dashboard.parts import Component, empty, named, panel, table
from monitoring.dashboard.records import Look, SnapshotRow
from monitoring.dashboard.words import moment, size

PROMOTE = "promote-snapshot"


def build(look: Look, view: View) -> Component:
    """Return the page."""
    rows = look.records.snapshots.rows()
    if not rows:
        return panel(
            "Snapshots",
            empty("There are no snapshots yet; a trainer publishes one when it starts."),
        )
    current = next((row for row in rows if row.is_current), None)
    before = before_current(rows)
    buttons = [_button("Roll back", before.snapshot_id, "roll-back")] if before else []
    what = (
        f"Servers answer from {current.snapshot_id}, learned up to {_newest(current)}."
        if current
        else "No snapshot is served."
    )
    return html.Div(
        [
            panel(
                "Served now",
                html.P(what),
                html.Div(buttons or [html.P("There is no earlier one to roll back to.")]),
                note="A roll back or a promotion holds until the trainer publishes its next "
                "snapshot. A trainer that is restarted goes on from the served one.",
            ),
            panel("All snapshots", _table(rows), wide=True),
        ]
    )


def before_current(rows: Sequence[SnapshotRow]) -> SnapshotRow | None:
    """Return the newest sound snapshot before the served one."""
    current = next((row.snapshot_id for row in rows if row.is_current), None)
    older = [row for row in rows if current and row.snapshot_id < current and not row.problem]
    return older[-1] if older else None


def question(rows: Sequence[SnapshotRow], snapshot_id: str) -> str:
    """Return what is asked before a snapshot becomes the served one."""
    current = next((row for row in rows if row.is_current), None)
    wanted = next((row for row in rows if row.snapshot_id == snapshot_id), None)
    now = f" instead of {current.snapshot_id}, learned up to {_newest(current)}" if current else ""
    then = f", learned up to {_newest(wanted)}," if wanted else ""
    return f"Serve snapshot {snapshot_id}{then}{now}?"


def _table(rows: Sequence[SnapshotRow]) -> Component:
    cells = [
        [
            html.Code(row.snapshot_id),
            f"{row.step:,}" if not row.problem else "",
            _newest(row) if not row.problem else "",
            f"{row.events:,}" if not row.problem else "",
            size(row.size_bytes) if not row.problem else "",
            _choice(row),
        ]
        for row in reversed(rows)
    ]
    heads = ["Snapshot", "Step", "Newest event (UTC)", "Events", "Size", ""]
    return table("Snapshots, newest first", heads, cells)


def _choice(row: SnapshotRow) -> Component:
    if row.is_current:
        return html.Span("served", className="badge good")
    if row.problem:
        return html.Span("damaged", className="badge bad", title=row.problem)
    return _button("Promote", row.snapshot_id, "promote")


def _button(words: str, snapshot_id: str, why: str) -> Component:
    aim = "to " if why == "roll-back" else ""
    return html.Button(
        f"{words} …",
        id={"action": PROMOTE, "snapshot": snapshot_id, "why": why},
        **named(f"{words} {aim}{snapshot_id}"),
    )


def _newest(row: SnapshotRow) -> str:
    return moment(row.event_time_ms) if row.event_time_ms > 0 else "nothing yet"


PAGE = Page("/snapshots", "Snapshots", build, has_span=False)
