"""deploy/kubernetes: what it starts exists, fits together, and names no metric or flag in vain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from app.cli import app
from app.settings import Settings, load_settings
from monitoring.metrics import Metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
RESOURCES = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
OBJECTS: dict[tuple[str, str], dict[str, Any]] = {
    (one["kind"], one["metadata"]["name"]): one
    for name in RESOURCES
    for one in yaml.safe_load_all((FOLDER / name).read_text())
}
TRAINER = OBJECTS["StatefulSet", "headrace-trainer"]["spec"]
SERVER = OBJECTS["Deployment", "headrace-server"]["spec"]
PODS = {"trainer": TRAINER["template"], "server": SERVER["template"]}
MAIN = {name: pod["spec"]["containers"][0] for name, pod in PODS.items()}
EVERY = [
    (name, container)
    for name, pod in PODS.items()
    for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
]
CONFIG = "/etc/headrace/headrace.toml"


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(FOLDER / "headrace.toml")


def port_of(container: dict[str, Any], name: str) -> int:
    (port,) = [one["containerPort"] for one in container["ports"] if one["name"] == name]
    return int(port)


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


def test_files_are_those_that_kustomize_takes_and_one_for_the_adapter() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    others = {"kustomization.yaml", "headrace.toml", "prometheus-adapter.yaml"}
    assert files == {*RESOURCES, *others}
    assert {kind for kind, _ in OBJECTS} == {
        "PersistentVolumeClaim",
        "StatefulSet",
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "HorizontalPodAutoscaler",
    }
    generated = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["configMapGenerator"]
    assert generated == [{"name": "headrace", "files": ["headrace.toml"]}]


@pytest.mark.parametrize(("pod", "container"), EVERY, ids=lambda one: str(one)[:20])
def test_commands_are_those_that_headrace_understands(pod: str, container: dict[str, Any]) -> None:
    assert container["image"] == "headrace"
    parse(container["args"])
    assert container["args"][container["args"].index("--config") + 1] == CONFIG


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment", "Service", "PodDisruptionBudget"])
def test_selectors_find_the_pods(kind: str) -> None:
    labels = {
        name: one["spec"]["template"]["metadata"]["labels"]
        for (_, name), one in OBJECTS.items()
        if "template" in one["spec"]
    }
    found = [(name, one["spec"]["selector"]) for (k, name), one in OBJECTS.items() if k == kind]
    assert found
    for name, selector in found:
        assert selector.get("matchLabels", selector) == labels[name]
    assert labels["headrace-trainer"] != labels["headrace-server"]


def test_ports_are_those_that_processes_listen_on(settings: Settings) -> None:
    assert port_of(MAIN["server"], "grpc") == int(settings.server.address.rpartition(":")[2])
    metrics = {"server": settings.metrics.server_port, "trainer": settings.metrics.trainer_port}
    for name, port in metrics.items():
        assert port_of(MAIN[name], "metrics") == port
        annotations = PODS[name]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(port)
        service = OBJECTS["Service", f"headrace-{name}"]["spec"]
        for one in service["ports"]:
            assert one["port"] == port_of(MAIN[name], one["targetPort"])
    for host in (settings.metrics.host, settings.server.address):
        assert host.startswith("0.0.0.0")


def test_probes_ask_pages_that_there_are() -> None:
    pages = (ROOT / "monitoring" / "exporter.py").read_text()
    for container in MAIN.values():
        for probe, one in container.items():
            if probe.endswith("Probe"):
                assert f'"{one["httpGet"]["path"]}"' in pages
                assert port_of(container, one["httpGet"]["port"])
    ready, live = MAIN["server"]["readinessProbe"], MAIN["server"]["livenessProbe"]
    assert ready["httpGet"]["path"] == "/readyz"
    # A server without a snapshot is not ready; restarting it would not bring one.
    assert live["httpGet"]["path"] == "/healthz"


def test_servers_are_closed_to_strangers(settings: Settings) -> None:
    settings.server.check_exposure()
    assert not settings.server.insecure
    mounts = {one["mountPath"]: one["name"] for one in MAIN["server"]["volumeMounts"]}
    volumes = {one["name"]: one for one in PODS["server"]["spec"]["volumes"]}
    tls, access = settings.server.tls, settings.server.access
    for file in (tls.certificate, tls.key, access.tokens):
        volume = volumes[mounts[str(Path(file).parent)]]
        assert volume["secret"]["secretName"].startswith("headrace-")
    # A Secret of type kubernetes.io/tls has these two.
    assert [Path(file).name for file in (tls.certificate, tls.key)] == ["tls.crt", "tls.key"]


def test_mounts_and_volumes_belong_together(settings: Settings) -> None:
    for name, container in EVERY:
        volumes = {one["name"] for one in PODS[name]["spec"]["volumes"]}
        mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
        assert set(mounts.values()) <= volumes
        assert mounts[settings.data.dir] == "data"
        assert mounts[CONFIG] == "config"
    claim = OBJECTS["PersistentVolumeClaim", "headrace-data"]["spec"]
    assert claim["accessModes"] == ["ReadWriteMany"]  # several servers beside the trainer


def test_there_is_one_trainer_and_never_no_server() -> None:
    assert TRAINER["replicas"] == 1
    assert "replicas" not in SERVER, "applying the file would undo the autoscaler"
    assert SERVER["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    scaler = OBJECTS["HorizontalPodAutoscaler", "headrace-server"]["spec"]
    budget = OBJECTS["PodDisruptionBudget", "headrace-server"]["spec"]
    assert scaler["minReplicas"] > budget["maxUnavailable"]
    target = scaler["scaleTargetRef"]
    assert (target["kind"], target["name"]) in OBJECTS


def test_pods_are_given_time_to_end_in_order(settings: Settings) -> None:
    server = settings.server
    assert server.drain_s > 2 * MAIN["server"]["readinessProbe"]["periodSeconds"] - 1
    given = PODS["server"]["spec"]["terminationGracePeriodSeconds"]
    longest_append_s = settings.kafka.append_timeout_ms / 1_000
    assert given > server.drain_s + server.grace_s + longest_append_s + 10
    assert PODS["trainer"]["spec"]["terminationGracePeriodSeconds"] >= 60


def test_containers_may_do_no_more_than_they_need() -> None:
    for name, container in EVERY:
        pod = PODS[name]["spec"]["securityContext"]
        assert pod["runAsNonRoot"]
        assert f"--uid {pod['runAsUser']} " in (ROOT / "deploy" / "Dockerfile").read_text()
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        # Kubernetes would describe the service "headrace-server" as HEADRACE_SERVER_PORT.
        assert PODS[name]["spec"]["enableServiceLinks"] is False


def test_autoscaling_looks_at_metrics_that_servers_have() -> None:
    scaler = OBJECTS["HorizontalPodAutoscaler", "headrace-server"]["spec"]
    (rule,) = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())["rules"]
    (metric,) = [one["pods"]["metric"]["name"] for one in scaler["metrics"]]
    assert metric == rule["name"]["as"]
    shown = {
        f"{one.name}{ending}"
        for one in Metrics().instruments
        for ending in (("_sum", "_count", "_bucket") if one.kind == "histogram" else ("",))
    }
    used = set(re.findall(r"headrace_\w+", rule["metricsQuery"] + rule["seriesQuery"]))
    assert used <= shown
    assert "headrace_serving_queue_seconds_sum" in used
