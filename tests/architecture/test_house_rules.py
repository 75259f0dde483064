"""Rules of the house that a machine can check: time, randomness, state, size, and what is shipped.

Each rule is a function from a module to the lines that break it, tried on a breach of its own.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.architecture.source_tree import (
    GENERATED,
    PACKAGES,
    ROOT,
    Module,
    dotted,
    imports,
    modules,
    parse,
    references,
)

Rule = Callable[[Module], list[str]]

WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.perf_counter",
    "time.perf_counter_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.process_time",
    "time.sleep",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
}
PICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
PICKLING_CALLS = {"torch.save", "torch.load"}
NAMED_RANDOMNESS = {
    "numpy.random.Generator",
    "numpy.random.BitGenerator",
    "numpy.random.SeedSequence",
    "numpy.random.PCG64",
    "numpy.random.PCG64DXSM",
    "numpy.random.Philox",
    "numpy.random.default_rng",
}
SEEDERS = {"numpy.random.default_rng", "numpy.random.PCG64", "numpy.random.SeedSequence"}
GLOBAL_TORCH_RANDOMNESS = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed_all"}
MAX_CONSTRUCTOR_PARAMETERS = 5
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80


CLOCKS = ("domain/clock.py", "client/timing.py")
"""The client runs in other people's processes, where nobody hands it a clock."""


def wall_clock(module: Module) -> list[str]:
    """Only one file of ours, and one of the client's, asks the operating system what time it is."""
    if module.path in CLOCKS:
        return []
    return [
        f"{at(module, node)} {name}" for node, name in references(module) if name in WALL_CLOCKS
    ]


def pickling(module: Module) -> list[str]:
    """State is arrays and JSON: a pickle runs code when it is read, and breaks with the code."""
    found = [
        f"{module.path}:{line} {name}"
        for line, name in imports(module)
        if name.split(".", 1)[0] in PICKLERS
    ]
    found += [
        f"{at(module, node)} {name}" for node, name in references(module) if name in PICKLING_CALLS
    ]
    return found + [
        f"{at(module, node)} allow_pickle"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.keyword)
        and node.arg == "allow_pickle"
        and ast.unparse(node.value) != "False"
    ]


def printing(module: Module) -> list[str]:
    """Only `app` talks to the terminal; everybody else logs, raises or returns."""
    if module.package == "app":
        return []
    return [
        f"{at(module, node)} print()"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]


def nameless_randomness(module: Module) -> list[str]:
    """Randomness comes from a generator with a seed, held by who uses it, never from a global."""
    found = [
        f"{module.path}:{line} random"
        for line, name in imports(module)
        if name.split(".", 1)[0] == "random"
    ]
    for node, name in references(module):
        is_global = name.startswith("numpy.random.") and not any(
            name == known or name.startswith(f"{known}.") for known in NAMED_RANDOMNESS
        )
        if is_global or name in GLOBAL_TORCH_RANDOMNESS:
            found.append(f"{at(module, node)} {name}")
    names = {id(node): name for node, name in references(module)}
    return found + [
        f"{at(module, node)} {names[id(node.func)]}() without a seed"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and names.get(id(node.func)) in SEEDERS
        and not node.args
        and not node.keywords
    ]


def wide_constructors(module: Module) -> list[str]:
    """A constructor takes at most five things besides self; more belong into a config."""
    found = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            arguments = node.args
            width = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs) - 1
            if width > MAX_CONSTRUCTOR_PARAMETERS:
                found.append(f"{at(module, node)} {width} parameters")
    return found


def long_functions(module: Module) -> list[str]:
    """A function fits on a screen."""
    return [
        f"{at(module, node)} {node.name}: {length} lines"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]


def long_files(module: Module) -> list[str]:
    """A file tells one thing."""
    lines = module.text.count("\n")
    return [f"{module.path}: {lines} lines"] if lines > MAX_FILE_LINES else []


def eager_annotations(module: Module) -> list[str]:
    """Every file with code says `from __future__ import annotations`."""
    has_code = any(not isinstance(node, ast.Expr) for node in module.tree.body)
    says_so = any(name == "__future__.annotations" for _, name in imports(module))
    return [module.path] if has_code and not says_so else []


IN_PACKAGES: tuple[Rule, ...] = (
    wall_clock,
    pickling,
    printing,
    nameless_randomness,
    wide_constructors,
    long_functions,
    long_files,
    eager_annotations,
)
IN_TESTS: tuple[Rule, ...] = (pickling, long_files, eager_annotations)

BREACHES = [
    (wall_clock, "import time as t\nt.perf_counter()"),
    (wall_clock, "from time import monotonic\nstarted = monotonic"),
    (wall_clock, "import datetime\ndatetime.datetime.now(datetime.UTC)"),
    (wall_clock, "from datetime import datetime as d\nd.utcnow()"),
    (pickling, "def f():\n    import pickle"),
    (pickling, "import torch\ntorch.save({}, 'x')"),
    (pickling, "import numpy as np\nnp.load('x', allow_pickle=True)"),
    (printing, "def f():\n    print('here')"),
    (nameless_randomness, "import random"),
    (nameless_randomness, "import numpy as np\nnp.random.seed(1)"),
    (nameless_randomness, "from numpy.random import rand\nrand()"),
    (nameless_randomness, "import numpy as np\nrng = np.random.default_rng()"),
    (nameless_randomness, "import torch\ntorch.manual_seed(1)"),
    (wide_constructors, "class A:\n    def __init__(self, a, b, c, d, *, e, f): ..."),
    (long_functions, "def f():\n" + "    x = 1\n" * 80),
    (long_files, "x = 1\n" * 501),
    (eager_annotations, '"""What it is."""\nimport os'),
]
OBSERVANCES = [
    (wall_clock, "import time\ntime.strftime('%Y')\nclock.time()"),
    (
        pickling,
        "import numpy as np\nimport torch\nnp.load('x', allow_pickle=False)\ntorch.tensor(1)",
    ),
    (printing, "console.print('x')"),
    (
        nameless_randomness,
        "import numpy as np\nrng: np.random.Generator = np.random.default_rng(7)",
    ),
    (wide_constructors, "class A:\n    def __init__(self, a, b, c, d, e): ..."),
    (eager_annotations, '"""Only says what the package is."""'),
]


def at(module: Module, node: ast.AST) -> str:
    return f"{module.path}:{getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize("rule", IN_PACKAGES, ids=lambda rule: rule.__name__)
def test_packages_keep_the_rule_of(rule: Rule) -> None:
    assert [line for module in modules(*PACKAGES) for line in rule(module)] == []


@pytest.mark.parametrize("rule", IN_TESTS, ids=lambda rule: rule.__name__)
def test_tests_keep_the_rule_of(rule: Rule) -> None:
    assert [line for module in modules("tests") for line in rule(module)] == []


@pytest.mark.parametrize(("rule", "text"), BREACHES)
def test_rule_finds_its_breach(rule: Rule, text: str) -> None:
    assert len(rule(parse(text))) == 1


@pytest.mark.parametrize(("rule", "text"), OBSERVANCES)
def test_rule_leaves_in_peace_who_keeps_it(rule: Rule, text: str) -> None:
    assert rule(parse(text)) == []


def test_test_files_have_names_of_their_own_and_are_no_packages() -> None:
    names = Counter(module.name for module in modules("tests") if module.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1 or name == "__init__.py"] == []


def test_every_package_is_shipped() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    folders = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for top in (*PACKAGES, "protos")
        for path in (ROOT / top).rglob("*.py")
    }
    assert listed == sorted(folders)
    for name in listed:
        assert (ROOT / name.replace(".", "/") / "__init__.py").exists(), name


def test_generated_protos_are_what_the_makefile_would_make_now(tmp_path: Path) -> None:
    recipe = next(
        line
        for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
        if "grpc_tools.protoc" in line
    )
    arguments = shlex.split(recipe.partition("grpc_tools.protoc")[2])
    here = [
        word.replace("_out=.", f"_out={tmp_path}")
        for argument in arguments
        for word in (
            [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(argument))]
            if "*" in argument
            else [argument]
        )
    ]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *here], cwd=ROOT, check=True)
    made = {path.relative_to(tmp_path): path for path in tmp_path.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(ROOT): path
        for path in (ROOT / "protos").rglob("*")
        if path.name.endswith(GENERATED)
    }
    assert len(made) > 0
    assert sorted(made) == sorted(kept)
    stale = [str(name) for name in made if made[name].read_bytes() != kept[name].read_bytes()]
    assert stale == [], "run `make protos`"


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    # In two parts, so that this file does not find itself.
    places = re.compile(
        "|".join(["/wor" + "k/", "/roo" + "t/", "/hom" + r"e/\w", "/User" + r"s/\w"])
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in text_files(ROOT)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if places.search(line)
    ]
    assert found == []


def text_files(folder: Path) -> Iterator[Path]:
    """Yield what the repository is made of: no caches, no environments, no data, no binaries."""
    skipped = {"data", "dist", "build", "out", "headrace-data", "__pycache__"}
    for path in sorted(folder.iterdir()):
        is_hidden = path.name.startswith(".") and path.name not in (".ci", ".github")
        if is_hidden or path.name in skipped or path.name.endswith(".egg-info"):
            continue
        if path.is_dir():
            yield from text_files(path)
        elif b"\0" not in path.read_bytes()[:4096]:
            yield path


@pytest.mark.parametrize(
    "path",
    [module.path for module in modules(*PACKAGES, "tests/architecture") if ">>> " in module.text],
)
def test_examples_in_docstrings_hold(path: str) -> None:
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    result = doctest.testmod(module)
    assert result.failed == 0
