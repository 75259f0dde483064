"""What every long-running process sets up before it works: log lines, threads, a metrics page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from app.settings import Settings
from monitoring.exporter import Exporter, ExporterConfig, Readiness
from monitoring.log_setup import set_up_logging
from monitoring.metrics import Metrics

VERSION = version("headrace")


def set_up_process(settings: Settings, metrics: Metrics, process: str) -> None:
    """Log to standard error, count errors, and say what runs here."""
    set_up_logging(settings.log, metrics)
    metrics.app.info.labels(process=process, version=VERSION).set(1)


@contextmanager
def metrics_page(
    host: str, port: int, metrics: Metrics, readiness: Readiness = lambda: ""
) -> Iterator[None]:
    """Serve /metrics, /healthz and /readyz while the block runs; port 0 serves nothing."""
    if port == 0:
        yield
        return
    with Exporter(ExporterConfig(host=host, port=port), metrics, readiness):
        yield
