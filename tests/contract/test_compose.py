"""deploy/compose.yaml and the image: what they start exists, listens there and shares its files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from app.cli import app
from app.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
HEADRACE = {name: one for name, one in SERVICES.items() if one.get("image") == "headrace"}
SERVERS = ("server-1", "server-2")


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(DEPLOY / "config" / "compose.toml")


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text()


def mounts(service: str) -> dict[str, str]:
    """Return what a service mounts where."""
    pairs = (volume.split(":") for volume in SERVICES[service].get("volumes", ()))
    return {where: what for what, where, *_ in pairs}


def published(service: str) -> dict[int, int]:
    """Return which port of the container is reached at which of this machine."""
    ports = [port.rsplit(":", 2) for port in SERVICES[service].get("ports", ())]
    assert all(host == "127.0.0.1" for host, _, _ in ports), "open to this machine only"
    return {int(inside): int(outside) for _, outside, inside in ports}


def parse(words: list[str]) -> None:
    """Let every command on the way parse its share; nothing runs."""
    command: Any = typer.main.get_command(app)
    context = None
    while True:
        context = command.make_context(command.name, list(words), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        words = [*context._protected_args, *context.args]
        _, command, words = command.resolve_command(context, words)


def test_docker_compose_takes_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("docker-compose") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("docker-compose is not installed; deploy/test_tools.sh does it")
        pytest.skip("docker-compose is not installed")
    # It needs no engine for this; one that is named but not there must not matter.
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    ended = subprocess.run(
        ["docker-compose", "-f", str(COMPOSE), "config", "--services"],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert set(ended.stdout.split()) == set(SERVICES)


def test_services_are_those_of_a_deployment() -> None:
    others = {"kafka", "prometheus", "grafana"}
    assert set(SERVICES) == {*others, "topics", "trainer", *SERVERS, "dashboard"}
    assert set(HEADRACE) == set(SERVICES) - others


@pytest.mark.parametrize("service", HEADRACE)
def test_command_of_a_service_is_one_that_headrace_understands(service: str) -> None:
    parse(HEADRACE[service]["command"])


def test_an_unknown_flag_of_a_service_would_be_noticed() -> None:
    with pytest.raises(Exception, match="--no-such-flag"):
        parse(["train", "--no-such-flag"])


@pytest.mark.parametrize("service", HEADRACE)
def test_services_share_settings_and_data(service: str, settings: Settings) -> None:
    words = HEADRACE[service]["command"]
    config = words[words.index("--config") + 1]
    assert (DEPLOY / mounts(service)[config]).read_text() == (
        DEPLOY / "config" / "compose.toml"
    ).read_text()
    assert mounts(service)[settings.data.dir] == "data"


def test_volumes_are_declared_and_files_are_there() -> None:
    named = set()
    for service in SERVICES:
        for what in mounts(service).values():
            if what.startswith("."):
                assert (DEPLOY / what).exists(), what
            else:
                named.add(what)
    assert named == set(yaml.safe_load(COMPOSE.read_text())["volumes"])


def test_ports_are_those_that_processes_listen_on(settings: Settings) -> None:
    for server in SERVERS:
        assert list(published(server)) == [int(settings.server.address.rpartition(":")[2])]
    assert list(published("dashboard")) == [settings.dashboard.port]
    outside = [port for service in SERVICES for port in published(service).values()]
    assert len(outside) == len(set(outside))
    # What is asked from another container must not listen on the loopback address only.
    for host in (settings.metrics.host, settings.dashboard.host, settings.server.address):
        assert host.startswith("0.0.0.0")


def test_health_is_asked_where_it_is_answered(settings: Settings, dockerfile: str) -> None:
    assert "'/readyz'" in dockerfile
    assert f"READY_PORT={settings.metrics.server_port}" in dockerfile
    assert all("healthcheck" not in SERVICES[server] for server in SERVERS)
    assert SERVICES["trainer"]["environment"]["READY_PORT"] == settings.metrics.trainer_port
    assert "healthcheck" not in SERVICES["trainer"]
    (check,) = [word for word in SERVICES["dashboard"]["healthcheck"]["test"] if "http" in word]
    assert f"127.0.0.1:{settings.dashboard.port}/healthz" in check
    page = "".join(path.read_text() for path in (ROOT / "monitoring").rglob("*.py"))
    assert '"/healthz"' in page
    assert '"/readyz"' in page


def test_services_wait_for_what_they_need() -> None:
    waits = {name: one.get("depends_on", {}) for name, one in SERVICES.items()}
    assert waits["topics"]["kafka"]["condition"] == "service_healthy"
    for service in ("trainer", *SERVERS):
        assert waits[service]["topics"]["condition"] == "service_completed_successfully"
    for waiting in waits.values():
        assert set(waiting) <= set(SERVICES)


def test_kafka_is_the_one_that_is_tested(settings: Settings) -> None:
    version = re.search(
        r"<kafka\.version>(.*)</kafka\.version>", (DEPLOY / "kafka" / "pom.xml").read_text()
    )
    assert version
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version[1]}"
    environment = SERVICES["kafka"]["environment"]
    advertised = environment["KAFKA_ADVERTISED_LISTENERS"].removeprefix("PLAINTEXT://")
    assert settings.data.log_url == f"kafka://{advertised}"
    assert environment["KAFKA_LOG_DIRS"] in mounts("kafka")
    assert environment["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


def test_prometheus_reads_every_process(settings: Settings) -> None:
    name = SERVICES["prometheus"]["command"][0].rpartition("/")[2]
    config = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())
    usual = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    targets = {
        job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]
    }
    assert targets == {
        "headrace-trainer": [f"trainer:{settings.metrics.trainer_port}"],
        "headrace-server": [f"{server}:{settings.metrics.server_port}" for server in SERVERS],
    }
    assert config | {"scrape_configs": 0} == usual | {"scrape_configs": 0}


def test_grafana_finds_its_source_and_its_boards() -> None:
    assert SERVICES["grafana"]["network_mode"] == "service:prometheus"
    provisioning = DEPLOY / mounts("grafana")["/etc/grafana/provisioning"]
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())
    url = source["datasources"][0]["url"]
    assert int(url.rpartition(":")[2]) in published("prometheus")
    assert SERVICES["grafana"]["environment"]["HEADRACE_BOARDS"] in mounts("grafana")
    assert list((DEPLOY / mounts("grafana")["/etc/grafana/boards"]).glob("*.json"))


def test_image_holds_every_package_and_runs_as_nobody_special(dockerfile: str) -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    packages = {name.partition(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    copied = {what for what, where in re.findall(r"^COPY (\w+) (\w+)$", dockerfile, re.MULTILINE)}
    assert copied == packages
    kept = set(re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.M))
    assert kept == {*packages, "constraints.txt", "pyproject.toml", "README.md"}
    user = re.search(r"^USER (\w+)$", dockerfile, re.MULTILINE)
    assert user
    assert user[1] not in ("root", "0")
    assert 'ENTRYPOINT ["headrace"]' in dockerfile
    assert project["project"]["scripts"]["headrace"] == "app.cli:main"


def test_image_keeps_its_data_where_the_settings_say(settings: Settings, dockerfile: str) -> None:
    assert f"VOLUME {settings.data.dir}\n" in dockerfile
    assert f"HEADRACE_DATA__DIR={settings.data.dir} " in dockerfile
