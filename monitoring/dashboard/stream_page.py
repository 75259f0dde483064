"""Stream and serving: what comes in, what is learned, who is answered, and how fast."""

from __future__ import annotations

from dash import html

from monitoring.dashboard.curves import quantile, rate
from monitoring.dashboard.overview_page import nothing_yet
from monitoring.dashboard.page import Page, View
from monitoring.dashboard.parts import Component, Curve, Plot, curves, empty, grid, panel
from monitoring.dashboard.records import Look
from monitoring.metric_history import Frame


def build(look: Look, view: View) -> Component:
    """Return the page."""
    if not look.sources:
        return nothing_yet(look)
    servers = [_serving(look, server.name) for server in look.servers]
    if not servers:
        servers = [panel("Serving", empty("No server has kept records here yet."))]
    return html.Div([html.H2("Stream", className="part"), _stream(look), *servers])


def _by(frame: Frame, label: str, name: str) -> list[Curve]:
    """Return the rate of a counter for each value of a label."""
    values = dict.fromkeys(own[label] for own, _ in frame.matching(name))
    return [
        Curve(one.replace("_", " "), frame.times_ms, rate(frame, name, **{label: one}))
        for one in values
    ]


def _stream(look: Look) -> Component:
    frame, span = look.trained, (look.since_ms, look.until_ms)

    def per_second(words: str, name: str) -> Curve:
        return Curve(words, frame.times_ms, rate(frame, name))

    lag = [
        Curve(own["partition"], frame.times_ms, values)
        for own, values in frame.matching("headrace_stream_consumer_lag_records")
    ]
    steps = [
        Curve(words, frame.times_ms, quantile(frame, share, "headrace_stream_step_seconds"))
        for words, share in (("half within", 0.5), ("99 % within", 0.99))
    ]
    return grid(
        curves(
            Plot("Events", span, "per second"), _by(frame, "kind", "headrace_stream_events_total")
        ),
        curves(Plot("Lag", span, "records", "What the trainer has not read yet."), lag),
        curves(
            Plot("Learned examples", span, "per second"),
            _by(frame, "learner", "headrace_stream_learned_examples_total"),
        ),
        curves(Plot("Learning step", span, "seconds", "Time for one micro-batch."), steps),
        curves(
            Plot("What is wrong with events", span, "per second"),
            [
                per_second("repeats", "headrace_stream_duplicates_total"),
                per_second("late", "headrace_stream_late_events_total"),
                per_second("clock jumps", "headrace_stream_clock_jumps_total"),
                per_second("dead letters", "headrace_stream_dead_letters_total"),
            ],
        ),
        curves(
            Plot("Waiting for labels", span, "impressions"),
            [Curve("", frame.times_ms, frame.get("headrace_stream_pending_impressions"))],
        ),
    )


def _serving(look: Look, server: str) -> Component:
    frame, span = look.frame(server), (look.since_ms, look.until_ms)
    waits = [
        Curve(
            words,
            frame.times_ms,
            quantile(frame, share, "headrace_serving_request_seconds", method="recommend"),
        )
        for words, share in (("half within", 0.5), ("99 % within", 0.99))
    ]
    stages = dict.fromkeys(
        own["stage"] for own, _ in frame.matching("headrace_serving_stage_seconds_bucket")
    )
    by_stage = [
        Curve(
            stage,
            frame.times_ms,
            quantile(frame, 0.99, "headrace_serving_stage_seconds", stage=stage),
        )
        for stage in stages
    ]
    return html.Div(
        [
            html.H2(f"Serving, {server.removeprefix('server ')}", className="part"),
            grid(
                curves(
                    Plot("Requests", span, "per second", "By gRPC method."),
                    _by(frame, "method", "headrace_serving_requests_total"),
                ),
                curves(Plot("Time to answer Recommend", span, "seconds"), waits),
                curves(
                    Plot("Answers", span, "per second", "By the path that answered."),
                    _by(frame, "path", "headrace_serving_answers_total"),
                ),
                curves(Plot("Stages, 99 % within", span, "seconds"), by_stage),
                curves(
                    Plot("Age of what is served", span, "seconds"),
                    [
                        Curve("models", frame.times_ms,
                              frame.get("headrace_serving_model_age_seconds")),
                        Curve("histories", frame.times_ms,
                              frame.get("headrace_serving_tail_lag_seconds")),
                    ],
                ),
                curves(
                    Plot("Refused and lost", span, "per second"),
                    [
                        Curve("requests refused", frame.times_ms,
                              rate(frame, "headrace_serving_refused_total")),
                        Curve("impressions not written", frame.times_ms,
                              rate(frame, "headrace_serving_impression_log_failures_total")),
                    ],
                ),
            ),
        ]
    )  # fmt: skip


PAGE = Page("/stream", "Stream and serving", build)
