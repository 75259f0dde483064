"""What every long-running process sets up before it works: log lines, threads, a metrics page."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Literal

from app.deployment import MetricsConfig
from app.settings import Settings
from domain.clock import Clock
from domain.errors import ConfigError
from monitoring.exporter import Exporter, ExporterConfig, Readiness
from monitoring.history_recorder import HistoryPlace, HistoryRecorder
from monitoring.log_setup import set_up_logging
from monitoring.metrics import Metrics

VERSION = version("headrace")

# While a broker is away these report every try, ten lines a second, as errors; whoever uses the log
# gets the error and says it once.
_REPEATS_ITSELF = ("kafka.net", "kafka.cluster", "kafka.coordinator", "kafka.consumer.fetcher")


def set_up_process(settings: Settings, metrics: Metrics, process: str) -> None:
    """Log to standard error, count errors, and say what runs here."""
    set_up_logging(settings.log, metrics)
    if settings.log.level != "debug":
        for name in _REPEATS_ITSELF:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    metrics.app.info.labels(process=process, version=VERSION).set(1)


def metric_history(
    settings: Settings, source: str, metrics: Metrics, clock: Clock
) -> HistoryRecorder:
    """Return what keeps the past of the metrics, for curves, while it is entered."""
    place = HistoryPlace(path=settings.data.history, source=source)
    return HistoryRecorder(place, settings.history, metrics, clock)


@contextmanager
def metrics_page(
    config: MetricsConfig,
    process: Literal["trainer", "server"],
    metrics: Metrics,
    readiness: Readiness = lambda: "",
) -> Iterator[None]:
    """Serve /metrics, /healthz and /readyz while the block runs; port 0 serves nothing.

    Raises:
        ConfigError: the address is taken or is none of ours.
    """
    port = {"trainer": config.trainer_port, "server": config.server_port}[process]
    if port == 0:
        yield
        return
    exporter = Exporter(ExporterConfig(host=config.host, port=port), metrics, readiness)
    try:
        exporter.start()
    except ConfigError as error:
        reason = str(error).partition(": ")[2]
        raise ConfigError(f"metrics.{process}_port: {reason}") from error
    try:
        yield
    finally:
        exporter.stop()
