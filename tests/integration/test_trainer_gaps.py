"""Records that are gone before they were read: stop with a choice, or go on and count the loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event as StopSignal
from typing import Any

import pytest

from domain.errors import LogPositionError
from domain.events import Event
from stream.gaps import Gap
from stream.journal_files import JournalFolder, Run
from stream.sqlite_log import PARTITION
from tests.loop_worlds import tiny_settings, tiny_world
from tests.trainer_worlds import FaultyLog, Workshop

SETTINGS = ("trainer.max_records=25", "trainer.poll_timeout_s=0.001", "checkpoint.every_s=1")


@pytest.fixture(scope="module")
def world() -> tuple[Any, list[Event]]:
    return tiny_world(40)


@pytest.fixture
def workshop(tmp_path: Path, world: Any) -> Iterator[Workshop]:
    """A trainer has learned the first 30 events; then 40 more came, and 20 of them are gone."""
    schema, events = world
    workshop = Workshop(tmp_path, schema, tiny_settings(*SETTINGS))
    workshop.log.append(events[:30])
    workshop.run_to_end()
    workshop.log.append(events[30:70])
    workshop.log.drop_before(50)
    yield workshop
    workshop.close()


def _skip(workshop: Workshop) -> None:
    workshop.settings = tiny_settings(*SETTINGS, "trainer.on_gap=skip")


def _last_segment(workshop: Workshop, tmp_path: Path) -> Any:
    manifest = workshop.store().load("current").manifest
    return JournalFolder(tmp_path / "journal").read(manifest.extra["journal"])


def test_trainer_stops_at_a_gap_and_spells_out_the_choice(workshop: Workshop) -> None:
    trainer = workshop.trainer()
    with pytest.raises(LogPositionError) as caught:
        trainer.run(StopSignal(), until_end=True)
    assert str(caught.value) == (
        "events/0 lost 20 records before they were read: expected to go on at offset 30, the "
        "oldest one held is 50. Restore the records, or accept the loss: --on-gap skip goes on at "
        "events/0@50"
    )
    assert workshop.published == []
    assert trainer.positions == {PARTITION: 30}
    assert workshop.count("stream_lost_records_total", partition=PARTITION) == 0.0


def test_trainer_told_to_skip_goes_on_behind_the_gap_and_says_what_is_lost(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    _skip(workshop)
    workshop.run_to_end()
    assert workshop.loop.counts.events == 30 + 20
    assert workshop.store().load("current").manifest.positions == {PARTITION: 70}
    assert workshop.count("stream_lost_records_total", partition=PARTITION) == 20.0
    assert workshop.count("stream_last_error_time_seconds", kind="log_gap") > 1_000.0
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.getMessage() for record in errors] == ["records lost, going on behind them"]
    segments = JournalFolder(tmp_path / "journal")
    chain = segments.chain(workshop.store().load("current").manifest.extra["journal"])
    gaps = [gap for _, segment in chain for gap in segment.gaps]
    assert gaps == [(0, Gap(PARTITION, 30, 50))]


def test_gap_that_opens_while_running_is_met_by_the_reader(
    workshop: Workshop, tmp_path: Path, world: Any
) -> None:
    _skip(workshop)
    workshop.run_to_end()
    workshop.log.append(world[1][70:90])

    def retention() -> None:
        workshop.log.drop_before(80)

    # The trainer has looked at what the log holds, and then the records go.
    log = FaultyLog(workshop.log, read=retention)
    workshop.run_to_end(log=log)
    assert workshop.loop.counts.events == 50 + 10
    assert workshop.count("stream_lost_records_total", partition=PARTITION) == 10.0
    segment = _last_segment(workshop, tmp_path)
    assert segment.gaps == ((0, Gap(PARTITION, 70, 80)),)
    assert segment.runs == (Run(PARTITION, 80, 10),)


def test_gap_that_opens_while_running_stops_a_trainer_that_was_not_told_to_skip(
    workshop: Workshop, world: Any
) -> None:
    _skip(workshop)
    workshop.run_to_end()
    workshop.log.append(world[1][70:90])
    workshop.settings = tiny_settings(*SETTINGS)

    def retention() -> None:
        workshop.log.drop_before(80)

    log = FaultyLog(workshop.log, read=retention)
    with pytest.raises(LogPositionError, match="lost 10 records before they were read"):
        workshop.run_to_end(log=log)


def test_log_that_was_made_anew_is_refused_or_read_from_its_beginning(
    workshop: Workshop, tmp_path: Path, world: Any
) -> None:
    schema, events = world
    other = Workshop(tmp_path / "other", schema, tiny_settings(*SETTINGS))
    other.log.append(events[70:80])
    with pytest.raises(LogPositionError, match=r"made anew or restored: expected .* 30"):
        workshop.run_to_end(log=other.log)
    _skip(workshop)
    workshop.run_to_end(log=other.log)
    assert workshop.loop.counts.events == 30 + 10
    assert workshop.store().load("current").manifest.positions == {PARTITION: 10}
    assert workshop.count("stream_lost_records_total", partition=PARTITION) == 0.0
    assert _last_segment(workshop, tmp_path).gaps == ((0, Gap(PARTITION, 30, 0)),)
    other.close()
