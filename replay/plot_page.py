"""A table and its plots as one HTML page that opens offline: plotly is inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from plotly.offline import get_plotlyjs

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 0 auto; padding: 1.2rem; }
pre { overflow-x: auto; padding: .8rem; background: #8882; border-radius: 8px; }
"""

_SCRIPT = """
for (const [id, figure] of Object.entries(FIGURES)) {
  Plotly.newPlot(id, figure.data, figure.layout, {responsive: true, displayModeBar: false});
}
"""


def plot_page(title: str, table: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page.

    Args:
        title: of the window.
        table: text whose columns stand under each other.
        figures: plotly's data and layout by a name that is a word; shown in this order.
    """
    # A "</script>" in a name must not end the script.
    data = json.dumps(figures, allow_nan=False).replace("</", "<\\/")
    places = "".join(f'<div id="{name}"></div>' for name in figures)
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>\n'
        f"<pre>{escape(table)}</pre>\n{places}\n"
        f"<script>{get_plotlyjs()}</script>\n"
        f"<script>const FIGURES = {data};{_SCRIPT}</script></body></html>\n"
    )
