"""The past of the metrics: what is kept, at which step, and what a reader gets of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from domain.clock import ManualClock
from domain.errors import ConfigError, RecordsError
from monitoring.history_recorder import HistoryPlace, HistoryRecorder, sample_of
from monitoring.metric_history import (
    HistoryConfig,
    HistoryReader,
    MetricHistory,
    Series,
)
from monitoring.metrics import Metrics

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
A: Series = ("a", ())
CLICK: Series = ("rate", (("head", "click"),))
LIKE: Series = ("rate", (("head", "like"),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def history(path: Path, **config: float) -> MetricHistory:
    return MetricHistory(path, HistoryConfig(**config))


def test_what_was_written_is_read_back_and_gaps_are_nan(path: Path) -> None:
    writer = history(path)
    writer.begin("trainer", 1_000)
    writer.write("trainer", 1_000, {A: 1.0, CLICK: 0.5})
    writer.write("trainer", 6_000, {A: 2.0, CLICK: 0.25, LIKE: 0.125})
    writer.write("trainer", 11_000, {A: 3.0})
    writer.write("server x:1", 6_000, {A: 99.0})

    frame = HistoryReader(path).frame("trainer", 0, 20_000)
    assert frame.times_ms.tolist() == [1_000, 6_000, 11_000]
    assert frame.columns[A].tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(frame.columns[LIKE], [np.nan, 0.125, np.nan])
    np.testing.assert_array_equal(frame.get("rate"), [0.5, 0.375, np.nan])
    np.testing.assert_array_equal(frame.get("rate", head="click"), [0.5, 0.25, np.nan])
    assert [labels for labels, _ in frame.matching("rate")] == [{"head": "click"}, {"head": "like"}]
    assert frame.last("a") == 3.0
    assert frame.last("rate") is None
    assert frame.last("nope") is None


def test_a_reader_asks_for_a_part_and_for_few_samples(path: Path) -> None:
    writer = history(path)
    for second in range(100):
        writer.write("trainer", second * 1_000, {A: float(second)})
    reader = HistoryReader(path)
    assert reader.frame("trainer", 10_000, 12_000).columns[A].tolist() == [10, 11, 12]
    thinned = reader.frame("trainer", 0, 99_000, max_samples=10)
    assert thinned.columns[A].tolist() == [9, 19, 29, 39, 49, 59, 69, 79, 89, 99]
    assert reader.sample_near("trainer", 42_400, 1_000).columns[A].tolist() == [42]
    assert len(reader.sample_near("trainer", 200_000, 1_000)) == 0


def test_older_samples_are_thinned_to_the_last_of_their_step_and_then_deleted(path: Path) -> None:
    now_ms = 20 * DAY_MS
    writer = history(path, keep_days=2)
    for age_ms in (3 * DAY_MS, 2 * DAY_MS - HOUR_MS, 3 * HOUR_MS, 600_000):
        for second in range(0, 300, 20):
            writer.write("trainer", now_ms - age_ms + second * 1_000, {A: float(second)})
    writer.thin(now_ms)
    frame = HistoryReader(path).frame("trainer", 0, now_ms)
    ages_ms = (now_ms - frame.times_ms).tolist()
    assert len([age for age in ages_ms if age > 2 * DAY_MS]) == 0
    of_yesterday = frame.columns[A][[age > DAY_MS for age in ages_ms]]
    assert of_yesterday.tolist() == [280]
    of_today = frame.columns[A][[HOUR_MS < age < DAY_MS for age in ages_ms]]
    assert of_today.tolist() == [40, 100, 160, 220, 280]
    assert len([age for age in ages_ms if age <= HOUR_MS]) == 15


def test_a_year_of_samples_takes_no_more_rows_than_the_steps_say(path: Path) -> None:
    writer = history(path, keep_days=2)
    for minute in range(0, 4 * 24 * 60, 10):
        writer.write("trainer", minute * 60_000, {A: 1.0})
        writer.write("trainer", minute * 60_000 + 5_000, {A: 1.0, CLICK: 1.0})
        if minute % 60 == 0:
            writer.thin(minute * 60_000)
    rows = sqlite3.connect(path).execute("SELECT COUNT(*) FROM samples").fetchone()[0]
    assert rows <= 2 * 24 * 6 + 2 * 12


def test_a_source_runs_has_ended_or_has_fallen_silent(path: Path) -> None:
    writer = history(path, every_s=5)
    writer.begin("trainer", 1_000)
    writer.write("trainer", 1_000, {A: 1.0})
    reader = HistoryReader(path)
    (source,) = reader.sources()
    assert (source.name, source.every_ms, source.newest_ms) == ("trainer", 5_000, 1_000)
    assert source.is_running(16_000)
    assert not source.is_running(16_001)
    writer.end("trainer", 2_000)
    (source,) = reader.sources()
    assert source.ended_ms == 2_000
    assert not source.is_running(2_000)
    writer.begin("trainer", 3_000)
    assert reader.sources()[0].ended_ms is None


def test_a_folder_without_records_has_no_sources_and_looking_creates_nothing(path: Path) -> None:
    reader = HistoryReader(path)
    assert reader.sources() == []
    assert len(reader.frame("trainer", 0, 1)) == 0
    assert not path.exists()


def test_a_file_that_is_no_history_is_named(path: Path) -> None:
    path.write_text("not a database " * 100)
    with pytest.raises(RecordsError, match=r"history\.sqlite: the records cannot be used"):
        HistoryReader(path).sources()
    with pytest.raises(RecordsError, match=r"history\.sqlite"):
        history(path)


def test_records_of_another_form_are_refused(path: Path) -> None:
    history(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 7")
    with pytest.raises(RecordsError, match="expected records of form 1, got form 7"):
        history(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"every_s": 0.1}, r"history\.every_s must be 0 or lie in 1\.\.60, got 0\.1"),
        ({"keep_days": 0}, r"history\.keep_days must be at least 1, got 0"),
    ],
)
def test_config_says_what_is_wrong(config: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HistoryConfig(**config)


# The recorder


def recorder(path: Path, metrics: Metrics, **config: float) -> HistoryRecorder:
    place = HistoryPlace(path=path, source="trainer")
    return HistoryRecorder(place, HistoryConfig(**config), metrics, ManualClock(5_000))


def test_a_recorder_writes_the_page_and_a_last_sample(path: Path) -> None:
    metrics = Metrics()
    with recorder(path, metrics):
        metrics.stream.steps.inc(3)
    (source,) = HistoryReader(path).sources()
    assert source.ended_ms == 5_000
    frame = HistoryReader(path).frame("trainer", 0, 10_000)
    assert frame.last("headrace_stream_steps_total") == 3
    shown = {name for name, _ in frame.columns}
    assert "headrace_snapshot_age_seconds" not in shown, "what is not on the page is not kept"
    assert set(frame.columns) == set(sample_of(metrics))


def test_a_recorder_that_is_off_creates_nothing(path: Path) -> None:
    with recorder(path, Metrics(), every_s=0):
        pass
    assert not path.exists()


def test_a_disk_that_refuses_costs_a_line_and_nothing_else(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    with recorder(path, Metrics()):
        pass
    assert caplog.text.count("metrics are not recorded") == 1
