"""`headrace topics`: the topics of a Kafka log."""

from __future__ import annotations

import typer

from app.options import ConfigOption, LogOption, SetOption, settings_from

app = typer.Typer(help="Make the topics of a Kafka log.", no_args_is_help=True)


@app.callback()
def topics() -> None:
    """Make the topics of a Kafka log."""


@app.command("create")
def create(log: LogOption = None, config: ConfigOption = None, set_: SetOption = None) -> None:
    """Create the topics for events, items and dead letters; existing ones are left alone.

    Counts of partitions and replicas are settings: kafka.num_partitions, kafka.replication_factor.

    Examples:
    - `headrace topics create --log kafka://localhost:9092`
    """
    from app.kafka_topics import create_topics

    create_topics(settings_from(config, set_, log=log))
