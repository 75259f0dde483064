"""Events from a log into arrays, events and labelled examples, beside readers that do nothing.

A real Kafka broker on core 0, one client on core 1; the same events as one Protobuf event per
record, as JSON, and as columnar records. Every path is run once to compare what it read (sums over
times and event ids), then timed in rounds whose order turns around each time.

    python benchmarks/bench_ingest.py [--quick] [--events N] [--rounds N] [--json FILE]

Rates and ratios are per second of the client's CPU, so that neither the broker nor whatever else
runs on the machine counts; the last column is events per second of wall time.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import itertools
import json
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

from domain.event_log import EventLog, Record, advance
from domain.events import Event, Feedback, Impression, ShownItem
from domain.examples import JoinedExample
from domain.features import FeatureSchema, Field
from stream.bulk_append import BulkAppendConfig, append_columnar
from stream.bulk_decode import decode_columns, decode_records
from stream.codec import BadEvent, decode, encode, encode_json
from stream.columnar_layout import EventColumns
from stream.deduplicator import Deduplicator, DeduplicatorConfig
from stream.joiner import Joiner, JoinerConfig
from stream.kafka_log import KafkaLog
from stream.kafka_settings import KafkaConfig
from stream.kafka_topics import create_topics
from stream.sqlite_log import SqliteLog
from stream.watermark import Watermark, WatermarkConfig

GOALS = {"kafka_arrays_over_bare": 0.7, "columnar_arrays_over_json": 100.0}
QUICK_SHARE = 0.6
_PER_RECORD = 1_000
_PER_LARGE_RECORD = 4_000
_COPIES = 10
"""A read from Kafka begins with questions to the broker, which take as long as 50,000 events in
columns. So what is read to arrays is the same events this many times."""
_READ = 5_000
_SCHEMA = FeatureSchema(fields=(Field(name="tab", entity="context", kind="categorical"),))

Chunk = Sequence[Any] | EventColumns
Path_ = Callable[[], Iterator[Chunk]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 events, 3 rounds")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the measurements there")
    given = parser.parse_args()
    if given.quick:
        given.events, given.rounds = 10_000, 3
    if importlib.util.find_spec("crc32c") is None:
        sys.exit("crc32c is not installed: kafka-python alone would be measured at half its speed")
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        os.sched_setaffinity(0, {cores[0]})  # inherited by the broker
        with _broker(Path(folder) / "kafka") as bootstrap:
            os.sched_setaffinity(0, {cores[-1]})
            result = _measure(bootstrap, Path(folder), given)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))
    print(json.dumps({name: result[name] for name in ("suite", "ratios", "goals", "ok")}))


@contextlib.contextmanager
def _broker(folder: Path) -> Iterator[str]:
    place = Path(__file__).resolve().parents[1] / "deploy" / "kafka" / "broker.py"
    spec = importlib.util.spec_from_file_location("broker", place)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["broker"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    broker = module.KafkaBroker(folder)
    broker.start()
    try:
        yield broker.bootstrap
    finally:
        broker.kill()


def make_events(count: int) -> list[Event]:
    """Return lists of ten items, each followed by three actions, as a busy site sends them."""
    rng = np.random.default_rng(7)
    events: list[Event] = []
    for number in range(count // 4 + 1):
        now_ms, user = 1_700_000_000_000 + 20 * number, f"user-{rng.integers(20_000)}"
        shown = [f"item-{item}" for item in rng.choice(5_000, 10, replace=False)]
        listed = Impression(
            event_id=f"list-{number:09}",
            time_ms=now_ms,
            user_id=user,
            items=tuple(
                ShownItem(item_id=item, position=place, score=0.5)
                for place, item in enumerate(shown)
            ),
            context={"tab": str(number % 5)},
        )
        events.append(listed)
        events += [
            Feedback(
                event_id=f"{kind}-{number:09}",
                time_ms=now_ms + 5,
                user_id=user,
                item_id=shown[place],
                kind=kind,
                value=float(number % 2),
                impression_id=listed.event_id,
            )
            for place, kind in enumerate(("click", "like", "long_view"))
        ]
    return events[:count]


@dataclass(frozen=True, slots=True)
class Sums:
    """What a path read, in numbers that any form of it can give."""

    events: int
    times_ms: int
    ids: int


def _sums(chunks: Iterator[Chunk]) -> Sums:
    events = times_ms = ids = 0
    for chunk in chunks:
        if isinstance(chunk, EventColumns):
            before = np.concatenate([[0], np.cumsum(chunk.text_bytes, dtype=np.int64)])
            of_text = np.diff(before[chunk.text_starts])
            events += len(chunk)
            times_ms += int(chunk.times_ms.sum())
            ids += int(of_text[chunk.event_ids].sum())
            continue
        for one in chunk:
            event = one if isinstance(one, dict) else _fields(one)
            events += 1
            times_ms += event["time_ms"]
            ids += sum(event["event_id"].encode())
    return Sums(events, times_ms, ids)


def _fields(one: Any) -> dict[str, Any]:
    event = one if isinstance(one, Impression | Feedback) else decode(one.value)
    return {"time_ms": event.time_ms, "event_id": event.event_id}


def _timed(path: Path_) -> tuple[float, float]:
    """Return seconds of wall time and of CPU."""
    gc.collect()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in path():
        pass
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def _consumer(bootstrap: str, topic: str) -> KafkaConsumer:
    """Return kafka-python's own consumer, with the settings that were found to be its fastest."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        max_poll_records=_READ,
        max_partition_fetch_bytes=4 * 2**20,
        metrics_enabled=False,
        enable_auto_commit=False,
    )
    numbers = consumer.partitions_for_topic(topic)
    consumer.assign([TopicPartition(topic, number) for number in numbers])
    return consumer


def _bare(consumer: KafkaConsumer, end: int) -> Iterator[list[Any]]:
    consumer.seek_to_beginning(*consumer.assignment())
    count = 0
    while count < end:
        for entries in consumer.poll(1_000).values():
            count += len(entries)
            yield entries


def _json_rows(consumer: KafkaConsumer, end: int) -> Iterator[list[Any]]:
    for entries in _bare(consumer, end):
        yield [json.loads(entry.value) for entry in entries]


def _read(log: EventLog) -> Iterator[list[Record]]:
    positions = log.beginning_positions()
    ends = {name: end for name, end in log.end_positions().items() if end}
    while any(positions[name] < end for name, end in ends.items()):
        records = log.read(positions, max_records=_READ, timeout_s=1.0)
        yield records
        positions = advance(positions, records)


def _arrays(reads: Iterator[list[Record]]) -> Iterator[EventColumns]:
    for records in reads:
        for part in decode_columns([record.value for record in records]):
            assert not part.bad
            yield part.columns


def _read_arrays(log: EventLog) -> Iterator[EventColumns]:
    return _arrays(_read(log))


def _events(reads: Iterator[list[Record]]) -> Iterator[list[Event]]:
    for records in reads:
        found = itertools.chain(*decode_records([record.value for record in records]))
        yield [event for event in found if not isinstance(event, BadEvent)]


def _examples(reads: Iterator[list[Record]]) -> Iterator[list[JoinedExample]]:
    """The stream's own parts in the loop's order, as `headrace validate` runs them."""
    deduplicator, watermark = Deduplicator(DeduplicatorConfig()), Watermark(WatermarkConfig())
    joiner = Joiner(_SCHEMA, JoinerConfig(), 0)
    for events in _events(reads):
        examples: list[JoinedExample] = []
        for event in events:
            joiner.items_to_score(event)
            if deduplicator.seen(event.event_id, event.time_ms):
                continue
            watermark.observe(event.time_ms)
            examples += joiner.observe(event)
            examples += joiner.advance(watermark.time_ms)
            joiner.take_finished()
        yield examples


def _select(file: Path) -> Iterator[list[Any]]:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT id - 1, key, value FROM records ORDER BY id")
        while rows := found.fetchmany(_READ):
            yield rows


def _measure(bootstrap: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    events = make_events(given.events)
    values = [encode(event) for event in events]
    wire = [Record("", 0, "", value) for value in values]
    single = _filled(bootstrap, "single", lambda log: _store(log, events, values))
    text = _filled(bootstrap, "text", lambda log: _store(log, events, map(encode_json, events)))
    packing = BulkAppendConfig(max_events=4 * _PER_RECORD, max_span_ms=2**60)
    columnar = _filled(bootstrap, "columnar", lambda log: append_columnar(log, events, packing))
    copies = 1 if given.quick else _COPIES
    bulk = {
        size: _filled(bootstrap, f"bulk-{size}", partial(_fill, events, size, copies))
        for size in (_PER_RECORD, _PER_LARGE_RECORD)
    }
    file = folder / "single.sqlite"
    sqlite, packed = SqliteLog(file), SqliteLog(folder / "columnar.sqlite")
    sqlite.append_raw([("", value) for value in values])
    append_columnar(packed, events, BulkAppendConfig(max_events=_PER_RECORD, max_span_ms=0))
    # Opened once: to connect takes as long as to read thousands of events.
    kafka, packed_kafka = KafkaLog(bootstrap, single), KafkaLog(bootstrap, columnar)
    bulk_kafka = {size: KafkaLog(bootstrap, config) for size, config in bulk.items()}
    bare = _consumer(bootstrap, single.events_topic)
    rows = _consumer(bootstrap, text.events_topic)
    count = len(events)

    def codec() -> Iterator[list[Record]]:
        return (wire[at : at + _READ] for at in range(0, count, _READ))

    paths: dict[str, Path_] = {
        "kafka-python alone": lambda: _bare(bare, count),
        "kafka-python + json.loads": lambda: _json_rows(rows, count),
        "codec alone, arrays": lambda: _arrays(codec()),
        "codec alone, events": lambda: _events(codec()),
        "codec alone, events one by one": lambda: ([decode(r.value) for r in c] for c in codec()),
        "Kafka, records": lambda: _read(kafka),
        "Kafka, arrays": lambda: _arrays(_read(kafka)),
        "Kafka, events": lambda: _events(_read(kafka)),
        "Kafka, labelled examples": lambda: _examples(_read(kafka)),
        **{
            f"columnar Kafka, {size} each, arrays": partial(_read_arrays, log)
            for size, log in bulk_kafka.items()
        },
        "columnar Kafka, events": lambda: _events(_read(packed_kafka)),
        "columnar Kafka, labelled examples": lambda: _examples(_read(packed_kafka)),
        "SELECT alone": lambda: _select(file),
        "SQLite, records": lambda: _read(sqlite),
        "SQLite, arrays": lambda: _arrays(_read(sqlite)),
        "SQLite, events": lambda: _events(_read(sqlite)),
        "columnar SQLite, arrays": lambda: _arrays(_read(packed)),
        "columnar SQLite, events": lambda: _events(_read(packed)),
    }
    times = {f"columnar Kafka, {size} each, arrays": copies for size in bulk_kafka}
    _compare(paths, times)
    print(f"{count:,} events, {sum(map(len, values)) / count:.0f} bytes each, compared: equal")
    gc.freeze()  # the events made here are not a reader's: no collection need look at them
    measured = _rounds(paths, given.rounds)
    for consumer in (bare, rows):
        consumer.close(autocommit=False)
    logs: tuple[KafkaLog | SqliteLog, ...] = (kafka, packed_kafka, sqlite, packed)
    for log in (*logs, *bulk_kafka.values()):
        log.close()
    return _report(measured, {name: count * times.get(name, 1) for name in paths}, given)


def _filled(bootstrap: str, name: str, fill: Callable[[EventLog], object]) -> KafkaConfig:
    config = KafkaConfig(topic_prefix=name, max_in_flight_bytes=2**30)
    create_topics(bootstrap, config)
    with contextlib.closing(KafkaLog(bootstrap, config)) as log:
        fill(log)
    return config


def _fill(events: Sequence[Event], size: int, copies: int, log: EventLog) -> None:
    packing = BulkAppendConfig(max_events=4 * size, max_span_ms=2**60)
    for _ in range(copies):
        append_columnar(log, events, packing)


def _store(log: EventLog, events: Sequence[Event], values: Any) -> None:
    keyed = zip([event.user_id for event in events], values, strict=True)  # type: ignore[union-attr]
    while batch := list(itertools.islice(keyed, 10_000)):
        log.append_raw(batch)


def _compare(paths: dict[str, Path_], times: dict[str, int]) -> None:
    """Run every path once, which warms it up as well; stop when two read different things."""
    examples = {name: sum(map(len, path())) for name, path in paths.items() if "examples" in name}
    assert len(set(examples.values())) == 1, examples
    plain = {name: path for name, path in paths.items() if "examples" not in name}
    sums = {
        name: _sums(_as_records(path()) if name == "SELECT alone" else path())
        for name, path in plain.items()
    }
    once = sums["kafka-python alone"]
    for name, found in sums.items():
        copies = times.get(name, 1)
        assert found == Sums(*(copies * number for number in astuple(once))), (name, found, once)


def _as_records(reads: Iterator[Any]) -> Iterator[list[Record]]:
    for rows in reads:
        yield [Record("", *row) for row in rows]


def _rounds(paths: dict[str, Path_], rounds: int) -> dict[str, list[tuple[float, float]]]:
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    for number in range(rounds):
        names = list(paths) if number % 2 == 0 else list(reversed(paths))
        for name in names:
            measured[name].append(_timed(paths[name]))
    return measured


def _report(
    measured: dict[str, list[tuple[float, float]]],
    counts: dict[str, int],
    given: argparse.Namespace,
) -> dict[str, Any]:
    wall_s = {name: [wall for wall, _ in runs] for name, runs in measured.items()}
    cpu_s = {name: [cpu for _, cpu in runs] for name, runs in measured.items()}
    rate = {name: counts[name] / statistics.median(runs) for name, runs in cpu_s.items()}
    print(f"{'path':<36}{'events/CPU s':>14}{'us/event':>10}{'spread':>8}{'events/s':>12}")
    for name, runs in cpu_s.items():
        spread = (max(runs) - min(runs)) / statistics.median(runs)
        print(
            f"{name:<36}{rate[name]:>14,.0f}{1e6 / rate[name]:>10.2f}{spread:>8.0%}"
            f"{counts[name] / statistics.median(wall_s[name]):>12,.0f}"
        )
    ratios = {
        "kafka_arrays_over_bare": rate["Kafka, arrays"] / rate["kafka-python alone"],
        "kafka_events_over_bare": rate["Kafka, events"] / rate["kafka-python alone"],
        "kafka_examples_over_bare": rate["Kafka, labelled examples"] / rate["kafka-python alone"],
        "kafka_arrays_over_json": rate["Kafka, arrays"] / rate["kafka-python + json.loads"],
        "columnar_arrays_over_json": rate[f"columnar Kafka, {_PER_LARGE_RECORD} each, arrays"]
        / rate["kafka-python + json.loads"],
        "columnar_1000_arrays_over_json": rate[f"columnar Kafka, {_PER_RECORD} each, arrays"]
        / rate["kafka-python + json.loads"],
        "columnar_events_over_json": rate["columnar Kafka, events"]
        / rate["kafka-python + json.loads"],
        "columnar_examples_over_json": rate["columnar Kafka, labelled examples"]
        / rate["kafka-python + json.loads"],
        "events_over_one_by_one": rate["codec alone, events"]
        / rate["codec alone, events one by one"],
        "sqlite_records_over_select": rate["SQLite, records"] / rate["SELECT alone"],
        "sqlite_arrays_over_select": rate["SQLite, arrays"] / rate["SELECT alone"],
        "columnar_sqlite_arrays_over_select": rate["columnar SQLite, arrays"]
        / rate["SELECT alone"],
    }
    for name, ratio in ratios.items():
        print(f"{name:<40}{ratio:>8.2f}" + (f"   goal {GOALS[name]}" if name in GOALS else ""))
    needed = {name: goal * (QUICK_SHARE if given.quick else 1.0) for name, goal in GOALS.items()}
    return {
        "suite": "ingest",
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "goals": needed,
        "ok": all(ratios[name] >= goal for name, goal in needed.items()),
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "events": given.events,
        "seconds": {name: {"wall": wall_s[name], "cpu": cpu_s[name]} for name in measured},
    }


if __name__ == "__main__":
    main()
