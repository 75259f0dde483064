"""The web hook, against a real HTTP server: Alertmanager's JSON, retries, bounds, no waiting."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from domain.errors import ConfigError
from monitoring.drift_signal import DriftSignal
from monitoring.metrics import Metrics
from monitoring.webhook import Webhook, WebhookConfig, alertmanager_message


def signal(stream: str = "loss/online/click", **other: Any) -> DriftSignal:
    given: dict[str, Any] = {
        "kind": "concept", "detector": "adwin", "time_ms": 1_767_268_800_500, "since_ms": 1_000,
        "before": 0.5, "after": 0.75, "deviations": 7.0, "points_before": 50, "points_after": 9,
        "contributors": (("item.category", 0.9),),
    } | other  # fmt: skip
    return DriftSignal(stream=stream, **given)


class Server:
    """Takes messages; answers 503 as often as told to."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.refuse = 0
        self.asked = 0
        self.arrived = threading.Condition()
        self.open = threading.Event()
        self.open.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.open.wait(10)
                with outer.arrived:
                    outer.asked += 1
                    refused = outer.refuse > 0
                    outer.refuse -= refused
                    if not refused:
                        assert self.headers["Content-Type"] == "application/json"
                        outer.messages.append(json.loads(body))
                    outer.arrived.notify_all()
                self.send_response(503 if refused else 200)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/hook"

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.messages) >= count, 20)
            return list(self.messages)

    def close(self) -> None:
        self.open.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def failures(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("headrace_monitoring_webhook_failures_total")


def test_signal_and_its_end_arrive_in_order_as_alertmanager_would_send_them(server: Server) -> None:
    hook = Webhook(WebhookConfig(url=server.url), Metrics())
    hook.write_signals([signal()])
    hook.write_signals([signal(ended_ms=1_767_268_900_000)])
    firing, resolved = server.wait_for(2)
    hook.close()
    assert firing["version"] == "4"
    assert (firing["status"], resolved["status"]) == ("firing", "resolved")
    [alert] = firing["alerts"]
    assert alert["labels"] == {
        "alertname": "HeadraceDrift", "stream": "loss/online/click", "kind": "concept",
        "detector": "adwin", "severity": "large",
    }  # fmt: skip
    assert firing["commonLabels"] == alert["labels"]
    assert alert["annotations"]["summary"] == signal().describe()
    assert alert["annotations"]["contributors"] == "item.category 90%"
    assert alert["startsAt"] == "2026-01-01T12:00:00.500Z"
    assert alert["endsAt"] == "0001-01-01T00:00:00Z"
    [over] = resolved["alerts"]
    assert over["endsAt"] == "2026-01-01T12:01:40.000Z"
    assert over["fingerprint"] == alert["fingerprint"]


def test_message_of_several_says_what_they_have_in_common() -> None:
    message = alertmanager_message([signal(), signal("label_rate/click", ended_ms=9, kind="label")])
    assert message["status"] == "firing"
    assert message["commonLabels"] == {
        "alertname": "HeadraceDrift", "detector": "adwin", "severity": "large",
    }  # fmt: skip
    assert set(message) == {
        "version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels",
        "commonLabels", "commonAnnotations", "externalURL", "alerts",
    }  # fmt: skip


def test_refused_message_is_tried_again(server: Server) -> None:
    server.refuse = 2
    metrics = Metrics()
    hook = Webhook(WebhookConfig(url=server.url, retry_s=0.01), metrics)
    hook.write_signals([signal()])
    assert len(server.wait_for(1)) == 1
    hook.close()
    assert server.asked == 3
    assert failures(metrics) == 0.0


def test_message_is_given_up_after_the_last_attempt_and_the_next_is_sent(server: Server) -> None:
    server.refuse = 2
    metrics = Metrics()
    hook = Webhook(WebhookConfig(url=server.url, retry_s=0.01, attempts=2), metrics)
    hook.write_signals([signal("a")])
    hook.write_signals([signal("b")])
    [message] = server.wait_for(1)
    hook.close()
    assert message["alerts"][0]["labels"]["stream"] == "b"
    assert failures(metrics) == 1.0


def test_writer_never_waits_and_the_queue_is_bounded(server: Server) -> None:
    server.open.clear()  # it takes messages and does not answer
    metrics = Metrics()
    hook = Webhook(WebhookConfig(url=server.url, max_waiting=3), metrics)
    for number in range(50):
        hook.write_signals([signal(f"s{number}")])
    lost = failures(metrics) or 0.0
    assert lost >= 46.0  # three wait, one may be on its way
    server.open.set()
    told = server.wait_for(50 - int(lost))
    hook.close()
    assert told[-1]["alerts"][0]["labels"]["stream"] == "s49"


def test_nobody_listening_costs_a_failure_and_nothing_else() -> None:
    metrics = Metrics()
    hook = Webhook(WebhookConfig(url="http://127.0.0.1:9/", attempts=1, timeout_s=1.0), metrics)
    hook.write_signals([signal()])
    hook.close()
    assert failures(metrics) == 1.0


@pytest.mark.parametrize(
    ("bad", "key"),
    [
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://"}, "url"),
        ({"attempts": 0}, "attempts"),
        ({"timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_config_names_the_key_when_a_value_is_out_of_range(bad: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^drift\.webhook\.{key} "):
        WebhookConfig(**bad)
