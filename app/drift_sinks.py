"""Where a trainer's drift signals go: its file of records, and a web hook when there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from app.settings import Settings
from monitoring.drift_sinks import DriftSink, StoreSink
from monitoring.metrics import Metrics
from monitoring.signal_store import FILE_NAME, SignalStore
from monitoring.webhook import Webhook


@contextmanager
def drift_sinks(settings: Settings, metrics: Metrics) -> Iterator[Sequence[DriftSink]]:
    """Open what drift signals are written to; close it, and send what waits, at the end.

    Raises:
        ConfigError: the file in the data folder is none of ours.
    """
    settings.data.path.mkdir(parents=True, exist_ok=True)
    store = SignalStore(settings.data.path / FILE_NAME, settings.drift.store)
    sinks: list[DriftSink] = [StoreSink(store)]
    webhook = Webhook(settings.drift.webhook, metrics) if settings.drift.webhook.url else None
    if webhook is not None:
        sinks.append(webhook)
    try:
        yield sinks
    finally:
        if webhook is not None:
            webhook.close()
        store.close()
