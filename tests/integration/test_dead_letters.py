"""`headrace dead-letters` on real logs: what is seen, what is sent again, and what that does."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from app.dead_letter_redrive import append_and_mark
from domain.clock import ManualClock
from domain.event_log import DeadLetter, EventLog, Positions, advance
from domain.events import Event, Feedback, ItemUpdate
from domain.features import FeatureSchema, Field
from domain.state import state_hash
from stream.checkpoint import states_of
from stream.codec import encode
from stream.sqlite_log import PARTITION, SqliteLog
from tests import kafka_broker
from tests.command_line import ROOT, Headrace, quiet_surroundings
from tests.loop_worlds import SMALL_MODELS, lead, make_loop, tiny_settings, tiny_world
from tests.trainer_worlds import Crash, FaultyLog, Workshop, on_calls

pytestmark = pytest.mark.filterwarnings("ignore:(open|read)_text is deprecated:DeprecationWarning")

CLICK = Feedback(event_id="c1", time_ms=5_000, user_id="ann", item_id="i1", kind="click")
OTHER = replace(CLICK, event_id="c2", user_id="bob")
ITEM = ItemUpdate(event_id="i1", time_ms=5_000, item_id="i1")
GARBAGE = b"\xff\x00 no event"
HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with quiet_surroundings(monkeypatch):
        yield


@pytest.fixture
def headrace(capsys: pytest.CaptureFixture[str]) -> Headrace:
    return Headrace(capsys)


def letters(partition: str = PARTITION) -> list[DeadLetter]:
    """Two that can be decoded by now, one in JSON, and one that never was an event."""
    return [
        DeadLetter(partition, 3, "ann", encode(CLICK), "no such context field [tab]", 1_000),
        DeadLetter(partition, 4, "", GARBAGE, "expected an Event", HOUR_MS),
        DeadLetter(partition, 9, "bob", encode(OTHER), "no such context field", 2 * HOUR_MS),
    ]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with closing(SqliteLog(tmp_path / "events.sqlite")) as log:
        for letter in letters():
            log.dead_letter(letter)
        yield log


@pytest.fixture
def ask(headrace: Headrace, log: SqliteLog, tmp_path: Path) -> Callable[..., Any]:
    def ask_about(line: str) -> Any:
        return headrace("dead-letters", *line.split(), "--data-dir", tmp_path)

    return ask_about


def values_of(log: EventLog, positions: Positions | None = None) -> list[bytes]:
    positions = log.beginning_positions() if positions is None else positions
    values: list[bytes] = []
    while records := log.read(positions, max_records=100, timeout_s=0.5):
        values += [record.value for record in records]
        positions = advance(positions, records)
    return values


def marked(log: EventLog) -> list[str]:
    return [letter.where for letter in log.dead_letters() if letter.redriven_ms is not None]


# Looking


def test_list_shows_place_time_size_and_reason_of_each_letter(ask: Callable[..., Any]) -> None:
    ended = ask("list")
    assert (ended.code, ended.err) == (0, "")
    rows = [line for line in ended.out.splitlines() if line.startswith(f" {PARTITION}")]
    assert [row.split()[0] for row in rows] == ["events/0@3", "events/0@4", "events/0@9"]
    assert rows[1].split()[1:5] == ["1970-01-01", "01:00", str(len(GARBAGE)), "B"]
    assert "[tab]" in ended.out
    assert ended.out.endswith("3 shown of 3 dead letters, 0 of them redriven.\n")
    assert max(len(line) for line in ended.out.splitlines()) <= 80


@pytest.mark.parametrize(
    ("flags", "offsets"),
    [
        ("", [3, 4, 9]),
        ("--since 1970-01-01T01:00", [4, 9]),
        ("--until 1970-01-01T01:00", [3]),
        ("--since 1970-01-01 --until 1970-01-01T03:00+02:00", [3]),
        ("--since 1d", []),
        ("--until 1d", [3, 4, 9]),
        ("--reason CONTEXT", [3, 9]),
        ("--reason CONTEXT --limit 1", [3]),
        ("--partition events/0", [3, 4, 9]),
        ("--partition events/1", []),
        ("--redriven", [9]),
        ("--not-redriven", [3, 4]),
    ],
)
def test_filters_choose_letters(
    ask: Callable[..., Any], log: SqliteLog, flags: str, offsets: list[int]
) -> None:
    log.mark_redriven(letters()[2:], 3 * HOUR_MS)
    ended = ask(f"list --json {flags}")
    found = json.loads(ended.out)
    assert found["total"] == 3
    assert [letter["offset"] for letter in found["letters"]] == offsets
    assert f"{len(offsets)} shown of 3 dead letters, 1 of them" in ask(f"list {flags}").out


def test_json_holds_everything_of_a_letter(ask: Callable[..., Any], log: SqliteLog) -> None:
    log.dead_letter(DeadLetter(PARTITION, 9, "bob", b"x", "of the same record", 5, index=2))
    found = json.loads(ask("list --json").out)["letters"]
    assert found[1] == {
        "where": "events/0@4",
        "partition": "events/0",
        "offset": 4,
        "index": 0,
        "time_ms": HOUR_MS,
        "reason": "expected an Event",
        "key": "",
        "redriven_ms": None,
        "value_base64": base64.b64encode(GARBAGE).decode(),
    }
    assert found[3]["where"] == "events/0@9#2"


def test_show_decodes_what_can_be_decoded_now(ask: Callable[..., Any], log: SqliteLog) -> None:
    log.mark_redriven(letters()[:1], HOUR_MS)
    ended = ask("show events/0@3")
    assert (ended.code, ended.err) == (0, "")
    for line in (
        "where      events/0@3",
        "reason     no such context field [tab]",
        "key        'ann'",
        "redriven   1970-01-01 01:00:00 UTC",
        '  "event_id": "c1",',
    ):
        assert line in ended.out.splitlines()


def test_show_dumps_bytes_that_are_no_text(ask: Callable[..., Any]) -> None:
    lines = ask("show events/0@4").out.splitlines()
    assert any(line.startswith("It cannot be decoded now: expected a headrace") for line in lines)
    dump = "00000000  ff 00 20 6e 6f 20 65 76 65 6e 74                 .. no event"
    assert lines[-2:] == ["The original 11 bytes:", dump]


def test_show_names_a_place_where_there_is_no_letter(ask: Callable[..., Any]) -> None:
    ended = ask("show events/0@5")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("headrace: no dead letter at events/0@5; `headrace dead-letters")


# Sending again


def test_redrive_sends_what_can_be_decoded_and_leaves_the_rest(
    ask: Callable[..., Any], log: SqliteLog
) -> None:
    ended = ask("redrive --yes")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.startswith("events/0@4: left, it still cannot be decoded: expected a headrace")
    assert ended.out.endswith("\n2 dead letters redriven; 1 left, --force sends them anyway.\n")
    records = log.read({}, max_records=10, timeout_s=0.0)
    assert [(one.key, one.value) for one in records] == [
        ("ann", encode(CLICK)),
        ("bob", encode(OTHER)),
    ]
    assert marked(log) == ["events/0@3", "events/0@9"]


def test_redrive_sends_nothing_twice_unless_asked_to(
    ask: Callable[..., Any], log: SqliteLog
) -> None:
    assert ask("redrive --reason context --yes").code == 0
    assert ask("redrive --reason context --yes").out == "0 dead letters redriven.\n"
    assert len(values_of(log)) == 2
    ended = ask("redrive events/0@9 --again --yes")
    assert (ended.code, ended.out) == (0, "1 dead letters redriven.\n")
    assert values_of(log) == [encode(CLICK), encode(OTHER), encode(OTHER)]


def test_redrive_forced_sends_the_very_bytes(ask: Callable[..., Any], log: SqliteLog) -> None:
    assert ask("redrive events/0@4 --force --yes").code == 0
    assert values_of(log) == [GARBAGE]
    assert marked(log) == ["events/0@4"]


def test_dry_run_says_what_would_be_done_and_does_nothing(
    ask: Callable[..., Any], log: SqliteLog
) -> None:
    ended = ask("redrive --dry-run")
    assert ended.code == 1
    assert ended.out.endswith(
        "2 dead letters would be redriven; 1 left, --force sends them anyway.\n"
    )
    assert (values_of(log), marked(log)) == ([], [])


def test_redrive_without_a_terminal_must_be_told_yes(
    ask: Callable[..., Any], log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    ended = ask("redrive --reason context")
    assert ended.code == 2
    assert ended.err == "headrace: --yes: expected, as there is no terminal to ask at\n"
    assert (values_of(log), marked(log)) == ([], [])


@pytest.mark.parametrize(("answer", "code", "count"), [("n", 1, 0), ("y", 0, 2)])
def test_redrive_asks_at_a_terminal(
    log: SqliteLog, tmp_path: Path, answer: str, code: int, count: int
) -> None:
    ours, theirs = pty.openpty()
    words = ["dead-letters", "redrive", "--reason", "context", "--data-dir", str(tmp_path)]
    command = [sys.executable, "-m", "app.cli", *words]
    with os.fdopen(ours, "wb", buffering=0) as keyboard, os.fdopen(theirs, "rb") as terminal:
        keyboard.write(f"{answer}\n".encode())
        ended = subprocess.run(command, cwd=ROOT, stdin=terminal, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    assert re.search(r"Append 2 dead letters to sqlite:.* again\?", ended.stderr)
    assert (len(values_of(log)), len(marked(log))) == (count, count)


# What it does to the model


SETTINGS = tiny_settings("trainer.poll_timeout_s=0.001", "checkpoint.every_s=1")


def _a_missing_answer(events: Sequence[Event]) -> tuple[list[Event], Feedback, list[Event]]:
    """Events without one click, the click, and the events that come after it was redriven."""
    half = len(events) // 2
    click = next(one for one in reversed(events[:half]) if isinstance(one, Feedback))
    return [one for one in events[:half] if one != click], click, list(events[half:])


def _learned(loop: Any) -> dict[str, str]:
    """A hash of all that events have an effect on; how many came twice is not."""
    states = states_of(loop)
    del states["stream"]["counts"]
    return {name: state_hash(state) for name, state in states.items()}


@pytest.mark.parametrize("crashes", [0, 1, 3])
def test_redriven_event_is_learned_once_whatever_crashes_in_between(
    tmp_path: Path, headrace: Headrace, crashes: int
) -> None:
    schema, events = tiny_world(50)
    before, click, after = _a_missing_answer(events)
    workshop = Workshop(tmp_path, schema, SETTINGS)
    workshop.log.append(before)
    # Set aside by a version that could not read it yet.
    workshop.log.dead_letter(DeadLetter(PARTITION, 7, click.user_id, encode(click), "old", 1))
    workshop.run_to_end()
    for _ in range(crashes):
        dying = FaultyLog(workshop.log, mark_redriven=on_calls([1], Crash()))
        with pytest.raises(Crash):
            append_and_mark(cast(EventLog, dying), workshop.log.dead_letters(), ManualClock())
        workshop.run_to_end()
    assert headrace("dead-letters", "redrive", "--yes", "--data-dir", tmp_path).code == 0
    workshop.log.append(after)
    workshop.run_to_end()

    expected = lead(make_loop(schema, SETTINGS), [*before, click, *after])
    without = lead(make_loop(schema, SETTINGS), [*before, *after])
    assert _learned(workshop.loop) == _learned(expected)
    assert _learned(without)["ranking"] != _learned(expected)["ranking"], "it must matter"
    assert workshop.loop.counts.duplicates == crashes
    assert marked(workshop.log) == [f"{PARTITION}@7"]
    workshop.close()


def _with_field(schema: FeatureSchema) -> FeatureSchema:
    colour = Field(name="colour", entity="item", kind="categorical")
    return replace(schema, fields=(*schema.fields, colour))


def test_record_set_aside_again_gets_an_entry_of_its_own(
    tmp_path: Path, headrace: Headrace
) -> None:
    schema, events = tiny_world(10)
    workshop = Workshop(tmp_path, schema, SETTINGS)
    odd = ItemUpdate(event_id="odd", time_ms=1, item_id="i1", features={"colour": "red"})
    workshop.log.append([odd, *events])
    workshop.run_to_end()
    assert headrace("dead-letters", "redrive", "--yes", "--data-dir", tmp_path).code == 0
    workshop.run_to_end()
    found = workshop.log.dead_letters()
    assert [one.offset for one in found] == [0, 1 + len(events)]
    assert [one.value for one in found] == [encode(odd)] * 2
    assert [one.redriven_ms is None for one in found] == [False, True]
    workshop.close()


def test_record_that_was_learned_from_its_old_place_is_not_learned_again(
    tmp_path: Path, headrace: Headrace
) -> None:
    schema, events = tiny_world(30)
    odd = ItemUpdate(
        event_id="odd", time_ms=events[0].time_ms, item_id="i1", features={"colour": "red"}
    )
    refused = Workshop(tmp_path, schema, SETTINGS)
    refused.log.append([events[0], odd, *events[1:]])
    refused.run_to_end()
    assert [one.offset for one in refused.log.dead_letters()] == [1]
    refused.close()
    # The field is declared now, and a trainer begins anew on the same log.
    fixed = Workshop(tmp_path, _with_field(schema), SETTINGS)
    fixed.snapshots = tmp_path / "anew"
    assert headrace("dead-letters", "redrive", "--yes", "--data-dir", tmp_path).code == 0
    fixed.run_to_end()
    expected = lead(make_loop(_with_field(schema), SETTINGS), [events[0], odd, *events[1:]])
    assert _learned(fixed.loop) == _learned(expected)
    assert fixed.loop.counts.duplicates == 1
    assert len(fixed.log.dead_letters()) == 1
    fixed.close()


# The page


def test_worked_example_of_the_page_works(
    headrace: Headrace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADRACE_METRICS__TRAINER_PORT", "0")
    page = (ROOT / "docs" / "dead-letters.md").read_text().partition("## A worked example")[2]
    ended = []
    for language, block in re.findall(
        r"^```(sh|python)\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    ):
        if language == "python":
            exec(block, {})
            continue
        lines = block.splitlines()
        ended += [headrace(*shlex.split(line)[1:], *_fewer_weights(line)) for line in lines]
    assert [one.code for one in ended] == [0, 0, 0, 1]
    place, reason = "events/0@1241", "user_id: missing"
    for text in (place, reason):
        assert f"`{text}`" in page
        assert text in ended[2].out
    assert ended[3].out.startswith(f"{place}: left, it still cannot be decoded: {reason}\n")


def _fewer_weights(line: str) -> list[str]:
    small = line.startswith("headrace train ")
    return [word for setting in SMALL_MODELS for word in ("--set", setting)] if small else []


# Kafka


def test_letters_of_a_real_cluster_go_back_to_their_topics(headrace: Headrace) -> None:
    config = kafka_broker.fresh_config()
    place = ["--log", f"kafka://{kafka_broker.bootstrap()}"]
    place += [
        "--set",
        f"kafka.topic_prefix={config.topic_prefix}",
        "--set",
        "kafka.num_partitions=2",
    ]
    events = f"{config.events_topic}/1"
    item = DeadLetter(f"{config.items_topic}/0", 2, "i1", encode(ITEM), "no such item field", 9)
    with closing(kafka_broker.KafkaLog(kafka_broker.bootstrap(), config)) as log:
        for letter in [*letters(events), item]:
            log.dead_letter(letter)
        dying = FaultyLog(cast(Any, log), mark_redriven=on_calls([1], Crash()))
        with pytest.raises(Crash):
            append_and_mark(cast(EventLog, dying), [item], ManualClock())
        assert marked(log) == []

        ended = headrace("dead-letters", "list", "--json", *place)
        assert (ended.code, ended.err) == (0, "")
        listed = json.loads(ended.out)
        assert [one["where"] for one in listed["letters"]][3] == f"{config.items_topic}/0@2"
        shown = headrace("dead-letters", "show", f"{events}@3", *place)
        assert '  "event_id": "c1",' in shown.out.splitlines()
        ended = headrace("dead-letters", "redrive", "--yes", *place)
        assert ended.out.endswith("3 dead letters redriven; 1 left, --force sends them anyway.\n")
        assert headrace("dead-letters", "redrive", "--yes", *place).out.endswith(
            "0 dead letters redriven; 1 left, --force sends them anyway.\n"
        )

        records = log.read({}, max_records=100, timeout_s=5.0)
        stored = sorted((one.partition.rpartition("/")[0], one.key) for one in records)
        item_copies = [(config.items_topic, "i1")] * 2  # one before the crash, one after
        assert stored == [(config.events_topic, "ann"), (config.events_topic, "bob"), *item_copies]
        assert marked(log) == [f"{events}@3", f"{events}@9", f"{config.items_topic}/0@2"]
