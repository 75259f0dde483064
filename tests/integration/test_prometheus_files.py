"""deploy/: rules and boards ask for metrics that exist, and every alert is tested and explained."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.instruments import Instrument
from monitoring.metrics import Metrics
from tests.needed_tools import need

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
CASES = sorted(PROMETHEUS.glob("rules*_test.yml"))
BOARDS = sorted((DEPLOY / "grafana" / "boards").glob("*.json"))
INSTRUMENTS = {instrument.name: instrument for instrument in Metrics().instruments}
OF_PROMETHEUS = {"job", "instance"}
SERIES = re.compile(r"\b(headrace_\w+)(?:\{([^}]*)\})?(?:\[)?")
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
GROUPED = re.compile(r"\b(?:by|without) \(([^)]*)\)")
OVER_COUNTERS = re.compile(r"\b(?:rate|increase|changes)\(\s*(headrace_\w+)")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def board_queries() -> list[tuple[str, str]]:
    """Query and legend of everything that a board asks for."""
    found = []
    for path in BOARDS:
        board = json.loads(path.read_text())
        found += [
            (target["expr"], target["legendFormat"])
            for panel in board["panels"]
            for target in panel["targets"]
        ]
        found += [(one["expr"], one["textFormat"]) for one in board["annotations"]["list"]]
    return found


def instrument_of(series: str) -> tuple[Instrument | None, str]:
    """The instrument behind a series, and what of a histogram the series is."""
    if series in INSTRUMENTS:
        return INSTRUMENTS[series], ""
    name, _, part = series.rpartition("_")
    is_part = part in ("bucket", "sum", "count") and name in INSTRUMENTS
    if is_part and INSTRUMENTS[name].kind == "histogram":
        return INSTRUMENTS[name], part
    return None, ""


def wrong_with(query: str, legend: str = "") -> list[str]:
    """What a query asks for that no process of ours ever shows."""
    wrong = []
    labels = set(OF_PROMETHEUS)
    for series, selectors in SERIES.findall(query):
        instrument, part = instrument_of(series)
        if instrument is None:
            wrong.append(f"no metric {series}")
            continue
        if instrument.kind == "histogram" and not part:
            wrong.append(f"{series} is a histogram: it has _bucket, _sum and _count")
        own = {**instrument.labels, **({"le": ()} if part == "bucket" else {})}
        labels |= set(own)
        for label, _, value in MATCHER.findall(selectors):
            if label in OF_PROMETHEUS:
                continue
            known = own.get(label)
            if known is None:
                wrong.append(f"{series} has no label {label}")
            elif known and not set(value.split("|")) <= set(known):
                wrong.append(f"{series} has no {label}={value}")
    for series in OVER_COUNTERS.findall(query):
        instrument, part = instrument_of(series)
        if instrument is not None and instrument.kind == "gauge":
            wrong.append(f"{series} is a gauge: it has no rate")
    named = {word.strip() for group in GROUPED.findall(query) for word in group.split(",")}
    named |= set(re.findall(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", legend))
    wrong += [f"nothing in {query} has label {label}" for label in sorted(named - labels - {""})]
    return wrong


# What Prometheus says


@pytest.mark.parametrize(
    "words",
    [("config", "prometheus.yml"), ("rules", "rules.yml")],
    ids=lambda words: words[1],
)
def test_promtool_finds_nothing_wrong_with(words: tuple[str, str]) -> None:
    what, name = words
    ended = subprocess.run(
        [need("promtool"), "check", what, "--lint=all", str(PROMETHEUS / name)]
        if what == "rules"
        else [need("promtool"), "check", what, str(PROMETHEUS / name)],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_alert_fires_when_it_should_and_keeps_quiet_when_not(path: Path) -> None:
    ended = subprocess.run(
        [need("promtool"), "test", "rules", str(path)], capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_rule_that_never_fires_would_be_noticed(tmp_path: Path) -> None:
    text = (PROMETHEUS / "rules.yml").read_text()
    (tmp_path / "rules.yml").write_text(text.replace("live_signals > 0", "live_signals > 1e9"))
    (tmp_path / "rules_test.yml").write_text((PROMETHEUS / "rules_test.yml").read_text())
    ended = subprocess.run(
        [need("promtool"), "test", "rules", str(tmp_path / "rules_test.yml")],
        capture_output=True,
        text=True,
    )
    assert ended.returncode != 0
    assert "HeadraceDrift" in ended.stdout + ended.stderr


def test_every_alert_is_tested_both_ways() -> None:
    cases = [case for path in CASES for case in yaml.safe_load(path.read_text())["tests"]]
    checks = [check for case in cases for check in case["alert_rule_test"]]
    quiet = {check["alertname"] for check in checks if not check.get("exp_alerts")}
    fires = {check["alertname"] for check in checks if check.get("exp_alerts")}
    names = {rule["alert"] for rule in rules()}
    assert quiet == names
    assert fires == names


# What our metrics say


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alert_asks_for_metrics_that_exist(rule: dict[str, Any]) -> None:
    assert wrong_with(rule["expr"], rule["annotations"]["summary"]) == []


def test_boards_ask_for_metrics_that_exist() -> None:
    assert [path.stem for path in BOARDS] == ["drift", "quality", "serving", "stream"]
    queries = board_queries()
    assert len(queries) > 50
    assert [line for query, legend in queries for line in wrong_with(query, legend)] == []


@pytest.mark.parametrize(
    ("query", "legend", "wrong"),
    [
        ("headrace_stream_evnts_total", "", "no metric"),
        ('headrace_stream_events_total{sort="x"}', "", "no label sort"),
        ('headrace_stream_events_total{kind="impressions"}', "", "no kind=impressions"),
        ("rate(headrace_stream_pending_impressions[5m])", "", "is a gauge"),
        ("headrace_serving_request_seconds", "", "is a histogram"),
        ("sum by (user) (headrace_stream_events_total)", "", "has label user"),
        ("headrace_stream_steps_total", "{{kind}}", "has label kind"),
    ],
)
def test_a_wrong_query_is_found(query: str, legend: str, wrong: str) -> None:
    (found,) = wrong_with(query, legend)
    assert wrong in found


# What a person finds


def test_runbook_has_a_section_for_every_alert_and_for_no_other() -> None:
    text = (DEPLOY / "runbook.md").read_text()
    sections = re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in sections] == [rule["alert"] for rule in rules()]
    for name, section in sections:
        for part in ("**Means:**", "**Look at:**", "**Do:**"):
            assert section.count(part) == 1, f"{name} has no {part}"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alert_says_how_urgent_it_is_and_where_its_section_is(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["runbook"] == f"deploy/runbook.md#{rule['alert'].lower()}"
    assert rule["annotations"]["summary"].endswith(".")


# What Grafana is given


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_board_reads_from_the_provisioned_source_and_its_panels_do_not_overlap(path: Path) -> None:
    (source,) = yaml.safe_load(
        (DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"]
    board = json.loads(path.read_text())
    assert board["uid"] == f"headrace-{path.stem}"
    cells: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        assert panel["description"]
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & own, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
