"""The dashboard as a web application: one shell, one page inside it, drawn anew as records come."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dash import ALL, Dash, Input, Output, State, ctx, dcc, html, no_update, set_props
from flask import Flask, Response, abort, request, send_file

from domain.errors import HeadraceError, SnapshotError
from monitoring.dashboard import (
    drift_page,
    overview_page,
    quality_page,
    reports_page,
    retrieval_page,
    snapshots_page,
    stream_page,
)
from monitoring.dashboard.config import DashboardConfig
from monitoring.dashboard.page import Page, View, nav_link, span_links, view_of
from monitoring.dashboard.parts import Component, empty, named, panel, problem
from monitoring.dashboard.records import Look, Records
from monitoring.dashboard.updates import changed, drawing_from, prepare

logger = logging.getLogger(__name__)

PAGES: tuple[Page, ...] = (
    overview_page.PAGE,
    quality_page.PAGE,
    drift_page.PAGE,
    retrieval_page.PAGE,
    stream_page.PAGE,
    snapshots_page.PAGE,
    reports_page.PAGE,
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# The browser itself refuses what would leave this machine.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
)
_REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' "
    "'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
)
_INDEX = """<!DOCTYPE html>
<html lang="en">
<head>{%metas%}<title>Headrace</title>{%favicon%}{%css%}</head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body>
</html>"""


def create_app(records: Records, config: DashboardConfig) -> Dash:
    """Build the application; `app.server` is its WSGI side."""
    app = Dash(
        __name__,
        title="Headrace",
        update_title="",
        serve_locally=True,
        suppress_callback_exceptions=True,
        index_string=_INDEX,
        enable_mcp=False,
        meta_tags=[
            {"name": "viewport", "content": "width=device-width, initial-scale=1"},
            {"name": "color-scheme", "content": "light dark"},
        ],
    )
    app.layout = _shell(records, config)
    _guard(app.server, config)
    _serve_files(app.server, records)
    _draw_pages(app, records)
    _care_for_snapshots(app, records)
    return app


def draw(records: Records, view: View) -> Component:
    """Return the content of a page; what cannot be read is said in its place."""
    page = _page(view)
    if page is None:
        return panel("No such page", empty(f"There is nothing at {view.path}."))
    try:
        return page.build(Look(records, view.span_ms), view)
    except (HeadraceError, OSError, sqlite3.Error) as error:
        logger.warning("page not drawn", extra={"path": view.path, "error": str(error)})
        return problem(str(error))


def _page(view: View) -> Page | None:
    return next((page for page in PAGES if page.path == view.path), None)


def _shell(records: Records, config: DashboardConfig) -> Component:
    return html.Div(
        [
            html.A("Skip to content", href="#main", className="skip"),
            html.Header(
                [
                    html.Div(
                        [html.Span("Headrace", className="brand"),
                         html.Span(records.places.title, className="place")],
                        className="names",
                    ),
                    html.Div(id="nav"),
                ]
            ),
            html.Div(
                "The dashboard does not answer; what you see is old.",
                id="offline",
                role="alert",
            ),
            html.Div(id="outcome", role="status"),
            html.Main([html.Div(id="heading"), html.Div(id="page")], id="main", tabIndex=-1),
            dcc.Location(id="url"),
            dcc.Interval(id="tick", interval=int(config.refresh_s * 1_000)),
            dcc.Store(id="drawn"),
            dcc.Store(id="wanted"),
            dcc.ConfirmDialog(id="confirm", message=""),
        ]
    )  # fmt: skip


def _pages(view: View) -> Component:
    links = [
        html.Li(nav_link(one.title, view.address(one.path), is_here=one is _page(view)))
        for one in PAGES
    ]
    return html.Nav(html.Ul(links), className="pages", **named("Pages"))


def _heading(view: View) -> Component:
    page = _page(view)
    spans = [span_links(view)] if page is not None and page.has_span else []
    return [html.H1(page.title if page else "No such page"), *spans]


def _draw_pages(app: Dash, records: Records) -> None:
    @app.callback(
        Output("nav", "children"),
        Output("heading", "children"),
        Output("page", "children"),
        Output("drawn", "data"),
        Input("url", "pathname"),
        Input("url", "search"),
        Input("tick", "n_intervals"),
        Input("outcome", "children"),
        State("drawn", "data"),
    )
    def draw_page(
        path: str | None, search: str | None, _tick: int, _outcome: Any, drawn: Any
    ) -> tuple[Any, Any, Any, Any]:
        view = view_of(path or "/", search or "")
        own: dict[str, Any] = {"data-page": view.address()}
        content = html.Div(draw(records, view), **own)
        drawing, parts = prepare(content)
        different = changed(drawing_from(drawn), drawing)
        if different is None:
            return _pages(view), _heading(view), content, drawing.to_plain()
        for part in different:
            set_props(part, parts[part])
        return no_update, no_update, no_update, drawing.to_plain() if different else no_update

    @app.callback(
        Output("url", "search"),
        Input(drift_page.MAP, "clickData"),
        State("url", "pathname"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def choose_field(clicked: dict[str, Any] | None, path: str, search: str | None) -> Any:
        if not clicked:
            return no_update
        view = view_of(path, search or "")
        return f"?{urlsplit(view.address(field=str(clicked['points'][0]['y']))).query}"


def _care_for_snapshots(app: Dash, records: Records) -> None:
    """Ask, and only then act; what became of it is said at the top of the page."""

    @app.callback(
        Output("confirm", "message"),
        Output("confirm", "displayed"),
        Output("wanted", "data"),
        Input({"action": snapshots_page.PROMOTE, "snapshot": ALL, "why": ALL}, "n_clicks"),
        prevent_initial_call=True,
    )
    def ask(_clicks: list[int | None]) -> tuple[Any, Any, Any]:
        if not ctx.triggered_id or not ctx.triggered[0]["value"]:
            return no_update, no_update, no_update  # buttons that were drawn, not pressed
        wanted = ctx.triggered_id["snapshot"]
        rows = records.snapshots.rows()
        served = next((row.snapshot_id for row in rows if row.is_current), None)
        return snapshots_page.question(rows, wanted), True, {"wanted": wanted, "served": served}

    @app.callback(
        Output("outcome", "children"),
        Input("confirm", "submit_n_clicks"),
        Input("confirm", "cancel_n_clicks"),
        Input("url", "pathname"),
        State("wanted", "data"),
        prevent_initial_call=True,
    )
    def act(_yes: int | None, _no: int | None, _path: str, asked: dict[str, str] | None) -> Any:
        if ctx.triggered[0]["prop_id"] != "confirm.submit_n_clicks" or not asked:
            return ""
        return html.P(change_served(records, asked["wanted"], asked["served"]))


def change_served(records: Records, wanted: str, served: str | None) -> str:
    """Make a snapshot the served one, unless another is served than when it was asked for."""
    try:
        rows = records.snapshots.rows()
        now = next((row.snapshot_id for row in rows if row.is_current), None)
        if now != served:
            return f"Nothing was changed: meanwhile {now} was published. Look again, then choose."
        records.snapshots.promote(wanted)
    except (SnapshotError, OSError) as error:
        return f"Nothing was changed: {error}"
    logger.warning("snapshot promoted", extra={"snapshot": wanted, "before": served})
    return f"{wanted} is the served snapshot now."


def _guard(server: Flask, config: DashboardConfig) -> None:
    """Answer only who means us: no page of another site may act through a visitor's browser."""

    @server.before_request
    def refuse_strangers() -> None:
        host = urlsplit(f"//{request.host}").hostname or ""
        if config.host in _LOOPBACK and host not in _LOOPBACK:
            abort(Response(f"not the name of this page: {host}\n", 403))
        origin = request.headers.get("Origin")
        if request.method == "POST" and origin and urlsplit(origin).netloc != request.host:
            abort(Response("only this page itself may act\n", 403))

    @server.after_request
    def harden(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", _POLICY)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def _serve_files(server: Flask, records: Records) -> None:
    @server.get("/healthz")
    def healthz() -> Response:
        return Response("alive\n", mimetype="text/plain", headers={"Cache-Control": "no-store"})

    @server.get(f"{reports_page.FILES}<name>")
    def report(name: str) -> Response:
        known = {path.name: path for path in reports_page.report_files(records.places.reports)}
        if name not in known:
            abort(Response(f"no such report: {Path(name).name}\n", 404, mimetype="text/plain"))
        response = send_file(known[name].resolve())
        response.headers["Content-Security-Policy"] = _REPORT_POLICY
        return response
