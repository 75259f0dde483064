"""deploy/config/default.toml shows every setting there is, its default, and what it is for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from app.settings import KEYS, Settings, load_settings

PAGE = Path(__file__).parents[2] / "deploy" / "config" / "default.toml"
LINES = tuple(PAGE.read_text(encoding="utf-8").splitlines())
SECTION = re.compile(r"\[([a-z0-9_.]+)\]")
KEY = re.compile(r"(# )?([a-z0-9_]+) = \S.*")
DEFAULTS = Settings()


class Shown(NamedTuple):
    """One key on the page; not live means commented out."""

    live: bool
    comment: str


@cache
def shown(lines: Sequence[str] = LINES) -> dict[str, Shown]:
    """Every section and key on the page by dotted name, with the comment above it."""
    found: dict[str, Shown] = {}
    prefix, comment = "", ""
    for line in lines:
        section, key = SECTION.fullmatch(line), KEY.fullmatch(line)
        name = section[1] if section else f"{prefix}{key[2]}" if key else ""
        if section or (key and (not key[1] or name in KEYS.types)):
            assert name not in found, f"{name} is shown twice"
            found[name] = Shown(live=not line.startswith("#"), comment=comment)
            prefix = f"{name}." if section else prefix
            comment = ""
        else:
            comment = comment + line.removeprefix("#") if line else ""
    return found


def keys_shown() -> list[str]:
    sections = {name.rpartition(".")[0] for name in KEYS.types}
    return [name for name in shown() if name not in sections]


def default_of(dotted: str) -> object:
    value: object = DEFAULTS
    for part in dotted.split("."):
        value = getattr(value, "schema_declared" if part == "schema" else part)
    return value


@pytest.mark.parametrize("section", Settings.model_fields)
def test_default_file_gives_exactly_the_default(section: str) -> None:
    assert getattr(load_settings(PAGE), section) == getattr(DEFAULTS, section)


def test_default_file_shows_every_key_there_is_and_no_other() -> None:
    assert sorted(keys_shown()) == sorted(KEYS.types)


def test_default_file_shows_keys_live_unless_their_default_is_none() -> None:
    live = [name for name in keys_shown() if shown()[name].live]
    assert live == [name for name in keys_shown() if default_of(name) is not None]


def test_default_file_explains_every_section_and_key() -> None:
    assert [name for name, one in shown().items() if len(one.comment.split()) < 3] == []


def test_default_file_keeps_the_order_in_which_an_event_meets_the_sections() -> None:
    on_the_page = dict.fromkeys(name.partition(".")[0] for name in keys_shown())
    assert tuple(on_the_page) == KEYS.top


def test_default_files_keys_that_are_commented_out_load_too(tmp_path: Path) -> None:
    hidden = {name.rpartition(".")[2] for name in keys_shown() if not shown()[name].live}
    path = tmp_path / "all.toml"
    path.write_text(
        "\n".join(
            line.removeprefix("# ") if (key := KEY.fullmatch(line)) and key[2] in hidden else line
            for line in LINES
        )
    )
    assert load_settings(path).memory.reset_every_ms == 86_400_000


def test_default_files_example_of_a_schema_is_one(tmp_path: Path) -> None:
    start = next(row for row, line in enumerate(LINES) if line.startswith("# An example: "))
    end = LINES.index("", start)
    example = "\n".join(line.removeprefix("#") for line in LINES[start + 1 : end])
    path = tmp_path / "schema.toml"
    path.write_text(f"[schema]\n{example}\n")
    schema = load_settings(path).schema_declared
    assert {field.entity for field in schema.fields} == {"user", "item", "context"}
    assert {field.kind for field in schema.fields} == {"categorical", "numeric", "multi", "dense"}
    assert [head.name for head in schema.heads] == ["click", "liked"]
    assert len(schema.counted_pairs) == 2


def test_default_files_header_names_the_layers_from_the_weakest_to_the_strongest() -> None:
    header = LINES[: LINES.index("seed = 42")]
    rows = [line.partition("# ")[2].strip() for line in header if re.match(r"#   \d\. ", line)]
    words = ("defaults", "--config my.toml", "HEADRACE_JOINER__POLICY=fast", "--set joiner.policy")
    assert len(rows) == len(words)
    assert all(word in row for word, row in zip(words, rows, strict=True))


def test_page_reader_tells_comments_keys_and_sections_apart() -> None:
    page = (
        "# A wish.",
        "[memory]",
        "# For how long.",
        "# reset_every_ms = 1",
        "tau = 1.0",
        "x = 1",
    )
    found = shown(page)
    assert list(found) == ["memory", "memory.reset_every_ms", "memory.tau", "memory.x"]
    assert found["memory.reset_every_ms"] == Shown(live=False, comment=" For how long.")
    assert found["memory.tau"] == Shown(live=True, comment="")
