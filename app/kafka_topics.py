"""What `headrace topics` does."""

from __future__ import annotations

from rich.console import Console

from app.settings import Settings
from domain.errors import ConfigError
from stream.kafka_client import create_topics as create_in_cluster


def create_topics(settings: Settings) -> None:
    """Create the topics of the settings' Kafka log.

    Raises:
        ConfigError: the log is not a Kafka log.
        LogUnavailableError: no broker answers.
    """
    scheme, _, brokers = settings.data.log_url.partition("://")
    if scheme != "kafka":
        raise ConfigError(f"data.log: expected kafka://host:port, got {settings.data.log_url}")
    create_in_cluster(brokers, settings.kafka)
    kafka = settings.kafka
    names = (kafka.events_topic, kafka.items_topic, kafka.dead_letters_topic)
    Console().print(f"These topics are there: {', '.join(names)}")
