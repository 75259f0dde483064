"""Records of many events, and reading ahead: nothing is led twice, and a thread changes no bit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event as StopSignal
from typing import Any

import pytest

from domain.errors import DecodeError, LogUnavailableError, SchemaError
from domain.events import Event, Feedback, Impression, event_key
from stream.codec import BadEvent, decode_record, encode
from stream.columnar_build import encode_columnar
from stream.sqlite_log import PARTITION
from stream.train_loop import TrainLoop
from tests.loop_worlds import hashes_of, make_loop, tiny_settings, tiny_world
from tests.trainer_worlds import FaultyLog, Workshop, unavailable

SETTINGS = tiny_settings(
    "trainer.max_records=10",
    "trainer.queue_events=16",
    "trainer.poll_timeout_s=0.001",
    "trainer.retry_s=0.001",
    "checkpoint.every_s=1",
)


@pytest.fixture(scope="module")
def world() -> tuple[Any, list[Event]]:
    return tiny_world(40)


def _strangers(events: list[Event]) -> list[Feedback]:
    """Feedback on an item that the last of these impressions did not show; none without one."""
    return [
        Feedback(
            event_id=f"stranger-to-{shown.event_id}",
            time_ms=shown.time_ms + 1,
            user_id=shown.user_id,
            item_id="never-shown",
            kind="click",
            impression_id=shown.event_id,
        )
        for shown in [one for one in events if isinstance(one, Impression)][-1:]
    ]


def _values(events: list[Event]) -> list[tuple[str, bytes]]:
    """Records of one event and of many in turn, with what cannot be used among both."""
    records: list[tuple[str, bytes]] = []
    for start in range(0, len(events), 12):
        part = events[start : start + 12]
        records += [(event_key(event), encode(event)) for event in part[:5]]
        if part[5:]:
            many = [*part[5:9], *_strangers(part[:9]), *part[9:]]
            records.append(("many", encode_columnar(many)))
    return [*records, ("somebody", b"\xff\x00 garbage")]


def _synchronously(loop: TrainLoop, values: list[tuple[str, bytes]]) -> dict[str, str]:
    """What a trainer without a thread, a queue or a log does: the slow twin."""
    for _, value in values:
        for entry in decode_record(value):
            if isinstance(entry, BadEvent):
                loop.set_aside()
                continue
            try:
                loop.process(entry)
            except (DecodeError, SchemaError):
                loop.set_aside()
    return hashes_of(loop)


@pytest.fixture
def workshop(tmp_path: Path, world: Any) -> Iterator[Workshop]:
    schema, events = world
    workshop = Workshop(tmp_path, schema, SETTINGS)
    workshop.log.append_raw(_values(events))
    yield workshop
    workshop.close()


@pytest.fixture(scope="module")
def expected(world: Any) -> dict[str, str]:
    schema, events = world
    return _synchronously(make_loop(schema, SETTINGS), _values(events))


def test_reading_ahead_in_a_thread_changes_no_bit(
    workshop: Workshop, expected: dict[str, str], world: Any
) -> None:
    trainer = workshop.run_to_end()
    assert hashes_of(workshop.loop) == expected
    assert trainer.positions == workshop.log.end_positions()
    assert workshop.loop.counts.events > len(world[1])


def test_events_of_a_record_are_set_aside_one_by_one_with_their_place_in_it(
    workshop: Workshop, world: Any
) -> None:
    workshop.run_to_end()
    letters = workshop.log.dead_letters()
    strangers = [one for one in letters if one.key == "many"]
    assert len(strangers) > 5
    assert {one.index for one in strangers[:-1]} == {4}
    assert len({one.where for one in letters}) == len(letters) == len(strangers) + 1
    for letter in strangers:
        (event,) = decode_record(letter.value)  # its own bytes alone: it can be led again
        assert isinstance(event, Feedback)
        assert event.item_id == "never-shown"
    assert (letters[-1].value, letters[-1].index) == (b"\xff\x00 garbage", 0)


def test_events_before_one_that_could_not_be_set_aside_are_not_led_again(
    workshop: Workshop, expected: dict[str, str]
) -> None:
    workshop.run_to_end(log=FaultyLog(workshop.log, dead_letter=unavailable(1, 2, 5, 6, 7)))
    assert hashes_of(workshop.loop) == expected
    assert workshop.loop.counts.duplicates == 0
    assert workshop.count("stream_log_failures_total") == 5.0


def test_half_of_a_record_is_never_published(workshop: Workshop, expected: dict[str, str]) -> None:
    stop = StopSignal()
    calls: list[None] = []

    def away() -> None:
        calls.append(None)
        if len(calls) > 1:  # the second letter, in the middle of a record of many
            stop.set()
            raise LogUnavailableError("the log is away")

    trainer = workshop.trainer(log=FaultyLog(workshop.log, dead_letter=away))
    trainer.run(stop)
    snapshot = workshop.store().load("current")
    assert snapshot.manifest.positions[PARTITION] <= trainer.positions[PARTITION]
    # The loop has led events of a record that has not ended.
    assert snapshot.states["stream"]["counts"]["events"] < workshop.loop.counts.events
    workshop.run_to_end()
    assert hashes_of(workshop.loop) == expected
    assert workshop.loop.counts.duplicates == 0
