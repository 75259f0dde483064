"""Keeps the past of a running process's metrics: a thread that writes a sample now and then."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from pathlib import Path

from domain.clock import Clock
from domain.errors import RecordsError
from monitoring.metric_history import HistoryConfig, MetricHistory, Series
from monitoring.metrics import Metrics

logger = logging.getLogger(__name__)

_THIN_EVERY_MS = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPlace:
    """Where samples go, and the name of the process that they are kept under."""

    path: Path
    source: str


class HistoryRecorder:
    """Writes everything on the metrics page into the history while it runs.

    What cannot be written is left out, with one line in the log when that begins: a full disk
    must not stop learning. May be used as a context manager, which starts and stops it.
    """

    def __init__(
        self, place: HistoryPlace, config: HistoryConfig, metrics: Metrics, clock: Clock
    ) -> None:
        self._place = place
        self._config = config
        self._metrics = metrics
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metric-history", daemon=True)

    def start(self) -> None:
        """Begin to write; a no-op when no past is to be kept."""
        if self._config.every_s:
            self._thread.start()

    def stop(self) -> None:
        """Write a last sample and end; may be called twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> HistoryRecorder:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        history: MetricHistory | None = None
        is_well, thinned_ms = True, 0
        while True:
            is_last = self._stopping.is_set()
            now_ms = self._clock.now_ms()
            try:
                if history is None:
                    history = self._begin(now_ms)
                history.write(self._place.source, now_ms, sample_of(self._metrics))
                if is_last:
                    history.end(self._place.source, now_ms)
                elif now_ms - thinned_ms >= _THIN_EVERY_MS:
                    thinned_ms = now_ms
                    history.thin(now_ms)
                is_well = True
            except RecordsError as error:
                if is_well:
                    logger.warning("metrics are not recorded", extra={"error": str(error)})
                is_well = False
            if is_last:
                break
            self._stopping.wait(self._config.every_s)
        if history is not None:
            history.close()

    def _begin(self, now_ms: int) -> MetricHistory:
        history = MetricHistory(self._place.path, self._config)
        history.begin(self._place.source, now_ms)
        return history


def sample_of(metrics: Metrics) -> dict[Series, float]:
    """Return every finite number on the metrics page by its series."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
        for family in metrics.registry.collect()
        for sample in family.samples
        if math.isfinite(sample.value)
    }
