"""Flags that say which dataset to read: what they open, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.dataset_options import open_chosen
from domain.errors import ConfigError, DatasetError
from domain.events import Feedback

CSV = "who,what,when,stars\nann,i1,1000,5\nbob,i2,2000,1\n"
NAMED = {"user": "who", "item": "what", "time": "when"}


def opened(name: str, path: Path | None = None, **changes: Any) -> Any:
    chosen: dict[str, Any] = {"limit": None, "positive_at": None, "columns": None, "named": {}}
    return open_chosen(name, path, **{**chosen, **changes})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "my log.csv"
    path.write_text(CSV)
    return path


def kinds(dataset: Any) -> list[tuple[str, str, float]]:
    return [(e.user_id, e.kind, e.value) for e in dataset.events() if isinstance(e, Feedback)]


def test_flags_name_the_columns(log: Path) -> None:
    assert kinds(opened("events", log, named=NAMED)) == [("ann", "click", 1), ("bob", "click", 1)]


def test_columns_file_names_them_and_flags_win_over_it(log: Path, tmp_path: Path) -> None:
    columns = tmp_path / "columns.toml"
    columns.write_text('user = "what"\nitem = "what"\ntime = "when"\nvalue = "stars"\n')
    dataset = opened(
        "events", log, columns=columns, named={"user": "who", "label": None}, positive_at=4.0
    )
    assert kinds(dataset) == [("ann", "click", 5), ("bob", "click", 1)]
    assert dataset.schema.heads[0].positive_at == 4.0


def test_scenario_needs_no_path_and_takes_a_limit() -> None:
    shown = [event for event in opened("stationary", limit=7).events() if hasattr(event, "items")]
    assert len(shown) == 7


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("evnts", {}, "no dataset 'evnts'; did you mean events?"),
        ("events", {}, "--path: where is events? A folder or file is needed"),
        (
            "movielens",
            {"path": ".", "named": NAMED},
            "flags that name columns are for --dataset events, got movielens",
        ),
        (
            "abrupt",
            {"path": "."},
            "--path and --positive-at: abrupt is simulated and has no use for it",
        ),
        (
            "abrupt",
            {"positive_at": 4.0},
            "--path and --positive-at: abrupt is simulated and has no use for it",
        ),
        (
            "events",
            {"path": "LOG"},
            "dataset.columns must name the user, item and time columns of the file "
            "(--columns FILE)",
        ),
        (
            "events",
            {"path": "LOG", "named": {"user": "who", "item": None, "time": None}},
            "columns.item is missing: it names the item column (--item-column)",
        ),
        (
            "events",
            {"path": "LOG", "named": {**NAMED, "time_unit": "h"}},
            "columns.time_unit must be one of s, ms, us, ns, iso, got h (--time-unit)",
        ),
        (
            "events",
            {"path": "LOG", "named": {**NAMED, "value": "stars"}},
            "dataset.positive_at must be given: from which 'stars' on is an action a positive? "
            "(--positive-at)",
        ),
        ("events", {"path": "LOG", "columns": "nowhere.toml"}, "--columns nowhere.toml: cannot"),
    ],
)
def test_flags_that_do_not_fit_are_named(
    log: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    given = dict(changes)
    path = given.pop("path", None)
    if "columns" in given:
        given["columns"] = Path(given["columns"])
    with pytest.raises((ConfigError, DatasetError)) as caught:
        opened(name, log if path == "LOG" else path and Path(path), **given)
    assert str(caught.value).startswith(message)


def test_columns_file_with_an_unknown_name_is_refused(log: Path, tmp_path: Path) -> None:
    columns = tmp_path / "columns.toml"
    columns.write_text('usr = "who"\n')
    with pytest.raises(ConfigError, match=r"^columns\.usr: unknown key, expected one of .*'user'"):
        opened("events", log, columns=columns)


def test_unknown_dataset_unlike_any_other_lists_what_there_is() -> None:
    with pytest.raises(DatasetError, match=r"no dataset 'zzz'; there are: kuairand-pure, .*noisy"):
        opened("zzz")
