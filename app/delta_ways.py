"""The way of deltas from the trainer to servers: a folder, or a topic of the log's cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from app.settings import Settings
from domain.deltas import DeltaPublisher, DeltaSource
from domain.errors import LogUnavailableError
from snapshot.delta_files import delta_from_bytes, delta_to_bytes
from snapshot.deltas import LocalDeltaStore


@contextmanager
def delta_publisher(settings: Settings) -> Iterator[DeltaPublisher]:
    """Open the trainer's end, as `deltas.via` says."""
    if settings.deltas.via == "folder":
        yield LocalDeltaStore(settings.data.deltas, settings.delta_store)
        return
    # Imported here because the Kafka client takes most of a second.
    from stream.kafka_deltas import KafkaDeltaPublisher

    publisher = KafkaDeltaPublisher(_brokers(settings), settings.kafka, delta_to_bytes)
    with closing(publisher):
        yield publisher


@contextmanager
def delta_source(settings: Settings) -> Iterator[DeltaSource]:
    """Open a server's end, as `deltas.via` says.

    Raises:
        LogError: the topic is missing, or not as it must be. A cluster that does not answer is
            waited for by whoever reads.
    """
    if settings.deltas.via == "folder" or not settings.delta_follower.enabled:
        yield LocalDeltaStore(settings.data.deltas)
        return
    from stream.kafka_delta_source import KafkaDeltaSource

    source = KafkaDeltaSource(_brokers(settings), settings.kafka, delta_from_bytes)
    with closing(source):
        # That nobody answers is said of the log, which lies in the same cluster.
        with suppress(LogUnavailableError):
            source.check_topic()
        yield source


def _brokers(settings: Settings) -> str:
    return settings.data.log_url.partition("://")[2]
