"""From a URL to an event log: the only place that knows which implementation is which.

    sqlite:///var/lib/headrace/log.sqlite   the embedded log, in one file
    kafka://host:9092,other:9092            a Kafka cluster, by any of its brokers
    file:///data/events.parquet             a recorded log, read only: a file or a folder

What follows `sqlite://` and `file://` is an absolute path, or begins with `/./` when it is meant
from the working folder: `sqlite:///./headrace-data/log.sqlite`.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from domain.clock import Clock
from domain.errors import ConfigError
from domain.event_log import EventLog
from stream.kafka_settings import KafkaConfig
from stream.sqlite_log import SqliteLog

_BROKER = re.compile(r"[A-Za-z0-9_.-]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5}")


def open_log(url: str, *, clock: Clock | None = None, kafka: KafkaConfig | None = None) -> EventLog:
    """Open the log that a URL names.

    `clock` waits for new records in the embedded and the recorded log; None is the machine's.
    `kafka` gives topics and limits, for `kafka://` only; None is `KafkaConfig()`.

    Raises:
        ConfigError: the URL has none of the three forms.
        LogError: there is something at that place, but not an event log.
    """
    scheme, separator, place = url.partition("://")
    if separator and scheme in ("sqlite", "file") and place.startswith("/"):
        # "/./x" is from the working folder; "//x", from gluing an absolute path on, is "/x".
        path = Path(unquote(place[1:] if place.startswith("/./") else "/" + place.lstrip("/")))
        if scheme == "sqlite":
            return SqliteLog(path, clock=clock)
        # Imported here because pyarrow brings a thread along, which only this log should have.
        from stream.file_log import FileLog

        return FileLog(path, clock=clock)
    if separator and scheme == "kafka" and all(map(_BROKER.fullmatch, place.split(","))):
        # Imported here because it takes most of a second, which only this log should cost.
        from stream.kafka_log import KafkaLog

        return KafkaLog(place, kafka)
    raise ConfigError(
        "data.log: expected sqlite:///path, kafka://host:port[,host:port] or file:///path, "
        f"got {url!r}"
    )
