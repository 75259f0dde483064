"""Names of settings: found in dataclasses, checked part by part, guessed at when they are wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from app.setting_keys import SettingKeys, from_text, nested
from domain.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    width: int = 1
    depth: int | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    name: str = ""


KEYS = SettingKeys({"seed": int, "outer": Outer, "other": Inner})


def test_keys_are_those_of_the_dataclasses_nested_ones_too() -> None:
    assert KEYS.types == {
        "seed": int,
        "outer.inner.width": int,
        "outer.inner.depth": int | None,
        "outer.name": str,
        "other.width": int,
        "other.depth": int | None,
    }
    assert KEYS.top == ("seed", "outer", "other")


def test_check_takes_sections_and_keys() -> None:
    for name in ("seed", "outer", "outer.inner", "outer.inner.width"):
        KEYS.check(name, "")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sed", "did you mean seed?"),
        ("outr", "did you mean outer?"),
        ("outr.inner.width", "did you mean outer.inner.width?"),
        ("outr.inner.height", "did you mean outer?"),
        ("outer.iner", "did you mean outer.inner?"),
        ("outer.inner.widht", "did you mean outer.inner.width?"),
        ("width", "did you mean outer.inner.width or other.width?"),
        ("outer.xyz", "known in outer: inner, name"),
        ("xyz", "known: other, outer, seed"),
        ("seed.x", "seed has no keys below it"),
        ("outer.inner.width.x", "outer.inner.width has no keys below it"),
    ],
)
def test_check_refuses_what_is_not_there_and_guesses(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KEYS.check(name, " (in a test)")
    assert str(caught.value) == f"{name}: unknown setting (in a test); {hint}"


def test_flat_and_nested_undo_each_other() -> None:
    tables = {"seed": 1, "outer": {"inner": {"width": 2, "depth": None}, "name": "x"}}
    flat = KEYS.flat(tables, "")
    assert flat == {
        "seed": 1,
        "outer.inner.width": 2,
        "outer.inner.depth": None,
        "outer.name": "x",
    }
    assert nested(flat) == tables


def test_flat_passes_over_sections_with_nothing_in_them() -> None:
    assert KEYS.flat({"outer": {}, "other": {"width": 1}}, "") == {"other.width": 1}


def test_flat_leaves_a_table_given_for_a_key_to_the_type_check() -> None:
    assert KEYS.flat({"outer": {"name": {"a": 1}}}, "") == {"outer.name": {"a": 1}}


def test_flat_refuses_a_value_for_a_section() -> None:
    with pytest.raises(ConfigError, match=r"^outer\.inner: expected a section \[outer\.inner\]"):
        KEYS.flat({"outer": {"inner": 3}}, "")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("3", int, 3),
        ("1_000", int, 1_000),
        ("true", bool, True),
        ("[1, 2]", tuple[int, ...], [1, 2]),
        ("", int, ""),
        ("fast", int, "fast"),
        ("3\nseed = 4", int, "3\nseed = 4"),
        ("3", str, "3"),
        ("'3'", str, "3"),
        ('"a \\"b\\""', str, 'a "b"'),
        ("it's", str, "it's"),
        ("/tmp/a b=c", str, "/tmp/a b=c"),
        ("[1]", str, "[1]"),
    ],
)
def test_text_is_read_as_the_keys_type(text: str, kind: object, value: object) -> None:
    assert from_text(text, kind) == value
