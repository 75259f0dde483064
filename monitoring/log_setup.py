"""Logging for every process: one line per record on stderr, as `key=value` text or as JSON.

Code logs with the standard library; what happened is the message, facts are fields:

    logger.info("snapshot published", extra={"snapshot_id": snapshot_id, "seconds": 0.21})

becomes

    time=2026-03-01T12:00:00.250Z level=info logger=stream.checkpoint event="snapshot published"
    snapshot_id=s-000042 seconds=0.21

on one line. Units belong in field names. A traceback is the field `traceback`, newlines escaped, so
that a record stays one line whatever it carries.
"""

from __future__ import annotations

import json
import logging
import math
import numbers
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from domain.errors import ConfigError
from monitoring.metrics import Metrics

LEVELS = ("debug", "info", "warning", "error", "critical")

_PLAIN = re.compile(r"[\w.:/@%+,*-]+")
_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else came in through `extra`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How records are written.

    Attributes:
        level: least level written.
        format: "text" for people, "json" for machines.
        quiet: loggers of libraries, of which only errors are written: a Kafka client without a
            broker warns ten times a second.
    """

    level: str = "info"
    format: Literal["text", "json"] = "text"
    quiet: tuple[str, ...] = ("kafka", "numba", "urllib3", "asyncio")

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigError(f"log.level must be among {', '.join(LEVELS)}, got {self.level!r}")
        if self.format not in ("text", "json"):
            raise ConfigError(f"log.format must be text or json, got {self.format!r}")


def set_up_logging(
    config: LogConfig, metrics: Metrics | None = None, stream: TextIO | None = None
) -> None:
    """Send all records and Python warnings to stderr (or `stream`), one line each.

    Called again, it replaces what it set up before; handlers of others stay. With `metrics`, errors
    are counted there too, whatever the level written.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, OURS)]:
        root.removeHandler(handler)
    level = logging.getLevelNamesMapping()[config.level.upper()]
    lines = _LineHandler(stream or sys.stderr)
    lines.setLevel(level)
    lines.setFormatter(TextFormatter() if config.format == "text" else JsonFormatter())
    root.addHandler(lines)
    if metrics is not None:
        root.addHandler(_ErrorCounter(metrics))
    root.setLevel(min(level, logging.ERROR))
    for name in config.quiet:
        logging.getLogger(name).setLevel(max(level, logging.ERROR))
    logging.captureWarnings(True)


class TextFormatter(logging.Formatter):
    """`key=value` pairs; values with spaces or quotes are written as JSON strings."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        return " ".join(f"{key}={_text(value)}" for key, value in record_fields(record).items())


class JsonFormatter(logging.Formatter):
    """One JSON object; whatever is no plain text or number is written as a string."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        plain = {key: _plain(value) for key, value in record_fields(record).items()}
        return json.dumps(plain)


def record_fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a line says: time, level, logger, event, the record's fields, a traceback."""
    time = datetime.fromtimestamp(record.created, UTC)
    fields: dict[str, Any] = {
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": record.getMessage(),
    }
    extra = {key: value for key, value in vars(record).items() if key not in _OWN_ATTRIBUTES}
    # A field named like one of ours must not hide it.
    fields |= {f"{key}_" if key in fields else key: value for key, value in extra.items()}
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        fields["stack"] = record.stack_info
    return fields


class _LineHandler(logging.StreamHandler[TextIO]):
    """Writes lines; a type of our own, so that it can be found again."""


class _ErrorCounter(logging.Handler):
    """Counts errors and remembers when the newest happened."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(logging.ERROR)
        self._metrics = metrics.monitoring

    def emit(self, record: logging.LogRecord) -> None:
        self._metrics.logged_errors.inc()
        self._metrics.last_error_time_seconds.set(record.created)


OURS = (_LineHandler, _ErrorCounter)
"""Handlers that `set_up_logging` adds to the root logger."""


def _text(value: Any) -> str:
    is_fraction = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
    text = f"{float(value):.10g}" if is_fraction else str(value)
    if _PLAIN.fullmatch(text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _plain(value: Any) -> Any:
    """Return a JSON value; what JSON has no form for (NaN, containers, objects) as a string."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    return str(value)
