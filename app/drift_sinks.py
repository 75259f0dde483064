"""Where a trainer's drift signals and reactions go: its file of records, perhaps a web hook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app.settings import Settings
from monitoring.drift_sinks import DriftSink, StoreSink
from monitoring.metrics import Metrics
from monitoring.reaction_store import ReactionStore
from monitoring.reactions import ReactionSink
from monitoring.signal_store import FILE_NAME, SignalStore
from monitoring.webhook import Webhook


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSinks:
    """Who hears of signals, and who of what was done about them."""

    signals: Sequence[DriftSink]
    reactions: Sequence[ReactionSink]


@contextmanager
def drift_sinks(settings: Settings, metrics: Metrics) -> Iterator[DriftSinks]:
    """Open what is written to about drift; close it, and send what waits, at the end.

    Raises:
        ConfigError: the file in the data folder is none of ours.
    """
    settings.data.path.mkdir(parents=True, exist_ok=True)
    store = SignalStore(settings.data.path / FILE_NAME, settings.drift.store)
    sinks: list[DriftSink] = [StoreSink(store)]
    webhook = Webhook(settings.drift.webhook, metrics) if settings.drift.webhook.url else None
    if webhook is not None:
        sinks.append(webhook)
    reactions = ReactionStore(settings.data.path / FILE_NAME)
    try:
        yield DriftSinks(signals=sinks, reactions=(reactions,))
    finally:
        if webhook is not None:
            webhook.close()
        reactions.close()
        store.close()
