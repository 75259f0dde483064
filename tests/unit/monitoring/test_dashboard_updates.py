"""What of a page is sent again: nothing, the parts that changed, or all of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dash import dcc, html

from monitoring.dashboard.updates import changed, drawing_from, prepare


def page(number: str = "1", rows: int = 2, *, colour: str = "good", height: int = 1) -> Any:
    cells = [html.Td(f"row {row}") for row in range(rows)]
    figure = {"data": [{"y": [height]}], "layout": {}}
    return html.Div(
        [
            html.P(number, className=colour),
            html.Table(cells),
            dcc.Graph(figure=figure, config={"responsive": True}),
            html.Button("press", id={"action": "x"}),
        ]
    )


def test_the_same_page_needs_nothing() -> None:
    assert changed(prepare(page())[0], prepare(page())[0]) == []


@pytest.mark.parametrize(
    ("now", "props"),
    [
        (page(number="2"), {"children": "2", "className": "good"}),
        (page(colour="bad"), {"children": "1", "className": "bad"}),
        (page(height=7), {"figure": {"data": [{"y": [7]}], "layout": {}}}),
    ],
    ids=["text", "colour", "figure"],
)
def test_a_part_that_changed_is_sent_alone(now: Any, props: dict[str, Any]) -> None:
    before, _ = prepare(page())
    drawing, parts = prepare(now)
    (name,) = changed(before, drawing) or []
    assert parts[name] == props


def test_another_shape_is_sent_whole() -> None:
    before, _ = prepare(page())
    assert changed(before, prepare(page(rows=3))[0]) is None
    assert changed(None, before) is None
    other_button = page()
    other_button.children[3].id = {"action": "y"}
    assert changed(before, prepare(other_button)[0]) is None


def test_ids_of_one_shape_mean_nothing_on_another() -> None:
    first, second = (set(prepare(one)[1]) for one in (page(), page(rows=3)))
    assert first
    assert not first & second


def test_a_drawing_survives_the_browser() -> None:
    drawing, _ = prepare(page())
    assert drawing_from(json.loads(json.dumps(drawing.to_plain()))) == drawing
    assert drawing_from(None) is None
