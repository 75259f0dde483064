"""The step journal: the order of records, the places of steps, and what a segment names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domain.errors import ConfigError, JournalError
from domain.event_log import Record
from monitoring.metrics import Metrics
from stream.gaps import Gap
from stream.journal import JournalConfig, JournalFacts, StepJournal
from stream.journal_check import check_chain
from stream.journal_files import JournalFolder, Run, Segment

FACTS = JournalFacts({"seed": 42}, "the-schema")


def _record(partition: str, offset: int) -> Record:
    return Record(partition, offset, "u", b"")


@pytest.fixture
def folder(tmp_path: Path) -> JournalFolder:
    return JournalFolder(tmp_path / "journal")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def _journal(folder: JournalFolder, metrics: Metrics | None = None, **config: Any) -> StepJournal:
    journal = StepJournal(folder, JournalConfig(**config), FACTS, metrics or Metrics())
    journal.begin({"a": 5}, steps=10, parent="snap", previous=None)
    return journal


def _lead(journal: StepJournal, *places: tuple[str, int], steps: int = 10) -> None:
    for partition, offset in places:
        journal.on_event(steps)
        journal.on_record(_record(partition, offset))


def _written(journal: StepJournal, folder: JournalFolder, **end: int) -> Segment:
    name = journal.write(end)
    assert name is not None
    segment = folder.read(name)
    check_chain([(name, segment)])
    return segment


def test_records_that_follow_each_other_are_one_run(folder: JournalFolder) -> None:
    journal = _journal(folder)
    _lead(journal, ("a", 5), ("a", 6), ("b", 0), ("b", 1), ("a", 7), ("b", 2))
    segment = _written(journal, folder, a=8, b=3)
    assert segment.runs == (Run("a", 5, 2), Run("b", 0, 2), Run("a", 7, 1), Run("b", 2, 1))
    assert segment.num_events == 6
    assert segment.begin == {"a": 5}
    assert segment.end == {"a": 8, "b": 3}
    assert (segment.parent, segment.previous) == ("snap", None)
    assert (segment.settings, segment.schema_hash) == ({"seed": 42}, "the-schema")


def test_steps_are_placed_behind_the_event_that_made_them_due(folder: JournalFolder) -> None:
    journal = _journal(folder)
    _lead(journal, ("a", 5))
    _lead(journal, ("a", 6), steps=11)
    _lead(journal, ("a", 7), steps=13)
    segment = _written(journal, folder, a=8)
    assert segment.steps == (2, 3, 3)
    assert (segment.first_step, segment.last_step) == (10, 13)


def test_record_of_many_events_counts_each_and_is_one_record(folder: JournalFolder) -> None:
    journal = _journal(folder)
    for steps in (10, 11, 11):
        journal.on_event(steps)
    journal.on_record(_record("a", 5))
    segment = _written(journal, folder, a=6)
    assert (segment.runs, segment.num_events, segment.steps) == ((Run("a", 5, 1),), 3, (2,))


def test_offsets_that_the_log_does_not_hold_are_holes(folder: JournalFolder) -> None:
    journal = _journal(folder)
    _lead(journal, ("a", 5), ("a", 9), ("a", 10))
    segment = _written(journal, folder, a=11)
    assert segment.runs == (Run("a", 5, 1), Run("a", 9, 2))
    assert segment.holes == (Run("a", 6, 3),)


def test_gap_that_was_skipped_stands_where_it_was(folder: JournalFolder) -> None:
    journal = _journal(folder)
    _lead(journal, ("a", 5))
    journal.on_gap(Gap("a", 6, 20))
    _lead(journal, ("a", 20), ("b", 3))
    journal.on_gap(Gap("b", 4, 0))
    _lead(journal, ("b", 0))
    segment = _written(journal, folder, a=21, b=1)
    assert segment.runs == (Run("a", 5, 1), Run("a", 20, 1), Run("b", 3, 1), Run("b", 0, 1))
    assert segment.gaps == ((1, Gap("a", 6, 20)), (3, Gap("b", 4, 0)))
    assert segment.holes == ()


def test_next_segment_goes_on_from_the_snapshot_that_names_this_one(folder: JournalFolder) -> None:
    journal = _journal(folder)
    _lead(journal, ("a", 5), steps=11)
    first = journal.write({"a": 6})
    journal.published("the-next", {"a": 6}, steps=11)
    _lead(journal, ("a", 6), steps=12)
    second = journal.write({"a": 7})
    assert first is not None
    assert second is not None
    chain = folder.chain(second)
    assert [name for name, _ in chain] == [first, second]
    check_chain(chain)
    assert chain[1][1].parent == "the-next"
    assert chain[1][1].first_step == 11


def test_segment_whose_snapshot_failed_is_written_again_with_what_came_since(
    folder: JournalFolder,
) -> None:
    journal = _journal(folder)
    _lead(journal, ("a", 5))
    orphan = journal.write({"a": 6})
    _lead(journal, ("a", 6))
    name = journal.write({"a": 7})
    assert name != orphan
    assert name is not None
    assert [one for one, _ in folder.chain(name)] == [name]
    assert folder.read(name).runs == (Run("a", 5, 2),)


def test_same_segment_has_the_same_name(folder: JournalFolder) -> None:
    names = set()
    for _ in range(2):
        journal = _journal(folder)
        _lead(journal, ("a", 5))
        names.add(journal.write({"a": 6}))
    assert len(names) == 1


def _grow(journal: StepJournal, number: int) -> str:
    """Write one more segment, behind a snapshot of its own."""
    places = [("ab"[offset % 2], offset // 2) for offset in range(200 * number, 200 * number + 200)]
    _lead(journal, *places)
    end = {"a": 100 * number + 100, "b": 100 * number + 100}
    name = journal.write(end)
    assert name is not None
    journal.published(f"snapshot-{number}", end, steps=10)
    return name


def test_oldest_segments_are_deleted_when_there_are_too_many(
    folder: JournalFolder, metrics: Metrics
) -> None:
    free = _journal(folder)
    free.begin({"a": 0, "b": 0}, steps=10, parent=None, previous=None)
    names = [_grow(free, number) for number in range(6)]
    size_bytes = sum(folder.sizes().values())
    tight = _journal(folder, metrics, max_bytes=size_bytes // 2)
    tight.begin({"a": 600, "b": 600}, steps=10, parent="snapshot-5", previous=names[-1])
    newest = _grow(tight, 6)
    kept = list(folder.sizes())
    assert kept[-1] == newest
    assert names[0] not in kept
    assert kept == [*names, newest][-len(kept) :]
    assert sum(folder.sizes().values()) <= size_bytes // 2
    value = metrics.registry.get_sample_value
    assert value("headrace_stream_journal_segments") == len(kept)
    assert value("headrace_stream_journal_size_bytes") == sum(folder.sizes().values())
    assert [name for name, _ in folder.chain(newest)] == kept


def test_newest_segment_stays_however_small_the_room_is(folder: JournalFolder) -> None:
    journal = _journal(folder, max_bytes=1)
    _lead(journal, ("a", 5))
    name = journal.write({"a": 6})
    assert list(folder.sizes()) == [name]


def test_nothing_is_written_when_it_is_switched_off(folder: JournalFolder) -> None:
    journal = _journal(folder, enabled=False)
    _lead(journal, ("a", 5))
    assert journal.write({"a": 6}) is None
    assert not folder.root.exists()


def test_segment_that_grew_too_large_is_given_up_and_the_next_begins_a_chain(
    folder: JournalFolder, caplog: pytest.LogCaptureFixture
) -> None:
    journal = _journal(folder, max_runs=4)
    assert not journal.full
    _lead(journal, ("a", 5), ("b", 0))
    assert journal.full
    _lead(journal, ("a", 6), ("b", 1), ("a", 7), ("b", 2))
    assert "journal segment given up" in caplog.text
    assert not journal.full
    assert journal.write({"a": 8, "b": 3}) is None
    journal.published("after", {"a": 8, "b": 3}, steps=10)
    _lead(journal, ("b", 3))
    segment = _written(journal, folder, a=8, b=4)
    assert (segment.parent, segment.previous) == ("after", None)


def test_disk_that_refuses_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("in the way")
    journal = _journal(JournalFolder(tmp_path / "journal"))
    with pytest.raises(JournalError, match="journal"):
        journal.write({"a": 5})
    assert (tmp_path / "journal").read_text() == "in the way"


@pytest.mark.parametrize("name", ["max_bytes", "max_runs"])
def test_config_names_the_key_when_not_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^journal\.{name} must be positive, got 0"):
        JournalConfig(**{name: 0})  # type: ignore[arg-type]
