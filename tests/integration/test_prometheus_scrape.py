"""A real Prometheus reads a running Headrace with the files of deploy/prometheus."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live_headrace import LiveHeadrace, live_headrace
from tests.needed_tools import need
from tests.process_helpers import free_port, wait_until

FILES = Path(__file__).parents[2] / "deploy" / "prometheus"


class Prometheus:
    """A running Prometheus, asked through its HTTP API."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._address}/-/ready", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._address}/api/v1/{path}?{query}", timeout=5.0) as page:
            answer = json.load(page)
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, query: str) -> float | None:
        """The one value of a query, None while it has no data."""
        result = self.get("query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None


def config_for(live: LiveHeadrace) -> dict[str, Any]:
    """The shipped configuration, with this machine's free ports and no time to lose."""
    config: dict[str, Any] = yaml.safe_load((FILES / "prometheus.yml").read_text())
    ports = {"headrace-trainer": live.trainer_port, "headrace-server": live.server_port}
    for job in config["scrape_configs"]:
        (group,) = job["static_configs"]
        group["targets"] = [f"127.0.0.1:{ports.pop(job['job_name'])}"]
    assert ports == {}
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FILES / name) for name in config["rule_files"]]
    return config


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    program = need("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config_for(live_headrace())))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        running = Prometheus(port)
        wait_until(running.is_ready, 60.0, f"Prometheus is ready ({folder / 'log'})")
        yield running
    finally:
        process.terminate()
        process.wait(30.0)


def test_targets_are_up_and_numbers_arrive(prometheus: Prometheus) -> None:
    live = live_headrace()

    def health() -> list[str]:
        return [target["health"] for target in prometheus.get("targets")["activeTargets"]]

    wait_until(lambda: health() == ["up", "up"], 30.0, "both targets are up")
    query = 'sum(headrace_stream_events_total{job="headrace-trainer"})'
    wait_until(lambda: prometheus.value(query) == live.events_taken_in(), 30.0, "the same count")
    assert live.events_taken_in() > 100


@pytest.mark.parametrize(
    "query",
    [
        'headrace_monitoring_normalized_entropy_ratio{scope="window", variant="online+memory"}',
        "headrace_snapshot_last_step",
        'headrace_serving_model_age_seconds{job="headrace-server"}',
        "headrace_retrieval_catalog_items",
        'headrace_app_info{process="trainer"}',
    ],
)
def test_query_answers_with_data(query: str, prometheus: Prometheus) -> None:
    wait_until(lambda: prometheus.value(query) is not None, 30.0, query)


def test_rules_are_loaded_and_healthy_and_no_page_is_sent(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = prometheus.get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_until(lambda: {rule["health"] for rule in rules()} == {"ok"}, 30.0, "all were evaluated")
    assert len(rules()) > 20
    firing = [
        rule["name"]
        for rule in rules()
        if rule["state"] == "firing" and rule["labels"]["severity"] == "page"
    ]
    assert firing == []
