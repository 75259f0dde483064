"""Who may import whom: the direction in which the house is built.

The table of docs/architecture.md, read from the source text, so that imports inside functions and
under TYPE_CHECKING count too.
"""

from __future__ import annotations

import sys
from fnmatch import fnmatch

import pytest

from tests.architecture.source_tree import PACKAGES, Module, imports, modules, parse

OURS = frozenset({*PACKAGES, "protos", "tests", "benchmarks"})

ALLOWED = {
    "domain": set(),
    "protos": set(),
    "monitoring": {"domain"},
    "snapshot": {"domain"},
    "encoders": {"domain"},
    "retrieval": {"domain", "encoders"},
    "ranking": {"domain", "encoders"},
    "memory": {"domain"},
    "stream": {"domain", "monitoring"},
    "serving": {"domain", "monitoring", "stream"},
    "replay": {"domain", "stream", "monitoring"},
    # It reads published files as replays do, keeps its checkpoints as snapshots are kept, and its
    # ranks mean what they mean on a stream: a second reader, writer or NDCG would be one too many.
    "evaluation": {"domain", "encoders", "replay", "snapshot", "monitoring"},
    "app": {*PACKAGES, "protos"},
    # Installed and run by those who call Headrace: it must not bring the whole house along.
    "client": {"protos"},
}
"""What each package may import besides itself; nobody may import `app`."""

PROTO_FILES = (
    "stream/codec.py",
    "serving/convert.py",
    "serving/convert_answers.py",
    "serving/server.py",
    "serving/*_servicer.py",
)
"""Where the wire form may be seen; everybody else speaks in domain types."""

THIRD_PARTY = {
    "torch": {"encoders", "evaluation", "retrieval", "ranking"},
    "triton": {"encoders"},
    "faiss": {"retrieval"},
    "kafka": {"stream"},
    "opentelemetry": {"monitoring"},
}
"""Packages that may use a library which the others must be able to live without."""


def forbidden_imports(module: Module) -> list[str]:
    """Return one line for each import that the table does not allow."""
    found = []
    for line, name in imports(module):
        top = name.split(".", 1)[0]
        if top == module.package or top not in OURS:
            continue
        is_protos_where_allowed = top == "protos" and any(
            fnmatch(module.path, pattern) for pattern in PROTO_FILES
        )
        if top not in ALLOWED[module.package] and not is_protos_where_allowed:
            found.append(f"{module.path}:{line} imports {name}")
    return found


def misplaced_libraries(module: Module) -> list[str]:
    """Return one line for each library imported where it has no business."""
    return [
        f"{module.path}:{line} imports {name}"
        for line, name in imports(module)
        if module.package not in THIRD_PARTY.get(name.split(".", 1)[0], {module.package})
    ]


def relative_imports(module: Module) -> list[str]:
    """Return one line for each import that begins with a dot."""
    return [
        f"{module.path}:{line} imports {name}"
        for line, name in imports(module)
        if name.startswith(".")
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_the_table_allows(package: str) -> None:
    assert [line for module in modules(package) for line in forbidden_imports(module)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_libraries_are_imported_only_where_they_belong(package: str) -> None:
    assert [line for module in modules(package) for line in misplaced_libraries(module)] == []


def test_domain_needs_nothing_but_numpy_and_the_standard_library() -> None:
    used = {name.split(".", 1)[0] for module in modules("domain") for _, name in imports(module)}
    assert used - {"domain", "numpy"} - sys.stdlib_module_names == set()


def test_every_import_is_absolute() -> None:
    everywhere = modules(*PACKAGES, "tests", "benchmarks")
    assert [line for module in everywhere for line in relative_imports(module)] == []


def test_every_package_stands_in_the_table() -> None:
    assert set(ALLOWED) == {*PACKAGES, "protos"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("domain/events.py", "from monitoring.metrics import Metrics"),
        ("ranking/learner.py", "import retrieval"),
        ("encoders/backbone.py", "from ranking.learner import RankingModel"),
        ("memory/learner.py", "def f():\n    from ranking.model import Model"),
        ("stream/joiner.py", "from protos.headrace.v1 import events_pb2"),
        ("stream/joiner.py", "from app import cli"),
        ("serving/recommend.py", "import protos.headrace.v1.recommender_pb2 as pb"),
        ("replay/run.py", "import importlib\nimportlib.import_module('ranking.model')"),
        ("monitoring/metrics.py", "if TYPE_CHECKING:\n    import stream.joiner"),
        ("snapshot/store.py", "from tests.unit import worlds"),
        ("client/wire.py", "from domain.events import Event"),
    ],
)
def test_table_forbids(path: str, text: str) -> None:
    assert len(forbidden_imports(parse(text, path))) == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("stream/codec.py", "from protos.headrace.v1 import events_pb2"),
        ("serving/ranking_servicer.py", "from protos.headrace.v1 import ranking_pb2"),
        ("serving/tail.py", "from stream.history import HistoryStore"),
        ("app/wiring.py", "import ranking, retrieval, memory, snapshot"),
        ("client/wire.py", "from protos.headrace.v1 import events_pb2"),
        ("replay/run.py", "from replay.world import World\nimport numpy as np"),
    ],
)
def test_table_allows(path: str, text: str) -> None:
    assert forbidden_imports(parse(text, path)) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("memory/learner.py", "import torch"),
        ("ranking/index.py", "import faiss"),
        ("serving/tail.py", "from kafka import KafkaConsumer"),
        ("app/wiring.py", "import torch.nn"),
    ],
)
def test_library_has_no_business_in(path: str, text: str) -> None:
    assert len(misplaced_libraries(parse(text, path))) == 1


def test_relative_import_is_found() -> None:
    assert len(relative_imports(parse("from . import x\nfrom ..a import b\nimport c"))) == 2
