"""The source files as syntax trees, for the tests that read code instead of running it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "domain",
    "stream",
    "encoders",
    "retrieval",
    "ranking",
    "memory",
    "snapshot",
    "serving",
    "monitoring",
    "replay",
    "evaluation",
    "app",
    "client",
)
GENERATED = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


@dataclass(frozen=True, eq=False)
class Module:
    """One Python file; `path` is relative to the repository, with forward slashes."""

    path: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """Return the top-level folder."""
        return self.path.split("/", 1)[0]

    @property
    def name(self) -> str:
        """Return the file name."""
        return self.path.rsplit("/", 1)[-1]


def parse(text: str, path: str = "stream/example.py") -> Module:
    """Return source text as if it stood at `path`."""
    return Module(path, text, ast.parse(text))


def modules(*folders: str) -> tuple[Module, ...]:
    """Return all Python files below these folders but generated ones, in order of path."""
    return tuple(module for folder in folders for module in _modules(folder))


@cache
def _modules(folder: str) -> tuple[Module, ...]:
    return tuple(
        parse(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.name.endswith(GENERATED)
    )


@cache
def imports(module: Module) -> tuple[tuple[int, str], ...]:
    """Return line and dotted name of everything imported, wherever the statement stands.

    `from a.b import c` gives "a.b.c"; a relative import keeps its dots; what is imported by a
    function that takes a name counts when the name is written out.
    """
    found: list[tuple[int, str]] = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            found += [(node.lineno, f"{source}.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.Call) and node.args:
            first = node.args[0]
            is_named = isinstance(first, ast.Constant) and isinstance(first.value, str)
            if is_named and dotted(node.func) in ("importlib.import_module", "__import__"):
                found.append((node.lineno, str(ast.literal_eval(first))))
    return tuple(found)


@cache
def references(module: Module) -> tuple[tuple[ast.expr, str], ...]:
    """Return every name and attribute that comes from an import, by its full dotted name.

    >>> module = parse("import time as t" + chr(10) + "t.monotonic()")
    >>> [name for _, name in references(module)]
    ['time.monotonic', 'time']
    """
    known: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".", 1)[0]
                known[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    found: list[tuple[ast.expr, str]] = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute):
            top, _, rest = dotted(node).partition(".")
            if top in known:
                found.append((node, f"{known[top]}.{rest}" if rest else known[top]))
    return tuple(found)


def dotted(node: ast.expr) -> str:
    """Return "a.b.c" for a name or a chain of attributes of a name, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (source := dotted(node.value)):
        return f"{source}.{node.attr}"
    return ""
