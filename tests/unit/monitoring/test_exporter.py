"""The HTTP page: what it answers, when it is not ready, and how it starts and stops."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator

import pytest

from domain.errors import ConfigError
from monitoring.exporter import Exporter, ExporterConfig
from monitoring.metrics import Metrics

ANY_PORT = ExporterConfig(port=0)


class Process:
    """A process that is or is not ready, with its page."""

    def __init__(self) -> None:
        self.reason = ""
        self.metrics = Metrics()
        self.exporter = Exporter(ANY_PORT, self.metrics, self.readiness)

    def readiness(self) -> str:
        return self.reason

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.exporter.port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    with process.exporter:
        yield process


def test_metrics_page_shows_what_was_counted(process: Process) -> None:
    process.metrics.stream.late_events.inc(3)
    status, page = process.get("/metrics")
    assert status == 200
    assert "headrace_stream_late_events_total 3.0" in page.splitlines()
    assert process.get("/metrics?name=x")[0] == 200


def test_readiness_says_why_not_until_it_is(process: Process) -> None:
    process.reason = "no snapshot is live yet"
    assert process.get("/readyz") == (503, "no snapshot is live yet\n")
    assert process.get("/healthz") == (200, "alive\n")  # not ready is no reason to be killed
    process.reason = ""
    assert process.get("/readyz") == (200, "ready\n")


def test_index_names_the_pages_and_anything_else_is_not_found(process: Process) -> None:
    status, index = process.get("/")
    assert status == 200
    for path in ("/metrics", "/healthz", "/readyz"):
        assert path in index
        assert process.get(path)[0] == 200
    assert process.get("/passwords")[0] == 404


def test_readiness_that_fails_drops_the_request_and_the_page_lives_on(
    process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> str:
        raise RuntimeError("our mistake")

    exporter = Exporter(ANY_PORT, process.metrics, broken)
    with exporter:
        monkeypatch.setattr(process, "exporter", exporter)
        with pytest.raises(http.client.HTTPException):
            process.get("/readyz")
        assert process.get("/healthz") == (200, "alive\n")
    assert "our mistake" in caplog.text


def test_start_names_the_address_when_the_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        exporter = Exporter(ExporterConfig(port=port), Metrics(), lambda: "")
        with pytest.raises(ConfigError) as caught:
            exporter.start()
    assert str(caught.value).startswith(f"exporter.port: cannot listen on 127.0.0.1:{port}: ")
    assert "\n" not in str(caught.value)
    exporter.stop()  # nothing was started: nothing to stop


def test_stop_ends_the_thread_and_frees_the_port() -> None:
    before = threading.active_count()
    exporter = Exporter(ANY_PORT, Metrics(), lambda: "")
    port = exporter.start()
    assert exporter.port == port > 0
    exporter.stop()
    exporter.stop()
    assert exporter.port == 0
    assert threading.active_count() == before
    again = Exporter(ExporterConfig(port=port), Metrics(), lambda: "")
    assert again.start() == port
    again.stop()


@pytest.mark.parametrize("bad", [{"port": -1}, {"port": 65_536}, {"host": ""}])
def test_config_names_the_key_when_a_value_is_out_of_range(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=rf"^exporter\.{next(iter(bad))} "):
        ExporterConfig(**bad)  # type: ignore[arg-type]
