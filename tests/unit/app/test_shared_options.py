"""Flags that several commands share become settings as they are, whatever is in a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.options import settings_from
from domain.errors import ConfigError
from domain.events import UserUpdate
from stream.open_log import open_log

PLACES = [
    "plain",
    "with space",
    "a=b",
    "--x=y",
    "it's",
    'say "so"',
    "'2024'",
    "100%",
    "%41",
    "back\\slash",
    "umläut",
    "# no comment",
    "[1, 2]",
]


@pytest.mark.parametrize("name", PLACES)
def test_data_dir_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    data = settings_from(None, None, data_dir=tmp_path / name).data
    assert data.path == tmp_path / name
    assert data.snapshots == tmp_path / name / "snapshots"
    assert data.process_logs == tmp_path / name / "logs"


@pytest.mark.parametrize("name", PLACES)
def test_embedded_log_lies_in_the_data_dir(name: str, tmp_path: Path) -> None:
    data = settings_from(None, None, data_dir=tmp_path / name).data
    data.path.mkdir()
    log = open_log(data.log_url)
    log.append([UserUpdate(event_id="e", time_ms=1, user_id="ann")])
    log.close()
    assert data.embedded_log == tmp_path / name / "events.sqlite"
    assert data.embedded_log.exists()


def test_data_dir_may_be_a_number_or_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_from(None, None, data_dir=Path("2024")).data.path == Path("2024").absolute()
    monkeypatch.setenv("HOME", "/somewhere")
    assert settings_from(None, None, data_dir=Path("~/data")).data.path == Path("/somewhere/data")


def test_log_wins_over_the_embedded_one_and_flags_over_set(tmp_path: Path) -> None:
    settings = settings_from(
        None,
        ["data.log=file:///a.parquet", "data.dir=elsewhere"],
        data_dir=tmp_path,
        log="kafka://host:9092",
    )
    assert settings.data.log_url == "kafka://host:9092"
    assert settings.data.path == tmp_path


@pytest.mark.parametrize("log", ["events.sqlite", "sqlite:events.sqlite", "http://host", "kafka:x"])
def test_log_that_is_no_url_of_ours_is_refused(log: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings_from(None, None, log=log)
    assert str(caught.value) == (
        f"data.log must be sqlite:///PATH, kafka://HOST:PORT or file:///PATH, got {log!r}"
    )
