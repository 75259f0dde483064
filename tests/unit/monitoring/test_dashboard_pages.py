"""What pages show of given records, what they say where there is nothing, and who may act."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from plotly.io.json import to_json_plotly

from domain.errors import ConfigError
from monitoring.dashboard.config import DashboardConfig
from monitoring.dashboard.page import View
from monitoring.dashboard.records import Records
from monitoring.dashboard.web import PAGES, change_served, create_app, draw
from monitoring.reaction_store import ReactionStore
from monitoring.reactions import Reaction
from snapshot.local_store import LocalSnapshotStore
from tests.dashboard_worlds import ENDED, LIVE, past_run, records_in

PATHS = [page.path for page in PAGES]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return records_in(past_run(tmp_path_factory.mktemp("past") / "data"))


def parts(records: Records, path: str, **asked: str) -> list[dict[str, Any]]:
    """Every component of a page, outermost first."""

    def below(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, list):
            for one in node:
                yield from below(one)
        elif isinstance(node, dict) and "props" in node:
            yield node
            yield from below(node["props"].get("children"))

    view = View(path, "1h", asked)
    return list(below(json.loads(to_json_plotly(draw(records, view)))))


def words(found: list[dict[str, Any]]) -> str:
    """Everything that can be read, one piece a line."""
    texts = []
    for one in found:
        children = one["props"].get("children")
        several = children if isinstance(children, list) else [children]
        texts += [child for child in several if isinstance(child, str)]
    return "\n".join(texts)


def rows(found: list[dict[str, Any]]) -> list[list[str]]:
    """The cells of every table row, as text."""
    all_rows = [one for one in found if one["type"] == "Tr"]
    return [[words(list(_flat(cell))) for cell in row["props"]["children"]] for row in all_rows]


def _flat(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for one in node:
            yield from _flat(one)
    elif isinstance(node, dict):
        yield node
        yield from _flat(node["props"].get("children"))


def figures(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["props"]["figure"] for one in found if one["type"] == "Graph"]


def test_overview_says_how_it_is_now_against_last_week(records: Records) -> None:
    found = parts(records, "/")
    assert ["Normalized entropy, click", "0.9", "0.8", "+12.5 %"] in rows(found)
    assert ["Recall at 20", "0.25", "0.25", "+0.0 %"] in rows(found)
    text = words(found)
    assert "600\nin the last minute" in text, "ten events a second"
    assert "120\nin the last minute" in text, "two requests a second"
    assert LIVE.describe() in text
    assert ENDED.describe() not in text


def test_quality_shows_every_head_and_variant(records: Records) -> None:
    found = parts(records, "/quality")
    assert ["click", "online", "last examples", "0.95", "0.7", "-", "1.05", "-"] in rows(found)
    assert ["click", "online+memory", "last examples", "0.9", "0.75", "-", "1", "-"] in rows(found)
    entropy = figures(found)[0]
    assert [line["name"] for line in entropy["data"]] == ["online", "online+memory"]
    assert entropy["data"][1]["y"] == [0.9] * 61
    assert [one["text"] for one in entropy["layout"]["annotations"]] == ["drift 1"]
    assert LIVE.describe() in words(found), "what drift 1 is"


def test_drift_lists_signals_and_maps_fields(records: Records) -> None:
    found = parts(records, "/drift")
    signals = [row for row in rows(found) if row[0] in (LIVE.describe(), ENDED.describe())]
    assert [row[0] for row in signals] == [LIVE.describe(), ENDED.describe()], "live ones first"
    assert [row[1] for row in signals] == ["large", "medium"]
    field_map, distribution = figures(found)
    assert field_map["data"][0]["y"] == ["item.category", "user.country"], "what moved most first"
    assert field_map["data"][0]["z"][0] == [0.02] * 8 + [1.5] * 4
    assert [(bar["name"], bar["y"]) for bar in distribution["data"]] == [
        ("reference", [0.5, 0.5]),
        ("now", [0.9, 0.1]),
    ]


def test_drift_shows_what_was_done_about_it_once_something_was(tmp_path: Path) -> None:
    records = records_in(past_run(tmp_path / "data"))
    assert "Reactions" not in words(parts(records, "/drift"))
    done = Reaction(name="reset_memory", time_ms=5, stream=LIVE.stream, cause=LIVE.describe())
    store = ReactionStore(records.places.drift)
    store.write_reactions([done])
    store.close()
    assert [done.describe()] in [row[:1] for row in rows(parts(records, "/drift"))]


def test_drift_shows_what_the_address_asks_for(records: Records) -> None:
    found = parts(records, "/drift", field="user.country", measure="missing")
    field_map, distribution = figures(found)
    assert field_map["data"][0]["z"][0] == [0.125] * 12
    assert distribution["data"][0]["y"] == [0.25, 0.75]
    assert "There is no distribution of this field." in words(parts(records, "/drift", field="x"))


def test_curves_of_retrieval_stream_and_serving_match_the_records(records: Records) -> None:
    drawn = {
        line["name"]: line["y"]
        for path in ("/retrieval", "/stream")
        for figure in figures(parts(records, path))
        for line in figure["data"]
    }
    assert set(drawn["recall at 20, last actions"]) == {0.25}
    assert set(drawn["click"]) == {0.4}
    assert set(drawn["impression"][1:]) == {8.0}
    assert set(drawn["feedback"][1:]) == {2.0}
    assert set(drawn["recommend"][2:]) == {2.0}
    assert set(drawn["models"][1:]) == {42.0}
    assert max(drawn["99 % within"][1:]) <= 0.005


def test_snapshots_offer_the_others_and_the_way_back(records: Records) -> None:
    found = parts(records, "/snapshots")
    ids = [row.snapshot_id for row in records.snapshots.rows()]
    table = rows(found)
    assert [row[0] for row in table[1:]] == ids[::-1]
    assert [row[5] for row in table[1:]] == ["served", "Promote …", "Promote …"]
    assert [row[1] for row in table[1:]] == ["30", "20", "10"]
    buttons = [one["props"]["id"]["snapshot"] for one in found if one["type"] == "Button"]
    assert buttons == [ids[1], ids[1], ids[0]], "roll back leads to the one before"


def test_reports_are_listed_newest_first_and_only_reports(records: Records) -> None:
    links = [one["props"] for one in parts(records, "/reports") if one["type"] == "A"]
    assert [link["href"] for link in links] == ["/report-files/new.json", "/report-files/old.html"]


# Where there is nothing, or nothing that can be read


@pytest.mark.parametrize("path", PATHS)
def test_page_over_an_empty_folder_says_what_is_missing(path: str, tmp_path: Path) -> None:
    found = parts(records_in(tmp_path), path)
    assert [one for one in found if one["props"].get("className") == "empty"]
    assert figures(found) == []
    assert list(tmp_path.iterdir()) == [], "looking must not create anything"


@pytest.mark.parametrize(
    ("path", "name"),
    [("/", "history.sqlite"), ("/quality", "history.sqlite"), ("/drift", "drift.sqlite")],
)
def test_page_over_damaged_records_names_the_file(path: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("no database " * 100)
    found = parts(records_in(tmp_path), path)
    assert found[0]["props"]["className"] == "problem"
    assert name in words(found)


def test_page_over_records_of_another_form_says_so(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "drift.sqlite") as other:
        other.execute("CREATE TABLE signals (other)")
    assert parts(records_in(tmp_path), "/drift")[0]["props"]["className"] == "problem"


def test_an_unknown_address_is_no_page(records: Records) -> None:
    assert "There is nothing at /nope." in words(parts(records, "/nope"))


def test_damaged_snapshot_cannot_be_chosen(tmp_path: Path) -> None:
    records = records_in(past_run(tmp_path / "data"))
    first, *_ = records.snapshots.rows()
    (tmp_path / "data" / "snapshots" / first.snapshot_id / "manifest.json").write_text("{")
    table = rows(parts(records, "/snapshots"))
    assert table[-1][5] == "damaged"


# Who may act, and on what


def test_a_snapshot_is_promoted_only_if_the_asked_one_is_still_served(tmp_path: Path) -> None:
    records = records_in(past_run(tmp_path / "data"))
    store = LocalSnapshotStore(tmp_path / "data" / "snapshots")
    first, second, third = store.ids()
    assert change_served(records, first, second) == (
        f"Nothing was changed: meanwhile {third} was published. Look again, then choose."
    )
    assert store.current_id() == third
    assert change_served(records, second, third) == f"{second} is the served snapshot now."
    assert store.current_id() == second
    assert change_served(records, "nope", second).startswith("Nothing was changed: ")


def client(records: Records, **config: Any) -> Any:
    return create_app(records, DashboardConfig(**config)).server.test_client()


def test_only_this_machine_and_only_this_page_may_ask(records: Records) -> None:
    own = client(records)
    assert own.get("/", headers={"Host": "127.0.0.1:8050"}).status_code == 200
    assert own.get("/", headers={"Host": "localhost:8050"}).status_code == 200
    assert own.get("/", headers={"Host": "evil.example"}).status_code == 403, "DNS rebinding"
    post = {"path": "/_dash-update-component", "json": {}}
    other = {"Host": "127.0.0.1:8050", "Origin": "http://evil.example"}
    assert own.post(**post, headers=other).status_code == 403
    assert client(records, host="0.0.0.0").get("/", headers={"Host": "box"}).status_code == 200


def test_the_browser_is_told_to_load_nothing_from_elsewhere(records: Records) -> None:
    policy = client(records).get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy


def test_reports_are_served_without_the_right_to_act(records: Records) -> None:
    own = client(records)
    answer = own.get("/report-files/old.html")
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"].startswith("sandbox ")
    answer.close()
    for name in ("notes.txt", "nope.html", ".."):
        assert own.get(f"/report-files/{name}").status_code in (308, 404), name
    outside = own.get("/report-files/..%2fhistory.sqlite").data
    assert outside.startswith(b"<!DOCTYPE html>"), "no file name: an address of the page itself"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"host": ""}, "dashboard.host must be an address"),
        ({"port": 70_000}, "dashboard.port must be a port, got 70000"),
        ({"refresh_s": 0.0}, r"dashboard.refresh_s must lie in 0.5..3600, got 0.0"),
    ],
)
def test_config_says_what_is_wrong(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DashboardConfig(**config)
