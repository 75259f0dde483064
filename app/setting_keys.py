"""The names of all settings: which there are, which one was meant, and what a text stands for."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_type_hints

from domain.errors import ConfigError


class SettingKeys:
    """Every key of every section, nested ones too, by dotted name.

    Attributes:
        types: type of each key, in declaration order; sections are not among them.
        top: names of the sections, and of the keys that stand in none.
    """

    def __init__(self, sections: Mapping[str, Any]) -> None:
        """Take the type of each top-level section or key; dataclasses are sections."""
        self._tree = {name: _below(annotation) for name, annotation in sections.items()}
        self.types: dict[str, Any] = dict(_types(self._tree, ""))
        self.top = tuple(self._tree)

    def check(self, dotted: str, source: str) -> None:
        """Check that there is a key or section of this name.

        Raises:
            ConfigError: naming what does not exist, where it was given, and what may be meant.
        """
        node: Any = self._tree
        seen: list[str] = []
        for part in dotted.split("."):
            if not isinstance(node, dict):
                hint = f"{'.'.join(seen)} has no keys below it"
                raise ConfigError(f"{dotted}: unknown setting{source}; {hint}")
            if part not in node:
                hint = self._meant(dotted, seen, part, node)
                raise ConfigError(f"{dotted}: unknown setting{source}; {hint}")
            node = node[part]
            seen.append(part)

    def flat(self, given: Mapping[str, Any], source: str) -> dict[str, Any]:
        """Return the values of nested tables by dotted key.

        Raises:
            ConfigError: a key does not exist, or a section is given as a value.
        """
        values: dict[str, Any] = {}
        for dotted, value in self._leaves(self._tree, given, ""):
            self.check(dotted, source)
            if dotted in self.types:
                values[dotted] = value
            elif value != {}:
                raise ConfigError(f"{dotted}: expected a section [{dotted}], got {value!r}{source}")
        return values

    def _leaves(
        self, node: Any, given: Mapping[str, Any], prefix: str
    ) -> Iterator[tuple[str, Any]]:
        """Yield what is given below sections; a table below anything else is a value."""
        for name, value in given.items():
            below = node.get(name) if isinstance(node, dict) else None
            if isinstance(below, dict) and isinstance(value, Mapping) and value:
                yield from self._leaves(below, value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    def _meant(self, dotted: str, seen: list[str], part: str, siblings: Mapping[str, Any]) -> str:
        close = get_close_matches(part, siblings, 1)
        if close:
            rest = dotted.split(".")[len(seen) + 1 :]
            whole = ".".join([*seen, *close, *rest])
            return f"did you mean {whole if whole in self.types else '.'.join([*seen, *close])}?"
        leaf = dotted.rpartition(".")[2]
        elsewhere = [key for key in self.types if key.rpartition(".")[2] == leaf]
        if elsewhere:
            return f"did you mean {' or '.join(elsewhere[:3])}?"
        return f"known{' in ' if seen else ''}{'.'.join(seen)}: {', '.join(sorted(siblings))}"


def from_text(text: str, annotation: Any) -> Any:
    """Return what a flag or an environment variable says, read as its key's type.

    For a key that holds text it is the text, quotes around it aside. For any other it is read as
    TOML (numbers, true, lists); what is not TOML stays text, for the type check to take or refuse.

    >>> from_text("12", str), from_text("'a b'", str), from_text("12", int), from_text("fast", int)
    ('12', 'a b', 12, 'fast')
    """
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"] if len(parsed) == 1 else text
    return text if annotation is str and not isinstance(value, str) else value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted key as nested tables.

    >>> nested({"seed": 1, "ranking.backbone.width": 8})
    {'seed': 1, 'ranking': {'backbone': {'width': 8}}}
    """
    tables: dict[str, Any] = {}
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        table = tables
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = value
    return tables


def _below(annotation: Any) -> Any:
    if not (isinstance(annotation, type) and dataclasses.is_dataclass(annotation)):
        return annotation
    hints = get_type_hints(annotation)
    return {field.name: _below(hints[field.name]) for field in dataclasses.fields(annotation)}


def _types(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, node in tree.items():
        if isinstance(node, dict):
            yield from _types(node, f"{prefix}{name}.")
        else:
            yield prefix + name, node
