"""A trainer on a real log: what it sets aside, waits out and survives, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event as StopSignal
from typing import Any

import pytest

from domain.clock import ManualClock
from domain.errors import ConfigError, LogUnavailableError, SnapshotError
from domain.events import Event, Feedback, Impression, ItemUpdate, event_key
from domain.state import State, state_hash
from stream.checkpoint import states_of
from stream.codec import encode
from stream.sqlite_log import PARTITION
from stream.trainer_config import TrainerConfig
from tests.loop_trace import Trace
from tests.loop_worlds import hashes_of, lead, make_loop, tiny_settings, tiny_world
from tests.trainer_worlds import (
    Crash,
    FaultyLog,
    TickingClock,
    Workshop,
    disk_full,
    on_calls,
    unavailable,
)

SETTINGS = tiny_settings(
    "trainer.max_records=25",
    "trainer.poll_timeout_s=0.001",
    "trainer.retry_s=0.001",
    "checkpoint.every_s=1",
    "snapshot.keep=3",
)
"""Under a clock that ticks a second at every look, a checkpoint after every read."""


@pytest.fixture(scope="module")
def world() -> tuple[Any, list[Event]]:
    return tiny_world(50)


@pytest.fixture
def workshop(tmp_path: Path, world: Any) -> Iterator[Workshop]:
    schema, events = world
    workshop = Workshop(tmp_path, schema, SETTINGS)
    workshop.log.append(events)
    yield workshop
    workshop.close()


@pytest.fixture(scope="module")
def expected(world: Any) -> dict[str, str]:
    """What a trainer ends with when nothing goes wrong."""
    schema, events = world
    return hashes_of(lead(make_loop(schema, SETTINGS), events))


def _stored_hashes(workshop: Workshop) -> dict[str, str]:
    states = workshop.store().load("current").states
    return {name: state_hash(state) for name, state in states.items()}


def _learners_of(hashes: dict[str, str]) -> dict[str, str]:
    """Without the stream, whose state knows how many observers there are."""
    return {name: value for name, value in hashes.items() if name != "stream"}


# What it reads


def test_trainer_learns_the_log_to_its_end_and_publishes_that(
    workshop: Workshop, expected: dict[str, str]
) -> None:
    trainer = workshop.run_to_end()
    end = workshop.log.end_positions()
    assert hashes_of(workshop.loop) == _stored_hashes(workshop) == expected
    assert trainer.positions == workshop.log.committed() == end
    assert workshop.store().load("current").manifest.positions == end
    assert len(workshop.published) > 3
    assert workshop.count("stream_consumer_lag_records", partition=PARTITION) == 0.0


def test_trainer_without_a_snapshot_publishes_one_before_it_learns(workshop: Workshop) -> None:
    seen: list[int] = []
    workshop.run_to_end(before_publish=lambda: seen.append(workshop.loop.counts.events))
    assert seen[0] == 0 < seen[1]
    assert workshop.published[0][1] == workshop.log.beginning_positions()


def test_every_snapshot_holds_the_effect_of_exactly_the_records_before_its_positions(
    workshop: Workshop, world: Any
) -> None:
    schema, events = world
    workshop.settings = workshop.settings.model_copy(
        update={"snapshot": replace(SETTINGS.snapshot, keep=100)}
    )
    workshop.run_to_end()
    places = [positions[PARTITION] for _, positions in workshop.published]
    assert places == sorted(places)
    for snapshot_id, positions in workshop.published[1:5]:
        states = workshop.store().load(snapshot_id).states
        loop = lead(make_loop(schema, SETTINGS), events[: positions[PARTITION]])
        assert {name: state_hash(state) for name, state in states.items()} == hashes_of(loop)


def test_trainer_that_is_told_to_stop_learns_what_the_log_holds_already(
    workshop: Workshop, expected: dict[str, str]
) -> None:
    stop, watcher = StopSignal(), Trace()
    watcher.when_asked = lambda demand: stop.set() if demand.ordinal == 20 else None
    trainer = workshop.trainer(observers=(watcher,), clock=ManualClock())
    trainer.run(stop)
    end = workshop.log.end_positions()
    assert trainer.positions == workshop.store().load("current").manifest.positions == end
    assert _learners_of(hashes_of(workshop.loop)) == _learners_of(expected)


def test_trainer_whose_time_to_stop_is_up_publishes_where_it_stands_and_goes_on_there(
    workshop: Workshop, expected: dict[str, str]
) -> None:
    stop, watcher = StopSignal(), Trace()
    watcher.when_asked = lambda demand: stop.set() if demand.ordinal == 20 else None
    trainer = workshop.trainer(observers=(watcher,), clock=TickingClock())
    trainer.run(stop)
    place = trainer.positions[PARTITION]
    assert 0 < place < workshop.log.end_positions()[PARTITION]
    assert place == workshop.loop.counts.events  # not all of the records already read
    assert workshop.store().load("current").manifest.positions == {PARTITION: place}
    workshop.run_to_end(observers=(Trace(),))
    assert _learners_of(hashes_of(workshop.loop)) == _learners_of(expected)


def test_trainer_that_is_told_to_stop_while_the_log_is_away_publishes_where_it_stands(
    workshop: Workshop,
) -> None:
    stop, watcher = StopSignal(), Trace()
    watcher.when_asked = lambda demand: stop.set() if demand.ordinal == 20 else None
    log = FaultyLog(workshop.log, end_positions=lambda: _away_after(stop))
    trainer = workshop.trainer(observers=(watcher,), log=log)
    trainer.run(stop)
    assert workshop.store().load("current").manifest.positions == trainer.positions
    assert 0 < trainer.positions[PARTITION] < workshop.log.end_positions()[PARTITION]


def _away_after(stop: StopSignal) -> None:
    if stop.is_set():
        raise LogUnavailableError("the log is away")


# What it sets aside


def _broken(events: list[Event]) -> dict[int, tuple[bytes, str, str]]:
    """Before which event -> a record that must not be learned, its reason and its class."""
    shown = next(event for event in events[60:] if isinstance(event, Impression))
    after = events.index(shown) + 1
    stranger = Feedback(
        event_id="stranger",
        time_ms=shown.time_ms + 1,
        user_id=shown.user_id,
        item_id="never-shown",
        kind="click",
        impression_id=shown.event_id,
    )
    odd = ItemUpdate(
        event_id="odd", time_ms=shown.time_ms, item_id="i1", features={"colour": "red"}
    )
    return {
        30: (b"\xff\x00 garbage", "", "undecodable"),
        after: (
            encode(stranger),
            f"feedback.item_id: expected an item of impression {shown.event_id!r}, "
            "got 'never-shown'",
            "contradictory",
        ),
        after + 5: (
            encode(odd),
            "item_update.features.colour: no such item field; declared: category, tags, content",
            "schema",
        ),
    }


def _with_broken(workshop: Workshop, events: list[Event]) -> dict[int, tuple[bytes, str, str]]:
    """A workshop's log of events with broken records between them; returns those by offset."""
    broken = _broken(events)
    by_offset = {place + number: broken[place] for number, place in enumerate(sorted(broken))}
    records = [(event_key(event), encode(event)) for event in events]
    for offset, (value, _, _) in by_offset.items():
        records.insert(offset, ("somebody", value))
    workshop.log.append_raw(records)
    return by_offset


def _without_contradictions_counted(states: dict[str, State]) -> dict[str, str]:
    states["stream"]["joiner"]["counts"]["feedback_contradictory"] = 0
    states["stream"]["counts"]["dead_letters"] = 0
    return {name: state_hash(state) for name, state in states.items()}


@pytest.fixture
def broken_workshop(tmp_path: Path, world: Any) -> Iterator[tuple[Workshop, Any]]:
    schema, events = world
    workshop = Workshop(tmp_path, schema, SETTINGS)
    yield workshop, _with_broken(workshop, events)
    workshop.close()


def test_broken_records_are_set_aside_with_place_and_reason_and_the_rest_is_learned(
    broken_workshop: Any, expected: dict[str, str]
) -> None:
    workshop, broken = broken_workshop
    trainer = workshop.run_to_end()
    letters = workshop.log.dead_letters()
    assert [(one.partition, one.offset) for one in letters] == [
        (PARTITION, offset) for offset in sorted(broken)
    ]
    for letter in letters:
        value, reason, _ = broken[letter.offset]
        assert letter.value == value
        assert letter.key == "somebody"
        assert letter.time_ms > 1_000_000
        assert letter.reason == reason or (letter.reason and not reason)
    for _, _, reason_class in broken.values():
        count = workshop.count("stream_dead_letters_total", reason_class=reason_class)
        assert count == 1.0, reason_class
    assert trainer.positions == workshop.log.end_positions()
    assert _without_contradictions_counted(states_of(workshop.loop)) == expected


def test_record_is_led_again_when_setting_it_aside_failed(
    broken_workshop: Any, expected: dict[str, str]
) -> None:
    workshop, broken = broken_workshop
    trainer = workshop.run_to_end(log=FaultyLog(workshop.log, dead_letter=unavailable(1, 2, 4)))
    assert [one.offset for one in workshop.log.dead_letters()] == sorted(broken)
    assert trainer.positions == workshop.log.end_positions()
    assert _without_contradictions_counted(states_of(workshop.loop)) == expected
    assert workshop.count("stream_log_failures_total") == 3.0


def test_record_set_aside_before_a_crash_is_set_aside_once(broken_workshop: Any) -> None:
    workshop, broken = broken_workshop
    with pytest.raises(Crash):
        workshop.run_to_end(before_publish=on_calls([5], Crash()))
    assert len(workshop.log.dead_letters()) > 0
    workshop.run_to_end()
    assert [one.offset for one in workshop.log.dead_letters()] == sorted(broken)


# What it waits out


def test_log_that_is_away_is_read_again_until_it_is_back(
    workshop: Workshop, expected: dict[str, str]
) -> None:
    log = FaultyLog(workshop.log, read=unavailable(1, 2, 4), end_positions=unavailable(3))
    workshop.run_to_end(log=log)
    assert workshop.count("stream_log_failures_total") == 4.0
    assert hashes_of(workshop.loop) == expected


def test_snapshot_is_published_although_the_log_does_not_take_its_positions(
    workshop: Workshop, expected: dict[str, str]
) -> None:
    workshop.run_to_end(log=FaultyLog(workshop.log, commit=unavailable(*range(1, 100))))
    assert workshop.log.committed() == {}
    assert workshop.count("snapshot_publish_failures_total") == 0.0
    assert _stored_hashes(workshop) == expected


def test_full_disk_costs_snapshots_and_nothing_that_was_learned(
    workshop: Workshop, expected: dict[str, str]
) -> None:
    workshop.run_to_end(before_publish=disk_full(2, 3))
    assert workshop.count("snapshot_publish_failures_total") == 2.0
    assert _stored_hashes(workshop) == hashes_of(workshop.loop) == expected


def test_full_disk_is_not_tried_again_at_every_read(workshop: Workshop) -> None:
    tries: list[None] = []

    def count_and_fail() -> None:
        tries.append(None)
        if len(tries) > 1:
            raise SnapshotError("snapshots: No space left on device")

    workshop.run_to_end()
    usual = len(workshop.published)
    workshop.settings = workshop.settings.model_copy(
        update={"checkpoint": replace(SETTINGS.checkpoint, every_s=1_000.0)}
    )
    workshop.snapshots = workshop.snapshots / "again"
    workshop.run_to_end(before_publish=count_and_fail)
    assert usual > 8
    assert len(tries) == 2  # the first, and the one at the end


def test_trainer_publishes_nothing_while_nothing_comes(workshop: Workshop) -> None:
    workshop.run_to_end()
    older, newest = workshop.store().ids()[-2:]
    assert workshop.store().rollback() == older
    again = workshop.trainer()  # from where the operator put it back
    again.run(StopSignal(), until_end=True)
    assert workshop.store().current_id() == newest
    idle = workshop.trainer()
    workshop.store().rollback()
    idle.run(StopSignal(), until_end=True)
    assert workshop.published == []
    assert workshop.store().current_id() == older


def test_age_of_the_snapshot_is_what_a_crash_would_cost(workshop: Workshop) -> None:
    trainer = workshop.trainer(before_publish=disk_full(*range(2, 100)))
    trainer.run(StopSignal(), until_end=True)
    assert workshop.count("snapshot_age_seconds") > 20.0
    workshop.run_to_end()
    assert workshop.count("snapshot_age_seconds") == 0.0


# What it survives


@pytest.mark.parametrize("when", ["before_publish", "after_publish"])
def test_trainer_that_crashes_again_and_again_ends_with_the_bits_of_one_that_never_did(
    workshop: Workshop, expected: dict[str, str], when: str
) -> None:
    for crash_at in (3, 2, 1):
        faults: dict[str, Callable[[], None]] = {when: on_calls([crash_at], Crash())}
        with pytest.raises(Crash):
            workshop.run_to_end(**faults)
    assert workshop.log.committed() != workshop.log.end_positions()
    workshop.run_to_end()
    assert hashes_of(workshop.loop) == _stored_hashes(workshop) == expected
    assert workshop.log.committed() == workshop.log.end_positions()


def test_trainer_that_crashes_in_mid_step_ends_with_the_same_bits(
    workshop: Workshop, expected: dict[str, str]
) -> None:
    for ordinal in (13, 31):
        watcher = Trace()
        watcher.when_asked = lambda demand, last=ordinal: _crash_at(demand.ordinal, last)
        with pytest.raises(Crash):
            workshop.trainer(observers=(watcher,)).run(StopSignal(), until_end=True)
    workshop.trainer(observers=(Trace(),)).run(StopSignal(), until_end=True)
    assert _learners_of(hashes_of(workshop.loop)) == _learners_of(expected)


def _crash_at(ordinal: int, last: int) -> None:
    if ordinal == last:
        raise Crash


def _damage(folder: Path) -> Path:
    """Turn one byte of a snapshot's largest file round."""
    largest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)
    return largest


def test_trainer_goes_on_from_the_snapshot_before_a_damaged_one(
    workshop: Workshop, expected: dict[str, str]
) -> None:
    workshop.run_to_end()
    current = workshop.store().current_id()
    assert current is not None
    _damage(workshop.snapshots / current)
    trainer = workshop.trainer()
    assert 0 < trainer.positions[PARTITION] < workshop.log.end_positions()[PARTITION]
    trainer.run(StopSignal(), until_end=True)
    assert hashes_of(workshop.loop) == _stored_hashes(workshop) == expected
    assert workshop.store().verify("current") == []


def test_trainer_refuses_to_begin_anew_beside_damaged_snapshots(workshop: Workshop) -> None:
    workshop.run_to_end()
    for snapshot_id in workshop.store().ids():
        damaged = _damage(workshop.snapshots / snapshot_id)
    with pytest.raises(SnapshotError, match=r"^no snapshot is whole; the newest: ") as caught:
        workshop.trainer()
    assert damaged.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trainer_refuses_snapshots_made_with_other_settings(workshop: Workshop) -> None:
    workshop.run_to_end()
    workshop.settings = tiny_settings("ranking.learning_rate=0.5")
    with pytest.raises(ConfigError, match=r"^ranking: differs from what snapshot \S+ was made"):
        workshop.trainer()
    workshop.settings = tiny_settings("seed=43")
    with pytest.raises(ConfigError, match=r"^seed: differs from what snapshot \S+ was made"):
        workshop.trainer()


@pytest.mark.parametrize(
    "name",
    ["max_records", "poll_timeout_s", "queue_events", "queue_bytes", "retry_s", "unready_after_s"],
)
def test_config_names_the_key_when_not_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^trainer\.{name} must be positive, got 0"):
        TrainerConfig(**{name: 0})  # type: ignore[arg-type]


def test_config_names_the_choices_on_a_gap() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.on_gap must be fail or skip, got 'stop'"):
        TrainerConfig(on_gap="stop")  # type: ignore[arg-type]
