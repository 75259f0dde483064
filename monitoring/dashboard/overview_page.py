"""Overview: whether it is healthy, how fresh it is, and whether it is as good as last week."""

from __future__ import annotations

from dash import dcc, html

from monitoring.dashboard import curves
from monitoring.dashboard.health import SERVED, Check, checks, worst
from monitoring.dashboard.page import Page, View
from monitoring.dashboard.parts import (
    Component,
    Curve,
    Plot,
    badge,
    empty,
    grid,
    panel,
    table,
    tiles,
)
from monitoring.dashboard.parts import curves as draw
from monitoring.dashboard.records import Look
from monitoring.dashboard.words import change, moment, number, seconds

_MINUTE_MS = 60_000
_HEADLINES = {
    "good": "Healthy",
    "look": "Something to look at",
    "bad": "Something to act on",
    "unknown": "No records yet",
}
_MAX_SIGNALS = 5


def build(look: Look, view: View) -> Component:
    """Return the page."""
    if not look.sources:
        return nothing_yet(look)
    found = checks(look)
    state = worst(found)
    wrong = [check.name for check in found if check.state in ("bad", "look")]
    return html.Div(
        [
            html.Div(
                [
                    badge(state),
                    html.Strong(_HEADLINES[state]),
                    html.Span(", ".join(wrong)),
                ],
                className=f"headline {state}",
                role="status",
            ),
            tiles(_tiles(look)),
            grid(_checks(found), _quality(look), _signals(look, view), _freshness(look)),
        ]
    )


def nothing_yet(look: Look) -> Component:
    """Return what stands on every page before anything was recorded."""
    return panel(
        "No records yet",
        empty(
            f"Nothing has kept records in {look.records.places.title} so far. Start a trainer and "
            "a server on the same folder; this page fills by itself.",
            html.Pre(f"headrace up --data-dir {look.records.places.title}"),
        ),
    )


def _tiles(look: Look) -> list[tuple[str, str, str]]:
    frame = look.trained
    entropy = frame.last(
        "headrace_monitoring_normalized_entropy_ratio",
        scope="window",
        variant=SERVED,
        **_head(look),
    )
    events = curves.recent(frame, _MINUTE_MS, "headrace_stream_events_total")
    ages = [
        look.frame(server.name).last("headrace_serving_model_age_seconds")
        for server in look.servers[:1]
    ]
    asked = [
        curves.recent(look.frame(server.name), _MINUTE_MS, "headrace_serving_requests_total")
        for server in look.servers[:1]
    ]
    return [
        ("Events", number(events), "in the last minute"),
        ("Requests", number(asked[0] if asked else None), "in the last minute"),
        ("Age of the models", seconds(ages[0] if ages else None), "newest event in them to now"),
        ("Normalized entropy", number(entropy), f"of {_head(look).get('head', '-')}, below 1"),
        ("Live drift signals", str(look.num_live_signals), "see Drift"),
        (
            "Newest record",
            moment(max(source.newest_ms for source in look.sources)).partition(" ")[2],
            "UTC",
        ),
    ]


def _head(look: Look) -> dict[str, str]:
    """Return the first head that has quality: the page has room for one number."""
    found = look.trained.matching(
        "headrace_monitoring_normalized_entropy_ratio", scope="window", variant=SERVED
    )
    return {"head": found[0][0]["head"]} if found else {}


def _checks(found: list[Check]) -> Component:
    rows = [[check.name, badge(check.state), check.text, _runbook(check)] for check in found]
    return panel("State", table("State of each part", ["Part", "State", "", "Runbook"], rows))


def _runbook(check: Check) -> Component:
    """Return the section's name; it is in a file, not on this server."""
    return html.Code(check.alert) if check.state in ("bad", "look") else ""


def _quality(look: Look) -> Component:
    ago = look.a_week_ago()
    rows = []
    for title, name in (
        ("Normalized entropy", "headrace_monitoring_normalized_entropy_ratio"),
        ("AUC", "headrace_monitoring_auc_ratio"),
        ("Calibration", "headrace_monitoring_calibration_ratio"),
    ):
        for own, values in look.trained.matching(name, scope="window", variant=SERVED):
            now = float(values[-1])
            before = ago.last(name, scope="window", variant=SERVED, head=own["head"])
            cells = [number(now), number(before), change(now, before)]
            rows.append([f"{title}, {own['head']}", *cells])
    recall = look.trained.last("headrace_retrieval_recall_at_20_ratio", scope="window")
    if recall is not None:
        before = ago.last("headrace_retrieval_recall_at_20_ratio", scope="window")
        rows.append(["Recall at 20", number(recall), number(before), change(recall, before)])
    if not rows:
        return panel("Quality", empty("No label was settled yet, so nothing was measured."))
    note = "" if len(ago) else "There are no records of a week ago to compare with."
    return panel(
        "Quality now against last week",
        table("Quality", ["", "Now", "A week ago", "Change"], rows, numbers=3),
        note=note,
    )


def _signals(look: Look, view: View) -> Component:
    live = look.live_signals
    if not live and look.num_live_signals:
        return panel("Live drift signals", empty("They are in the trainer's log."))
    if not live:
        return panel("Live drift signals", empty("None: every watched stream is what it was."))
    items = [
        html.Li(
            [html.Span(signal.severity, className=f"badge {signal.severity}"), signal.describe()]
        )
        for signal in live[:_MAX_SIGNALS]
    ]
    more = f"All {len(live)} of them" if len(live) > _MAX_SIGNALS else "More about them"
    return panel(
        "Live drift signals",
        html.Ul(items, className="signals"),
        html.P(dcc.Link(more, href=view.address("/drift"))),
    )


def _freshness(look: Look) -> Component:
    drawn = [
        Curve(
            f"models, {server.name}",
            look.frame(server.name).times_ms,
            look.frame(server.name).get("headrace_serving_model_age_seconds"),
        )
        for server in look.servers
    ]
    frame = look.trained
    age = frame.get("headrace_snapshot_age_seconds")
    drawn.append(Curve("work in no snapshot yet", frame.times_ms, age))
    plot = Plot(
        "Freshness",
        (look.since_ms, look.until_ms),
        unit="seconds",
        note="How old what is served is, and how much a crash now would repeat.",
    )
    return draw(plot, drawn)


PAGE = Page("/", "Overview", build)
