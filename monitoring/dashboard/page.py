"""A page: an address, a name, and a function from a look at the records to what is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode

from dash import dcc, html

from monitoring.dashboard.parts import Component, named
from monitoring.dashboard.records import Look

SPANS = {
    "15m": ("15 min", 900_000),
    "1h": ("1 hour", 3_600_000),
    "6h": ("6 hours", 21_600_000),
    "1d": ("1 day", 86_400_000),
    "1w": ("1 week", 604_800_000),
    "all": ("all", 0),
}
DEFAULT_SPAN = "1h"


@dataclass(frozen=True, slots=True)
class View:
    """What the address asks for.

    Attributes:
        span: a key of `SPANS`.
        asked: everything else, e.g. the field whose distribution is shown.
    """

    path: str
    span: str = DEFAULT_SPAN
    asked: Mapping[str, str] = field(default_factory=dict)

    @property
    def span_ms(self) -> int:
        """Return how far back curves go; 0 is all there is."""
        return SPANS[self.span][1]

    def address(self, path: str | None = None, **asked: str) -> str:
        """Return an address that keeps the span; on the same page, with this asked for too."""
        kept = dict(self.asked) if path is None else {}
        span = {} if self.span == DEFAULT_SPAN else {"span": self.span}
        query = urlencode({**span, **kept, **asked})
        return f"{path or self.path}{'?' if query else ''}{query}"


def view_of(path: str, search: str) -> View:
    """Return the view of an address; what it asks for wrongly is the default.

    >>> view_of("/quality", "?span=6h&head=click")
    View(path='/quality', span='6h', asked={'head': 'click'})
    """
    asked = {key: values[-1] for key, values in parse_qs(search.removeprefix("?")).items()}
    span = asked.pop("span", DEFAULT_SPAN)
    return View(path or "/", span if span in SPANS else DEFAULT_SPAN, asked)


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Attributes:
        build: what is shown; may raise HeadraceError when records cannot be read.
        has_span: whether it shows curves, and so a choice of how far back.
    """

    path: str
    title: str
    build: Callable[[Look, View], Component]
    has_span: bool = True


def span_links(view: View) -> Component:
    """Return the choice of how far back curves go."""
    links = []
    for key, (words, _) in SPANS.items():
        address = View(view.path, key, view.asked).address()
        links.append(html.Li(nav_link(words, address, is_here=key == view.span)))
    return html.Nav(html.Ul(links), className="spans", **named("Show the last"))


def nav_link(words: str, address: str, *, is_here: bool) -> Component:
    """Return a link of a choice; the chosen one says so to eyes and to screen readers."""
    if not is_here:
        return dcc.Link(words, href=address)
    return dcc.Link(
        [words, html.Span(", shown", className="sr-only")], href=address, className="here"
    )
