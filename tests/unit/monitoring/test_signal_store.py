"""The file of drift records: nothing twice, nothing lost, readers beside the writer."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.errors import ConfigError
from monitoring.drift_signal import DriftSignal, signal_from_plain, signal_to_plain
from monitoring.field_report import FieldDistribution, FieldWindow
from monitoring.signal_store import SignalStore, SignalStoreConfig


def signal(stream: str = "label_rate/click", at_ms: int = 2_000, **other: Any) -> DriftSignal:
    given: dict[str, Any] = {
        "kind": "label", "detector": "adwin", "since_ms": at_ms - 500, "before": 0.2, "after": 0.3,
        "deviations": 4.0, "points_before": 50, "points_after": 9,
        "contributors": (("item.category", 0.75), ("user.segment", 0.25)),
    } | other  # fmt: skip
    return DriftSignal(stream=stream, time_ms=at_ms, **given)


def window(field: str = "user.segment", ended_ms: int = 9, **other: Any) -> FieldWindow:
    given: dict[str, Any] = {
        "started_ms": 0, "examples": 10, "missing": 0.1, "unseen": None, "psi_reference": 0.5,
        "psi_day": None, "distance_reference": 0.2, "distance_day": None,
    } | other  # fmt: skip
    return FieldWindow(field=field, ended_ms=ended_ms, **given)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "drift.sqlite"


def test_what_is_written_is_read_again_the_newest_first(path: Path) -> None:
    older, newer = signal(), signal(at_ms=5_000, ended_ms=7_000)
    SignalStore(path).write([older, newer])
    assert SignalStore(path).list() == [newer, older]


def test_replay_from_a_snapshot_writes_no_signal_twice_and_keeps_its_end(path: Path) -> None:
    store = SignalStore(path)
    store.write([signal()])
    store.write([signal(ended_ms=4_000)])
    store.write([signal(after=0.35)])
    assert store.list() == [signal(after=0.35, ended_ms=4_000)]


def test_filters_choose_by_time_stream_kind_and_whether_it_is_over(path: Path) -> None:
    store = SignalStore(path)
    store.write(
        [
            signal("loss/online/click", 1_000, kind="concept"),
            signal("loss/online/like", 2_000, kind="concept", ended_ms=3_000),
            signal("label_rate/click", 3_000),
        ]
    )

    def found(**given: Any) -> list[str]:
        return [one.stream for one in store.list(**given)]

    assert found(since_ms=2_000) == ["label_rate/click", "loss/online/like"]
    assert found(stream="loss/") == ["loss/online/like", "loss/online/click"]
    assert found(stream="loss") == []
    assert found(stream="label_rate/click") == ["label_rate/click"]
    assert found(kind="concept", live=True) == ["loss/online/click"]
    assert found(limit=1) == ["label_rate/click"]


def test_oldest_signals_give_way_beyond_the_limit(path: Path) -> None:
    store = SignalStore(path, SignalStoreConfig(max_signals=2))
    for at_ms in (3_000, 1_000, 2_000):
        store.write([signal(at_ms=at_ms)])
    assert [one.time_ms for one in store.list()] == [3_000, 2_000]


def test_rows_speak_for_themselves_in_plain_sql(path: Path) -> None:
    SignalStore(path).write([signal()])
    [row] = sqlite3.connect(path).execute("SELECT severity, size, sentence FROM signals").fetchall()
    assert row == ("medium", 4.0, signal().describe())


def test_windows_are_replaced_by_name_and_forgotten_with_event_time(path: Path) -> None:
    store = SignalStore(path, SignalStoreConfig(keep_windows_ms=100))
    store.write_windows([window(), window("item.tags", unseen=0.25)])
    store.write_windows([window(psi_reference=0.7)])
    assert store.windows() == [window("item.tags", unseen=0.25), window(psi_reference=0.7)]
    store.write_windows([window(ended_ms=110)])
    assert store.windows() == [window(ended_ms=110)]
    assert store.windows(field="item.tags") == []
    assert store.windows(since_ms=111) == []


def test_distributions_are_the_newest_of_each_role(path: Path) -> None:
    store = SignalStore(path)
    old = FieldDistribution(field="f", role="now", ended_ms=1, labels=("a",), counts=(1.0,))
    new = replace(old, ended_ms=2, labels=("a", "other"), counts=(3.0, 0.5))
    reference = replace(old, role="reference")
    store.write_distributions([old, reference])
    store.write_distributions([new])
    assert store.distributions("f") == [reference, new]
    assert store.distributions("g") == []


def test_readers_see_whole_writes_while_the_writer_is_at_work(path: Path) -> None:
    writer = SignalStore(path)
    reader = SignalStore(path, read_only=True)
    assert reader.list() == []
    writer.write([signal()])
    assert reader.list() == [signal()]
    writer._db.execute("BEGIN IMMEDIATE")  # in the middle of a write
    assert reader.list() == [signal()]
    writer._db.execute("ROLLBACK")
    with pytest.raises(sqlite3.OperationalError):
        reader.write([signal(at_ms=9)])


def test_missing_and_foreign_files_are_named(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"drift\.sqlite: no drift records there"):
        SignalStore(path, read_only=True)
    foreign = tmp_path / "notes.txt"
    foreign.write_text("not a database, but long enough to be looked at as if it were one\n" * 9)
    with pytest.raises(ConfigError, match=r"notes\.txt: not a file of drift records"):
        SignalStore(foreign)


def test_config_names_the_key_when_a_value_is_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"^drift\.store\.max_signals "):
        SignalStoreConfig(max_signals=0)


def test_signal_survives_plain_data_and_an_older_one_gets_defaults() -> None:
    plain = signal_to_plain(signal())
    assert signal_from_plain(plain) == signal()
    for name in ("ended_ms", "measure", "compared_with", "contributors"):
        del plain[name]
    assert signal_from_plain(plain) == signal(contributors=())


@pytest.mark.parametrize(
    ("given", "size", "severity"),
    [
        ({"deviations": -2.9}, 2.9, "small"),
        ({"deviations": -3.0}, 3.0, "medium"),
        ({"deviations": 6.0}, 6.0, "large"),
        ({"measure": "psi", "before": 0.01, "after": 0.24}, 0.24, "small"),
        ({"measure": "psi", "before": 0.01, "after": 1.0}, 1.0, "large"),
        ({"measure": "share", "before": 0.5, "after": 0.25}, 0.25, "large"),
    ],
)
def test_severity_is_the_measured_size(given: Any, size: float, severity: str) -> None:
    assert signal(**given).size == pytest.approx(size)
    assert signal(**given).severity == severity


def test_sentence_says_what_since_when_how_much_against_what_and_why() -> None:
    told = signal(
        "field/item.category", 60_000, since_ms=0, measure="psi", compared_with="the reference"
    )
    assert told.describe() == (
        "field/item.category rose from 0.2 to 0.3 against the reference within the last 60 s, "
        "says adwin; most of it: item.category 75%, user.segment 25%"
    )
