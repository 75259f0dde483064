"""Records that carry many events, through real logs, the trainer, the tail and the commands."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.publish_run import publish_dataset
from app.settings import load_settings
from app.validate_run import validate_log
from domain.errors import ConfigError, LogError
from domain.event_log import EventLog, Record, advance
from domain.events import Event, Feedback, ItemUpdate, UserUpdate, event_key
from domain.state import state_hash
from replay.scenarios import SCENARIOS
from replay.simulator import SimulatedDataset
from serving.apply_events import apply_records
from stream.bulk_append import BulkAppendConfig, append_columnar
from stream.bulk_decode import decode_records
from stream.codec import BadEvent, decode, encode
from stream.columnar_build import columns_of
from stream.columnar_form import columns_to_bytes, is_columnar
from stream.sqlite_log import SqliteLog
from tests import kafka_broker
from tests.kafka_broker import KafkaLog
from tests.loop_worlds import hashes_of, lead, make_loop, tiny_settings, tiny_world
from tests.trainer_worlds import Workshop
from tests.unit.serving.worlds import make_models

SETTINGS = tiny_settings("trainer.max_records=25", "checkpoint.every_s=1")
ALL_TIME_MS = 2**60


@pytest.fixture(scope="module")
def world() -> tuple[Any, list[Event]]:
    schema, events = tiny_world(50)
    return schema, [decode(encode(event)) for event in events]  # scores become float32


def test_embedded_log_gives_back_all_events_in_their_order(tmp_path: Path, world: Any) -> None:
    _, events = world
    with contextlib.closing(SqliteLog(tmp_path / "log.sqlite")) as log:
        appended = append_columnar(log, events, _packing(40))
        records = _all_records(log)
    assert appended.num_events == len(events)
    assert appended.num_records == len(records) == -(-len(events) // 40)
    assert _events(records) == events


def test_kafka_keeps_the_order_of_every_user_and_the_partition_of_every_key(world: Any) -> None:
    _, events = world
    packed, single = kafka_broker.fresh_config(), kafka_broker.fresh_config()
    with contextlib.closing(KafkaLog(kafka_broker.bootstrap(), packed)) as log:
        appended = append_columnar(log, events, _packing(40))
        records = _all_records(log)
    with contextlib.closing(KafkaLog(kafka_broker.bootstrap(), single)) as log:
        log.append(events)
        partition_of = {record.key: _number(record) for record in _all_records(log)}
    assert appended.num_records == len(records) < len(events)
    received = _events(records)
    for key in {event_key(event) for event in events}:
        mine = [event for event in events if event_key(event) == key]
        assert [event for event in received if event_key(event) == key] == mine
    for record in records:
        (entries,) = decode_records([record.value])
        keys = [event_key(event) for event in entries if not isinstance(event, BadEvent)]
        assert record.key == keys[0]
        assert {partition_of[key] for key in keys} == {_number(record)}
        # The topic of items is compacted: one record for each, or updates would be lost.
        assert is_columnar(record.value) == record.partition.startswith(packed.events_topic)


def test_record_spans_no_more_time_than_may_pass_before_an_event_is_late() -> None:
    config = kafka_broker.fresh_config()
    events = [
        UserUpdate(event_id=f"u{i}", time_ms=1_000 * (i + 1), user_id=f"user-{i % 7}")
        for i in range(60)
    ]
    with contextlib.closing(KafkaLog(kafka_broker.bootstrap(), config)) as log:
        append_columnar(log, events, BulkAppendConfig(max_events=1_000, max_span_ms=10_000))
        records = _all_records(log)
    spans = [_times(record) for record in records]
    assert max(times[-1] - times[0] for times in spans) <= 10_000
    newest_ms = 0
    for times in spans:
        assert min(times) >= newest_ms - 10_000
        newest_ms = max(newest_ms, *times)


def test_records_that_would_be_too_large_are_halved(tmp_path: Path) -> None:
    events: list[Event] = [
        UserUpdate(event_id=f"u{i}", time_ms=1, user_id="ann", features={"note": f"{i}" * 50_000})
        for i in range(50)
    ]
    with contextlib.closing(SqliteLog(tmp_path / "log.sqlite")) as log:
        append_columnar(log, events, _packing(1_000))
        records = _all_records(log)
        huge = UserUpdate(event_id="u", time_ms=1, user_id="u", features={"note": "x" * 10**6})
        with pytest.raises(LogError, match=r"cannot store event 'u': it takes 1000\d{3} bytes"):
            append_columnar(log, [huge], _packing(1))
    assert max(len(record.value) for record in records) <= 900_000
    assert _events(records) == events


def test_read_of_the_embedded_log_ends_behind_so_many_bytes(tmp_path: Path) -> None:
    with contextlib.closing(SqliteLog(tmp_path / "log.sqlite")) as log:
        log.append_raw([("", bytes(500_000)) for _ in range(100)])
        records = log.read({}, max_records=1_000, timeout_s=0.0)
        assert len(records) == 64
        assert [record.offset for record in records] == list(range(64))
        assert len(_all_records(log)) == 100


def test_trainer_learns_from_packed_events_what_it_learns_from_single_ones(
    tmp_path: Path, world: Any
) -> None:
    schema, events = world
    workshop = Workshop(tmp_path, schema, SETTINGS)
    append_columnar(workshop.log, events, _packing(30))
    trainer = workshop.run_to_end()
    assert trainer.positions == workshop.log.end_positions()
    states = workshop.store().load("current").states
    hashes = {name: state_hash(state) for name, state in states.items() if name != "stream"}
    expected = hashes_of(lead(make_loop(schema, SETTINGS), events))
    workshop.close()
    assert hashes == {name: value for name, value in expected.items() if name != "stream"}


def test_trainer_sets_one_event_of_a_record_aside_and_learns_the_others(
    tmp_path: Path, world: Any
) -> None:
    schema, events = world
    workshop = Workshop(tmp_path, schema, SETTINGS)
    columns = columns_of(events[:20])
    columns.times_ms[7] = -5  # arrays that were built here may be written to
    workshop.log.append_raw([("ann", columns_to_bytes(columns))])
    workshop.run_to_end()
    (letter,) = workshop.log.dead_letters()
    states = workshop.store().load("current").states
    workshop.close()
    assert (letter.where, letter.reason[:8]) == ("events/0@0#7", "time_ms:")
    assert states["stream"]["counts"]["events"] == 19


def test_server_takes_in_every_event_of_a_record_but_the_bad_one() -> None:
    columns = columns_of(
        [
            Feedback(event_id=f"c{i}", time_ms=10 + i, user_id=user, item_id="i1", kind="click")
            for i, user in enumerate(("ann", "bob", "cleo"))
        ]
    )
    columns.times_ms[1] = -5
    models = make_models()
    applied = apply_records(models, [Record("events/0", 0, "ann", columns_to_bytes(columns))])
    assert (applied.records, applied.skipped, applied.newest_ms) == (1, 1, 12)
    assert applied.last_users == ("ann", "cleo")
    seen = {user: models.feature_store.seen(user) for user in ("ann", "bob", "cleo")}
    assert seen == {"ann": {"i1"}, "bob": set(), "cleo": {"i1"}}


def test_packing_names_the_flag_that_is_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"^--columnar must be between 1 and 65536, got 70000"):
        _packing(70_000)


def test_published_packed_the_log_validates_as_published_singly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for columnar in (None, 25):
        place = [f"data.dir={tmp_path / str(columnar)}"]
        settings = load_settings(overrides=place)
        dataset = SimulatedDataset(SCENARIOS["stationary"].resized(15))
        publish_dataset(settings, dataset, columnar)
        assert re.search(r"in \d+ records" if columnar else r"events of", capsys.readouterr().out)
        schema = tmp_path / str(columnar) / f"{dataset.name}.schema.toml"
        assert validate_log(load_settings(schema, place))
        tables.append(re.sub(r".*records", "", capsys.readouterr().out).strip())
    assert tables[0] == tables[1]


def _packing(max_events: int) -> BulkAppendConfig:
    return BulkAppendConfig(max_events=max_events, max_span_ms=ALL_TIME_MS)


def _all_records(log: EventLog) -> list[Record]:
    found: list[Record] = []
    positions = log.beginning_positions()
    while positions != log.end_positions():
        records = log.read(positions, max_records=100, timeout_s=5.0)
        found += records
        positions = advance(positions, records)
    return found


def _events(records: Sequence[Record]) -> list[Event]:
    entries = [one for found in decode_records([r.value for r in records]) for one in found]
    events = [one for one in entries if not isinstance(one, BadEvent)]
    assert len(events) == len(entries)
    return events


def _times(record: Record) -> list[int]:
    return [event.time_ms for event in _events([record]) if not isinstance(event, ItemUpdate)]


def _number(record: Record) -> str:
    return record.partition.rpartition("/")[2]
