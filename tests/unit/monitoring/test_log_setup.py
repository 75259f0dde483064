"""Log lines: one per record, fields readable by people and machines, nothing set up twice."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from domain.errors import ConfigError
from monitoring.log_setup import LogConfig, TextFormatter, set_up_logging
from monitoring.metrics import Metrics

logger = logging.getLogger("stream.checkpoint")


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """A stream to log to; the logging of the test run is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for name in LogConfig().quiet:
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_text_line_has_event_and_fields_in_order(out: io.StringIO) -> None:
    set_up_logging(LogConfig(), stream=out)
    logger.info("snapshot %s", "published", extra={"snapshot_id": "s-42", "seconds": 0.25})
    time, rest = out.getvalue().split(" ", 1)
    assert time.startswith("time=20")
    assert time.endswith("Z")
    assert rest == (
        'level=info logger=stream.checkpoint event="snapshot published" '
        "snapshot_id=s-42 seconds=0.25\n"
    )


def test_text_values_are_quoted_when_they_would_break_the_line() -> None:
    record = logging.makeLogRecord(
        {
            "name": "a",
            "msg": "two\nlines",
            "tricky": 'x="1"',
            "empty": "",
            "wide": "é ü",
            "none": None,
        }
    )
    line = TextFormatter().format(record)
    assert line.splitlines() == [line]
    assert 'event="two\\nlines" tricky="x=\\"1\\"" empty="" wide="é ü" none=None' in line


def test_text_line_stays_one_line_when_a_value_has_exotic_line_breaks() -> None:
    line = TextFormatter().format(logging.makeLogRecord({"name": "a", "msg": "a\u2028b\x85c\x0bd"}))
    assert line.splitlines() == [line]


def test_json_line_keeps_numbers_as_numbers_and_writes_the_rest_as_text(out: io.StringIO) -> None:
    set_up_logging(LogConfig(format="json"), stream=out)
    logger.warning(
        "odd",
        extra={
            "count": np.int64(3),
            "loss": float("nan"),
            "rate": np.float32(0.5),
            "items": ["a", "b"],
            "done": True,
        },
    )
    fields = json.loads(out.getvalue())
    assert fields.pop("time").endswith("Z")
    assert fields == {
        "level": "warning",
        "logger": "stream.checkpoint",
        "event": "odd",
        "count": 3,
        "loss": "nan",
        "rate": 0.5,
        "items": "['a', 'b']",
        "done": True,
    }


def test_field_named_like_ours_does_not_hide_it() -> None:
    record = logging.makeLogRecord({"name": "a", "msg": "tick", "time": "noon", "event": "e-1"})
    line = TextFormatter().format(record)
    assert "event=tick" in line
    assert "time_=noon event_=e-1" in line


@pytest.mark.parametrize("format_", ["text", "json"])
def test_traceback_is_a_field_of_the_same_line(format_: str, out: io.StringIO) -> None:
    set_up_logging(LogConfig(format=format_), stream=out)  # type: ignore[arg-type]
    try:
        raise KeyError("lost")
    except KeyError:
        logger.exception("failed")
    [line] = out.getvalue().splitlines()
    assert "KeyError: 'lost'" in line
    assert "test_log_setup.py" in line


def test_nothing_is_written_twice_when_set_up_twice(out: io.StringIO) -> None:
    set_up_logging(LogConfig(), Metrics(), stream=out)
    handlers = len(logging.getLogger().handlers)
    for _ in range(3):
        set_up_logging(LogConfig(), Metrics(), stream=out)
    logger.error("once")
    assert out.getvalue().count("event=once") == 1
    assert len(logging.getLogger().handlers) == handlers


def test_level_decides_what_is_written_and_libraries_stay_quiet(out: io.StringIO) -> None:
    set_up_logging(LogConfig(level="debug"), stream=out)
    logger.debug("ours")
    logging.getLogger("kafka.conn").warning("chatter")
    logging.getLogger("kafka.conn").error("trouble")
    set_up_logging(LogConfig(level="error"), stream=out)
    logger.warning("too low")
    events = [line.split("event=")[1] for line in out.getvalue().splitlines()]
    assert events == ["ours", "trouble"]


def test_python_warnings_become_records(out: io.StringIO) -> None:
    set_up_logging(LogConfig(), stream=out)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old option", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    [line] = out.getvalue().splitlines()
    assert "level=warning logger=py.warnings" in line
    assert "DeprecationWarning: old option" in line


@pytest.mark.parametrize("level", ["info", "critical"])
def test_errors_are_counted_whatever_level_is_written(level: str, out: io.StringIO) -> None:
    metrics = Metrics()
    set_up_logging(LogConfig(level=level), metrics, stream=out)
    logger.warning("not yet")
    logger.error("now")
    value = metrics.registry.get_sample_value
    assert value("headrace_monitoring_logged_errors_total") == 1.0
    assert value("headrace_monitoring_last_error_time_seconds") > 1.7e9  # type: ignore[operator]


@pytest.mark.parametrize("bad", [{"level": "INFO"}, {"format": "xml"}])
def test_config_names_the_key_and_what_is_allowed(bad: dict[str, str]) -> None:
    key, value = next(iter(bad.items()))
    with pytest.raises(ConfigError, match=rf"^log\.{key} must be .*, got '{value}'$"):
        LogConfig(**bad)  # type: ignore[arg-type]
