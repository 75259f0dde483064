"""What of a page must be sent again: all of it, or only the texts and figures that changed.

A page that is replaced loses where its reader is: the focus, the place she scrolled to, the value
under her pointer. Numbers change with every look at the records, the shape of a page rarely does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from dash.development import base_component
from plotly.io.json import to_json_plotly

Node: TypeAlias = Any
"""A dash component, or anything that may stand between two of them."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A page as it was sent, small enough to be kept by the browser.

    Attributes:
        shape: a hash of everything but the parts below.
        parts: a hash of each text and figure, by the id it was given.
    """

    shape: str
    parts: dict[str, str]

    def to_plain(self) -> dict[str, Any]:
        """Return JSON values from which `drawing_from` builds an equal one."""
        return {"shape": self.shape, "parts": self.parts}


def drawing_from(plain: dict[str, Any] | None) -> Drawing | None:
    """Return what `to_plain` described."""
    return None if plain is None else Drawing(plain["shape"], plain["parts"])


def prepare(content: Node) -> tuple[Drawing, dict[str, dict[str, Any]]]:
    """Give each part of a page an id; return the drawing, and the properties of each part.

    Ids hold the shape, so that what belongs to one page never changes another.
    """
    leaves: list[Node] = []
    shape = _hash(list(_shape(content, leaves)))
    props: dict[str, dict[str, Any]] = {}
    for number, leaf in enumerate(leaves):
        if not hasattr(leaf, "id"):
            leaf.id = f"part-{shape}-{number}"
        props[leaf.id] = {
            name: value for name, value in _props(leaf).items() if name in ("children", "className",
                                                                            "figure", "href")
        }  # fmt: skip
    return Drawing(shape, {name: _hash(own) for name, own in props.items()}), props


def changed(before: Drawing | None, now: Drawing) -> list[str] | None:
    """Return the parts that differ, None when the page has another shape."""
    if before is None or before.shape != now.shape:
        return None
    return [name for name, own in now.parts.items() if before.parts.get(name) != own]


def _shape(node: Node, leaves: list[Node]) -> Iterator[Any]:
    """Yield what a page is but for its parts, which are put into `leaves`."""
    if not isinstance(node, base_component.Component):
        yield node
        return
    own = _props(node)
    children = own.get("children")
    if _is_part(node, children):
        leaves.append(node)
        fixed = ("children", "className", "figure", "href")
        yield [type(node).__name__, {name: own[name] for name in own if name not in fixed}]
        return
    yield [type(node).__name__, {name: own[name] for name in own if name != "children"}]
    for child in children if isinstance(children, list | tuple) else [children]:
        yield from _shape(child, leaves)
    yield "end"


def _is_part(node: Node, children: Any) -> bool:
    is_plain = children is None or isinstance(children, str | int | float)
    return is_plain and not isinstance(getattr(node, "id", ""), dict)


def _props(node: Node) -> dict[str, Any]:
    plain: dict[str, Any] = node.to_plotly_json()["props"]
    return plain


def _hash(value: Any) -> str:
    text = to_json_plotly(value) if not isinstance(value, str) else json.dumps(value)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
