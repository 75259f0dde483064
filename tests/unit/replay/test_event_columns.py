"""Column names come from flags or TOML, and contradictions are named."""

from __future__ import annotations

import pytest

from domain.errors import ConfigError
from replay.event_columns import EventFileColumns, columns_from_mapping

BASE = {"user": "who", "item": "what", "time": "when"}


def test_columns_from_mapping_reads_everything() -> None:
    raw = {**BASE, "time_unit": "s", "label": "y", "impression": "list", "context": ["tab", "x"]}
    assert columns_from_mapping(raw) == EventFileColumns(
        user="who",
        item="what",
        time="when",
        time_unit="s",
        label=("y",),
        impression="list",
        context=("tab", "x"),
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"users": "x"}, r"^columns\.users: unknown key"),
        ({"user": 7}, r"^columns\.user must be text, got 7"),
        ({"label": [1]}, r"^columns\.label must be a column name or a list"),
        ({"context": 5}, r"^columns\.context must be a column name or a list"),
        ({"time_unit": "min"}, r"^columns\.time_unit must be one of s, ms, us, ns, iso, got min"),
        ({"label": "y", "kind": "did"}, r"^columns\.label: a file has either"),
        ({"label": "y", "value": "stars"}, r"^columns\.label: a file has either"),
        ({"impression": "list"}, r"^columns\.impression needs columns\.label"),
        ({"default_kind": ""}, r"^columns\.default_kind must name an action"),
        ({"default_kind": "impression"}, r"^columns\.default_kind must name an action"),
    ],
)
def test_columns_from_mapping_names_what_is_wrong(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        columns_from_mapping({**BASE, **change})


@pytest.mark.parametrize("key", ["user", "item", "time"])
def test_columns_from_mapping_names_what_is_missing(key: str) -> None:
    raw = {name: value for name, value in BASE.items() if name != key}
    with pytest.raises(ConfigError, match=rf"^columns\.{key} is missing"):
        columns_from_mapping(raw)


def test_columns_names_each_column_once() -> None:
    columns = EventFileColumns(
        user="who", item="what", time="when", kind="did", impression="list", context=("tab", "who")
    )
    assert columns.names() == ("who", "what", "when", "did", "list", "tab")
