"""What is looked at every few seconds: memory, metrics pages, and what the senders report."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

Page = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]
"""Value by name and labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Who is watched.

    Attributes:
        pids: process ids by name; "trainer" and "server" among them.
        pages: addresses of metrics pages by name.
        reports: files of the senders by way.
    """

    pids: Mapping[str, int]
    pages: Mapping[str, str]
    reports: Mapping[str, Path]


@dataclass(slots=True)
class Sampler:
    """Takes samples; rates are since the sample before."""

    watched: Watched
    began_s: float = field(default_factory=time.monotonic)
    _before: dict[str, tuple[float, float]] = field(default_factory=dict)

    def sample(self) -> dict[str, Any]:
        """Look at everything once."""
        now_s = time.monotonic()
        pages = {name: _page(address) for name, address in self.watched.pages.items()}
        trainer, server = pages["trainer"], pages["server"]
        reports = {way: _last_line(path) for way, path in self.watched.reports.items()}
        lag = {
            dict(labels)["partition"]: value
            for (name, labels), value in trainer.items()
            if name == "headrace_stream_consumer_lag_records"
        }
        sent = sum(report.get("counts", {}).get("sent", 0) for report in reports.values())
        return {
            "t_s": round(now_s - self.began_s, 2),
            "rss_mb": {name: _rss_mb(pid) for name, pid in self.watched.pids.items()},
            "lag": lag,
            "queue_events": _sum(trainer, "headrace_stream_queue_events"),
            "snapshot_age_s": _sum(trainer, "headrace_snapshot_age_seconds"),
            "steps": _sum(trainer, "headrace_stream_steps_total"),
            "events_per_s": self._rate("events", now_s, _sum(trainer, _EVENTS)),
            "sent_per_s": self._rate("sent", now_s, float(sent)),
            "behind_s": max(report.get("behind_s", 0.0) for report in reports.values()),
            "p50_ms": reports["grpc"].get("p50_ms"),
            "p99_ms": reports["grpc"].get("p99_ms"),
            "cpu_s": {
                name: _sum(page, "process_cpu_seconds_total") for name, page in pages.items()
            },
            "errors": _errors(trainer, server, reports),
        }

    def _rate(self, what: str, now_s: float, total: float) -> float:
        before_s, before = self._before.get(what, (self.began_s, 0.0))
        self._before[what] = (now_s, total)
        return round((total - before) / max(now_s - before_s, 1e-3), 1)


_EVENTS = "headrace_stream_events_total"
_MUST_BE_ZERO = (
    "headrace_stream_dead_letters_total",
    "headrace_stream_log_failures_total",
    "headrace_stream_duplicates_total",
    "headrace_stream_quarantined_examples_total",
    "headrace_snapshot_publish_failures_total",
    "headrace_serving_snapshot_refused_total",
    "headrace_serving_impression_log_failures_total",
    "headrace_serving_refused_total",
    "headrace_monitoring_logged_errors_total",
)


def _errors(
    trainer: Page, server: Page, reports: Mapping[str, Mapping[str, Any]]
) -> dict[str, float]:
    """Return everything that should not have happened, with how often it has."""
    found: dict[str, float] = {}
    for process, page in (("trainer", trainer), ("server", server)):
        for name in _MUST_BE_ZERO:
            if number := _sum(page, name):
                found[f"{process} {name}"] = number
    for (name, labels), value in server.items():
        code = dict(labels).get("code", "OK")
        if name == "headrace_serving_requests_total" and code != "OK" and value:
            found[f"server {dict(labels)['method']} {code}"] = value
    for report in reports.values():
        counts = report.get("counts", {})
        found |= {name: number for name, number in counts.items() if name.startswith("error")}
    return found


def _page(address: str) -> Page:
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _sum(page: Page, name: str) -> float:
    return sum(value for (found, _), value in page.items() if found == name)


def _rss_mb(pid: int) -> float:
    return round(psutil.Process(pid).memory_info().rss / 2**20, 1)


def _last_line(path: Path) -> dict[str, Any]:
    lines = path.read_text().splitlines() if path.exists() else []
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return found
