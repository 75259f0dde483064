"""Deltas through a real broker: a twin follows; what goes wrong is a gap, never a wrong answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from domain.deltas import Delta, DeltaPoint
from domain.errors import DeltaGapError, LogError, SnapshotDamagedError, SnapshotError
from domain.state import state_hash
from snapshot.delta_files import delta_from_bytes, delta_to_bytes
from stream import kafka_deltas
from stream.delta_parts import headers_of, split
from stream.kafka_delta_source import KafkaDeltaSource
from stream.kafka_deltas import KafkaDeltaPublisher
from stream.kafka_producer import BoundedProducer, Outgoing
from stream.kafka_settings import KafkaConfig
from stream.kafka_topics import deltas_plan
from tests.command_line import Headrace, quiet_surroundings
from tests.integration.test_delta_publishing import (
    SETTINGS,
    answers,
    apply,
    learners_of,
    point_of,
)
from tests.kafka_broker import (
    bootstrap,
    create_topics,
    delete_records,
    fresh_config,
    inspect_topics,
    own_broker,
)
from tests.loop_worlds import tiny_world
from tests.trainer_worlds import Workshop

SOON_S = 30.0


def delta_at(chain: str, number: int, num_bytes: int = 100) -> Delta:
    generator = np.random.default_rng(number)
    return Delta(
        point=DeltaPoint(chain, number),
        positions={"events/0": 10 * number},
        step=number,
        event_time_ms=1_000 * number,
        schema_hash="abc",
        states={"ranking": {"rows": generator.integers(0, 255, num_bytes, np.uint8)}},
    )


class World:
    """A topic, a publisher as in a trainer, and sources as in servers on other machines."""

    def __init__(self, stack: ExitStack) -> None:
        self.config = fresh_config()
        create_topics(bootstrap(), self.config, [deltas_plan(self.config)])
        self._stack = stack
        self.writer = self.publisher()
        self.reader = self.source()
        self.chain = self.writer.begin_chain()

    def publisher(self) -> KafkaDeltaPublisher:
        made = KafkaDeltaPublisher(bootstrap(), self.config, delta_to_bytes)
        return self._stack.enter_context(closing(made))

    def source(self) -> KafkaDeltaSource:
        made = KafkaDeltaSource(bootstrap(), self.config, delta_from_bytes)
        return self._stack.enter_context(closing(made))

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            self.writer.publish(delta_at(self.chain, number))

    def numbers(
        self, after: int, limit: int = 100, source: KafkaDeltaSource | None = None
    ) -> list[int]:
        """Follow from a place on until nothing comes."""
        numbers: list[int] = []
        while len(numbers) < limit:
            point = DeltaPoint(self.chain, numbers[-1] if numbers else after)
            try:
                found = (source or self.reader).after(point, limit - len(numbers))
            except SnapshotError:
                if not numbers:
                    raise
                break
            if not found:
                break
            numbers += [delta.point.number for delta in found]
        return numbers

    def send(self, content: bytes, number: int, *, leave_out: int = -1) -> None:
        """Send parts by hand, all but one."""
        parts = split(DeltaPoint(self.chain, number), content, 50)
        records = [
            Outgoing(self.config.deltas_topic, b"", part.content, headers_of(part))
            for part in parts
            if part.part != leave_out
        ]
        with closing(BoundedProducer(bootstrap(), self.config)) as producer:
            producer.store(records)


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_deltas_come_in_order_whole_and_up_to_a_limit(world: World) -> None:
    assert world.numbers(0) == []
    world.publish(1, 2, 3)
    assert world.numbers(0) == [1, 2, 3]
    assert world.numbers(1, limit=1) == [2]
    assert world.numbers(1, limit=1) == [2], "asked again, answered again"
    assert world.numbers(3) == []
    (found,) = world.reader.after(DeltaPoint(world.chain, 1), 1)
    assert state_hash(dict(found.states)) == state_hash(dict(delta_at(world.chain, 2).states))
    assert world.numbers(0) == [1, 2, 3], "a server that went back to an earlier snapshot"


def test_delta_larger_than_a_record_comes_whole(world: World) -> None:
    large = delta_at(world.chain, 1, num_bytes=2_500_000)
    assert world.writer.publish(large) > 2 * kafka_deltas.PART_BYTES
    world.publish(2)
    (first,) = world.reader.after(DeltaPoint(world.chain, 0), 1)
    assert state_hash(dict(first.states)) == state_hash(dict(large.states))
    assert world.numbers(1) == [2]


def test_publish_refuses_what_is_not_next(world: World) -> None:
    world.publish(1, 2)
    for chain, number in ((world.chain, 2), ("other", 3)):
        with pytest.raises(SnapshotError, match=r"expected a delta of chain .* behind 2"):
            world.writer.publish(delta_at(chain, number))
    with pytest.raises(SnapshotError, match="expected a delta of chain none behind 0"):
        world.publisher().publish(delta_at("c", 1))


def test_number_left_out_and_a_torn_set_are_gaps_once_a_later_one_is_there(world: World) -> None:
    world.publish(1)
    assert world.numbers(1) == []
    world.publish(3)
    with pytest.raises(DeltaGapError, match=r"delta 2 of chain .* or not whole, the newest is 3"):
        world.numbers(1)
    assert world.numbers(2) == [3], "a snapshot leads past it"
    content = delta_to_bytes(delta_at(world.chain, 4))
    world.send(content, 4, leave_out=1)
    assert world.numbers(3) == []
    world.send(delta_to_bytes(delta_at(world.chain, 5)), 5)
    with pytest.raises(DeltaGapError, match=r"delta 4 of chain .* or not whole, the newest is 5"):
        world.numbers(3)
    assert world.numbers(4) == [5]


def test_whole_delta_that_is_not_what_it_should_be_is_damage(world: World) -> None:
    world.publish(1)
    spoilt = bytearray(delta_to_bytes(delta_at(world.chain, 2)))
    spoilt[-1] ^= 1
    world.send(bytes(spoilt), 2)
    assert world.numbers(0) == [1]
    with pytest.raises(SnapshotDamagedError, match=r"delta 2 of .*: its checksum differs"):
        world.numbers(1)
    world.send(delta_to_bytes(delta_at(world.chain, 7)), 3)
    with pytest.raises(SnapshotDamagedError, match=r"delta 3 of .*: got 7 of"):
        world.numbers(2)


def test_records_of_others_are_passed_by(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with closing(BoundedProducer(bootstrap(), world.config)) as producer:
        producer.store([Outgoing(world.config.deltas_topic, b"?", b"?", [])] * 2)
    world.publish(1)
    assert world.numbers(0) == [1]
    assert [one.message for one in caplog.records].count("not a delta") == 1


def test_server_that_comes_late_reads_only_the_end(world: World) -> None:
    world.publish(*range(1, 301))
    late = world.source()
    assert world.numbers(295, source=late) == [296, 297, 298, 299, 300]
    assert late._consumer.position(late._partition) == 301  # with the word that the chain began
    early = world.source()
    assert world.numbers(2, limit=300, source=early) == list(range(3, 301))


def test_what_retention_took_is_a_gap(world: World) -> None:
    world.publish(*range(1, 8))
    delete_records(f"{world.config.deltas_topic}/0", 4)
    source = world.source()
    with pytest.raises(DeltaGapError, match=r"delta 2 of chain .* is gone or not whole"):
        world.numbers(1, source=source)
    assert world.numbers(3, source=source) == [4, 5, 6, 7]


def test_new_chain_ends_the_old_one_for_whoever_reads_and_whoever_comes(world: World) -> None:
    world.publish(1, 2)
    assert world.numbers(0, limit=1) == [1]
    old = world.chain
    world.chain = world.publisher().begin_chain()
    for source in (world.reader, world.source()):
        until(lambda source=source: _ended(source, old))  # type: ignore[misc]
        assert world.numbers(0, source=source) == []


def _ended(source: KafkaDeltaSource, chain: str) -> bool:
    try:
        source.after(DeltaPoint(chain, 1), 1)
    except DeltaGapError as error:
        return f"chain {chain} has ended" in str(error)
    except SnapshotError:
        pass  # no broker answers yet
    return False


def test_missing_topic_is_named(world: World) -> None:
    elsewhere = replace(world.config, topic_prefix=f"{world.config.topic_prefix}-none")
    missing = r"\.deltas missing: `headrace topics create`"
    with (
        closing(KafkaDeltaPublisher(bootstrap(), elsewhere, delta_to_bytes)) as publisher,
        pytest.raises(SnapshotError, match=missing),
    ):
        publisher.begin_chain()
    with closing(KafkaDeltaSource(bootstrap(), elsewhere, delta_from_bytes)) as source:
        with pytest.raises(LogError, match=missing):
            source.check_topic()
        with pytest.raises(SnapshotError, match=missing):
            source.after(DeltaPoint("c", 0), 1)


def test_topic_is_made_and_checked_where_it_is_used(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, brokers = f"{fresh_config().topic_prefix}-deltas", bootstrap()
    place = ["--log", f"kafka://{brokers}", "--set", f"kafka.topic_prefix={prefix}"]
    place += ["--set", "kafka.deltas_retention_ms=600_000", "--set", "deltas.via=kafka"]
    with quiet_surroundings(monkeypatch):
        headrace = Headrace(capsys)
        assert f"{prefix}.deltas missing" in headrace("topics", "check", *place).out
        made = headrace("topics", "create", *place)
        assert (made.code, made.err) == (0, "")
        checked = headrace("topics", "check", *place)
    assert checked.code == 0
    (line,) = [one for one in checked.out.splitlines() if f"{prefix}.deltas" in one]
    assert "delete" in line
    assert "10 min" in line
    config = KafkaConfig(topic_prefix=prefix, deltas_retention_ms=600_000)
    (state,) = inspect_topics(brokers, config, [deltas_plan(config)])
    assert (state.num_partitions, state.problems) == (1, ())


# With a real trainer


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    schema, events = tiny_world(60)
    workshop = Workshop(tmp_path, schema, SETTINGS)
    workshop.log.append(events)
    yield workshop
    workshop.close()


def test_twin_on_another_machine_says_what_the_trainer_would_say(
    world: World, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_deltas, "PART_BYTES", 5_000)
    with closing(world.publisher()) as publisher:
        workshop.run_to_end(delta_publisher=publisher)
    store = workshop.store()
    snapshots = sorted(map(store.load, store.ids()), key=lambda one: point_of(one).number)
    assert len(snapshots) >= 3
    twin = learners_of(workshop, snapshots[0])
    for name in ("ranking", "memory", "retrieval"):
        getattr(twin, name).follow()
    point = point_of(snapshots[0])
    for snapshot in snapshots[1:]:
        reached = point_of(snapshot)
        while point != reached:
            for delta in world.reader.after(point, reached.number - point.number):
                apply(twin, delta)
                point = delta.point
        time_ms = snapshot.manifest.event_time_ms
        assert answers(twin, time_ms) == answers(learners_of(workshop, snapshot), time_ms)
    assert point.number > 10
    assert answers(twin, time_ms) == answers(workshop.loop.parts, time_ms)
    assert workshop.count("snapshot_deltas_total") == point.number
    assert workshop.count("snapshot_delta_failures_total") == 0.0
    assert not (workshop.snapshots.parent / "deltas").exists()


def test_trainer_that_is_restarted_begins_another_chain_and_a_snapshot_leads_there(
    world: World, workshop: Workshop
) -> None:
    with closing(world.publisher()) as publisher:
        workshop.run_to_end(delta_publisher=publisher)
    store = workshop.store()
    before = point_of(store.load())
    assert world.reader.after(before, 1) == []
    workshop.log.append(tiny_world(10, seed=2)[1])
    with closing(world.publisher()) as publisher:
        workshop.run_to_end(delta_publisher=publisher)
    with pytest.raises(DeltaGapError, match=f"chain {before.chain} has ended"):
        world.reader.after(before, 1)
    after = point_of(store.load(workshop.published[0][0]))
    assert after.chain != before.chain
    assert world.reader.after(after, 1)[0].point.number == after.number + 1


def test_broker_that_dies_costs_numbers_and_nothing_else(world: World) -> None:
    broker = own_broker()
    world.publish(1, 2)
    assert world.numbers(0) == [1, 2]
    broker.kill()
    try:
        with pytest.raises(SnapshotError, match=r"^delta 3: "):
            world.publish(3)
        with contextlib.suppress(SnapshotError):
            assert world.numbers(2) == []
        with pytest.raises(SnapshotError):
            world.numbers(2, source=world.source())
        begun = world.publisher().begin_chain()
        assert len(begun) == 16, "a trainer starts all the same"
    finally:
        broker.start()
    found: list[int] = []

    def goes_on() -> bool:
        number = 4 + len(found)
        found.append(number)
        try:
            world.publish(number)
        except SnapshotError:
            return False
        return True

    until(goes_on)
    last = found[-1]

    def met_a_gap() -> bool:
        try:
            return world.numbers(2) == [*range(3, last + 1)]  # it got there although nobody said so
        except DeltaGapError:
            return True
        except SnapshotError:
            return False  # not connected yet

    until(met_a_gap)
    until(lambda: world.numbers(last - 1) == [last])
    world.publish(last + 1)
    until(lambda: world.numbers(last) == [last + 1])


def test_chain_that_could_not_be_announced_is_with_its_first_delta(world: World) -> None:
    broker = own_broker()
    world.publish(1)
    publisher, old = world.publisher(), world.chain
    broker.kill()
    try:
        world.chain = publisher.begin_chain()
    finally:
        broker.start()
    number = iter(range(1, 1_000))

    def published() -> bool:
        try:
            publisher.publish(delta_at(world.chain, next(number)))
        except SnapshotError:
            return False
        return True

    until(published)
    until(lambda: _ended(world.reader, old))
