"""Tells a web hook about drift signals, in the JSON that Alertmanager sends (version 4).

Whatever takes Alertmanager's web hooks takes these: chat, paging, ticket systems. A signal is sent
when it is given ("firing"), when it has grown, and when it has ended ("resolved"). Sending happens
on a thread of its own: the trainer never waits for somebody else's server.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from domain.errors import ConfigError
from monitoring.drift_signal import DriftSignal
from monitoring.field_report import FieldDistribution, FieldWindow
from monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

_NEVER = "0001-01-01T00:00:00Z"
"""How Alertmanager writes that an alert has not ended."""
_LONGEST_RETRY_S = 60.0
_CLOSE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig:
    """Who is told about drift signals.

    Attributes:
        url: http or https address that takes Alertmanager's web hooks; empty tells nobody.
        timeout_s: longest wait for an answer.
        attempts: how often one message is tried.
        retry_s: wait before the second attempt; doubles each time, up to a minute.
        max_waiting: messages that wait to be sent; beyond it the oldest are given up.
    """

    url: str = ""
    timeout_s: float = 5.0
    attempts: int = 6
    retry_s: float = 1.0
    max_waiting: int = 100

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if self.url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ConfigError(
                f"drift.webhook.url must begin with http:// or https://, got {self.url!r}"
            )
        for key in ("timeout_s", "attempts", "retry_s", "max_waiting"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"drift.webhook.{key} must be positive, got {getattr(self, key)}")


class Webhook:
    """Sends signals from a thread, in order, with retries and a bounded queue."""

    def __init__(self, config: WebhookConfig, metrics: Metrics) -> None:
        self._config = config
        self._failures = metrics.monitoring.webhook_failures
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send_all, name="drift-webhook", daemon=True)
        self._thread.start()

    def write_signals(self, signals: Sequence[DriftSignal]) -> None:
        """Have signals sent; returns at once."""
        if not signals:
            return
        with self._changed:
            if len(self._waiting) >= self._config.max_waiting:
                self._waiting.popleft()
                self._failures.inc()
                logger.error("drift web hook: too many messages wait, the oldest was given up")
            self._waiting.append(json.dumps(alertmanager_message(signals)).encode())
            self._changed.notify()

    def write_fields(
        self, windows: Sequence[FieldWindow], distributions: Sequence[FieldDistribution]
    ) -> None:
        """Do nothing: only signals are sent."""

    def close(self) -> None:
        """Try once more to send what waits, for five seconds at most, and stop."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(_CLOSE_S)

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing.is_set())
                if not self._waiting:
                    return
                message = self._waiting.popleft()
            problem = self._send(message)
            if problem:
                self._failures.inc()
                logger.error("drift web hook: given up", extra={"problem": problem})

    def _send(self, message: bytes) -> str:
        """Send one message; return why it could not be sent, empty when it was."""
        retry_s, problem = self._config.retry_s, ""
        for attempt in range(self._config.attempts):
            if attempt and self._closing.wait(retry_s):
                break
            if attempt:
                retry_s = min(2.0 * retry_s, _LONGEST_RETRY_S)
            problem = _post(self._config.url, message, self._config.timeout_s)
            if not problem:
                return ""
        return problem


def _post(url: str, message: bytes, timeout_s: float) -> str:
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked by WebhookConfig
        url, message, {"Content-Type": "application/json", "User-Agent": "headrace"}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            answer.read()
    except (OSError, urllib.error.URLError) as error:
        return str(error)
    return ""


def alertmanager_message(signals: Sequence[DriftSignal]) -> dict[str, Any]:
    """Return signals as one message of Alertmanager's web hook, version 4."""
    alerts = [_alert(signal) for signal in signals]
    firing = any(alert["status"] == "firing" for alert in alerts)
    return {
        "version": "4",
        "groupKey": '{}:{alertname="HeadraceDrift"}',
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "headrace",
        "groupLabels": {"alertname": "HeadraceDrift"},
        "commonLabels": _common([alert["labels"] for alert in alerts]),
        "commonAnnotations": _common([alert["annotations"] for alert in alerts]),
        "externalURL": "",
        "alerts": alerts,
    }


def _alert(signal: DriftSignal) -> dict[str, Any]:
    labels = {
        "alertname": "HeadraceDrift",
        "stream": signal.stream,
        "kind": signal.kind,
        "detector": signal.detector,
        "severity": signal.severity,
    }
    # Not the severity: a signal that grows stays the same alert.
    identity = f"{signal.stream}\n{signal.detector}\n{signal.since_ms}"
    ended = signal.ended_ms
    return {
        "status": "firing" if ended is None else "resolved",
        "labels": labels,
        "annotations": {
            "summary": signal.describe(),
            "since": _rfc3339(signal.since_ms),
            "contributors": ", ".join(f"{name} {part:.0%}" for name, part in signal.contributors),
        },
        "startsAt": _rfc3339(signal.time_ms),
        "endsAt": _NEVER if ended is None else _rfc3339(ended),
        "generatorURL": "",
        "fingerprint": hashlib.sha256(identity.encode()).hexdigest()[:16],
    }


def _common(given: Sequence[dict[str, str]]) -> dict[str, str]:
    first, *others = given
    return {
        key: value
        for key, value in first.items()
        if all(other.get(key) == value for other in others)
    }


def _rfc3339(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms / 1_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
