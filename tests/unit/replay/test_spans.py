"""Parts of a stream, and a log as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import ConfigError
from domain.events import Event, Feedback, Impression, ItemUpdate, ShownItem
from domain.features import FeatureSchema
from replay.dataset import JoinerHints
from replay.log_dataset import LogDataset
from replay.spans import Span, time_of
from stream.sqlite_log import SqliteLog


def shown(name: str, time_ms: int) -> Impression:
    items = (ShownItem(item_id="a", position=0),)
    return Impression(event_id=name, time_ms=time_ms, user_id="ann", items=items)


def done(name: str, time_ms: int, impression_id: str | None = None) -> Feedback:
    return Feedback(
        event_id=name,
        time_ms=time_ms,
        user_id="ann",
        item_id="a",
        kind="click",
        impression_id=impression_id,
    )


class Story:
    name = "story"
    schema = FeatureSchema()
    num_events_hint = 9
    joiner_hints = JoinerHints()

    def events(self) -> Iterator[Event]:
        yield ItemUpdate(event_id="item", time_ms=1, item_id="a")
        yield shown("early", 10)
        yield done("organic early", 11)
        yield shown("inside", 20)
        yield done("answers early", 21, "early")
        yield done("organic inside", 22)
        yield shown("late", 30)
        yield done("answers inside", 31, "inside")
        yield done("answers late", 32, "late")
        yield ItemUpdate(event_id="later item", time_ms=33, item_id="b")


def ids(from_ms: int | None, until_ms: int | None) -> list[str]:
    return [event.event_id for event in Span(Story(), from_ms, until_ms).events()]


def test_span_keeps_its_lists_with_all_their_answers_and_what_was_known_before() -> None:
    assert ids(15, 30) == ["item", "inside", "organic inside", "answers inside"]


def test_span_without_limits_is_the_whole_dataset() -> None:
    assert ids(None, None) == [event.event_id for event in Story().events()]
    assert Span(Story(), None, None).name == "story"


def test_span_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--until: expected later than --from 9, got 9"):
        Span(Story(), 9, 9)


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("1700000000000", 1_700_000_000_000),
        ("1970-01-02", 86_400_000),
        ("19700102", 86_400_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:01", 1_000),
    ],
)
def test_time_is_read_as_utc_or_with_its_offset(text: str, time_ms: int) -> None:
    assert time_of(text, "--from") == time_ms


def test_time_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--from: expected a time such as .*, got 'soon'"):
        time_of("soon", "--from")


def test_log_is_read_as_far_as_it_reached_and_bad_records_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path)
    told = list(Story().events())
    log.append(told[:4])
    log.append_raw([("ann", b"no event")])
    dataset = LogDataset("sqlite", FeatureSchema(), lambda: SqliteLog(path))
    assert dataset.num_events_hint == 5
    log.append(told[4:])
    log.close()
    for _ in range(2):
        assert list(dataset.events()) == told[:4]
        assert dataset.undecodable == 1
