"""Retrieval and memory: whether search finds what users take, and whether the memory helps."""

from __future__ import annotations

from dash import html

from monitoring.dashboard.overview_page import nothing_yet
from monitoring.dashboard.page import Page, View
from monitoring.dashboard.parts import Component, Curve, Plot, curves, grid, tiles
from monitoring.dashboard.records import Look
from monitoring.dashboard.words import number, percent


def build(look: Look, view: View) -> Component:
    """Return the page."""
    if not look.sources:
        return nothing_yet(look)
    frame, span = look.trained, (look.since_ms, look.until_ms)

    def simple(title: str, note: str, unit: str, *series: tuple[str, str]) -> Component:
        drawn = [Curve(name, frame.times_ms, frame.get(metric)) for name, metric in series]
        return curves(Plot(title, span, unit=unit, note=note), drawn)

    quality = [
        Curve(f"{name}, {words}", frame.times_ms, frame.get(metric, scope=scope))
        for name, metric in (
            ("recall at 20", "headrace_retrieval_recall_at_20_ratio"),
            ("MRR", "headrace_retrieval_mrr_ratio"),
        )
        for scope, words in (("window", "last actions"), ("progressive", "whole run"))
    ]
    weights = [
        Curve(own["head"], frame.times_ms, values)
        for own, values in frame.matching("headrace_memory_lambda")
    ]
    return html.Div(
        [
            tiles(_tiles(look)),
            grid(
                curves(
                    Plot(
                        "Retrieval",
                        span,
                        unit="",
                        note="Where what users took stood in the whole catalog just before.",
                    ),
                    quality,
                ),
                curves(
                    Plot(
                        "Weight of the error memory",
                        span,
                        unit="lambda",
                        note="0: it does not help at the moment, and scores are the ranker's own.",
                    ),
                    weights,
                ),
                simple("Catalog", "Items that may be retrieved.", "items",
                       ("", "headrace_retrieval_catalog_items")),
                simple("Embedding rows", "Rows in use, all tables of the ranker.", "rows",
                       ("", "headrace_ranking_embedding_rows")),
            ),
        ]
    )  # fmt: skip


def _tiles(look: Look) -> list[tuple[str, str, str]]:
    frame = look.trained
    weights = frame.matching("headrace_memory_lambda")
    return [
        (
            "Recall at 20",
            percent(frame.last("headrace_retrieval_recall_at_20_ratio", scope="window")),
            "of the last actions",
        ),
        ("MRR", number(frame.last("headrace_retrieval_mrr_ratio", scope="window")), "the same"),
        ("Catalog", number(frame.last("headrace_retrieval_catalog_items")), "items"),
        *[
            (f"Memory, {own['head']}", number(float(values[-1])), "weight; 0 is off")
            for own, values in weights
        ],
    ]


PAGE = Page("/retrieval", "Retrieval and memory", build)
