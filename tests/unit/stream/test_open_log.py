"""Which URL opens which log."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.errors import ConfigError, LogError
from domain.events import UserUpdate
from stream.file_log import FileLog, write_event_file
from stream.open_log import open_log
from stream.sqlite_log import SqliteLog
from tests.kafka_broker import KafkaLog

EVENT = UserUpdate(event_id="e", time_ms=1, user_id="u")


def test_sqlite_url_opens_the_embedded_log(tmp_path: Path) -> None:
    for url in (f"sqlite://{tmp_path}/a%20b.sqlite", f"sqlite:///{tmp_path}/a b.sqlite"):
        log = open_log(url)
        assert isinstance(log, SqliteLog)
        log.append([EVENT])
        log.close()
    assert (tmp_path / "a b.sqlite").is_file()


def test_path_after_a_dot_is_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_log("sqlite:///./data/log.sqlite").close()
    assert (tmp_path / "data" / "log.sqlite").is_file()


def test_file_url_opens_a_recorded_log(tmp_path: Path) -> None:
    write_event_file(tmp_path / "e.jsonl", [EVENT])
    for path in (tmp_path / "e.jsonl", tmp_path):
        log = open_log(path.as_uri())
        assert isinstance(log, FileLog)
        assert log.end_positions() == {"file/0": 1}
        log.close()
    with pytest.raises(LogError, match="no such file"):
        open_log(f"file://{tmp_path}/missing.jsonl")


@pytest.mark.parametrize(
    "url", ["kafka://localhost:9092", "kafka://a.example:9092,b-2:9093", "kafka://[::1]:9092"]
)
def test_kafka_url_opens_a_kafka_log_without_connecting(url: str) -> None:
    log = open_log(url)
    assert isinstance(log, KafkaLog)
    log.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite",
        "sqlite:log.sqlite",
        "sqlite://log.sqlite",
        "file://events.jsonl",
        "/tmp/log.sqlite",
        "kafka://",
        "kafka://host",
        "kafka://host:9092/topic",
        "kafka://host:9092,",
        "mysql://host:3306",
    ],
)
def test_other_urls_are_refused_with_the_three_forms(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_log(url)
    message = str(caught.value)
    assert message.startswith("data.log: expected sqlite:///path, kafka://host:port[,host:port] or")
    assert repr(url) in message
