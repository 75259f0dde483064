"""`headrace topics`: the topics of a Kafka log."""

from __future__ import annotations

from typing import Annotated

import typer

from app.options import ConfigOption, LogOption, SetOption, settings_from

app = typer.Typer(help="Make and check the topics of a Kafka log.", no_args_is_help=True)


@app.callback()
def topics() -> None:
    """Make and check the topics of a Kafka log."""


@app.command("create")
def create(
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    partitions: Annotated[
        int | None,
        typer.Option(
            "--partitions",
            min=1,
            help="Of events and items (kafka.num_partitions).",
            metavar="N",
        ),
    ] = None,
    replication: Annotated[
        int | None,
        typer.Option(
            "--replication",
            min=1,
            help="Copies of each partition (kafka.replication_factor).",
            metavar="N",
        ),
    ] = None,
) -> None:
    """Create the topics for events, items and dead letters; existing ones are left alone.

    With deltas.via = "kafka" also the topic for deltas. Where an existing one is not as it must be,
    says so and ends with status 1.

    Examples:
    - `headrace topics create --log kafka://localhost:9092`
    - `headrace topics create --log kafka://a:9092 --partitions 12 --replication 3`
    """
    from app.kafka_topics import create_topics

    settings = settings_from(config, set_, log=log)
    if not create_topics(settings, partitions=partitions, replication=replication):
        raise typer.Exit(1)


@app.command("check")
def check(log: LogOption = None, config: ConfigOption = None, set_: SetOption = None) -> None:
    """Show the topics, and what is wrong with them; the exit status is 1 when something is.

    Trainer and server check the same when they start.

    Examples:
    - `headrace topics check --log kafka://localhost:9092`
    """
    from app.kafka_topics import check_topics

    if not check_topics(settings_from(config, set_, log=log)):
        raise typer.Exit(1)
