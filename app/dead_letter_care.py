"""What `headrace dead-letters list` and `show` do."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.dead_letter_filter import LetterFilter, time_text
from app.settings import Settings
from domain.errors import ConfigError, LogError
from domain.event_log import DeadLetter, EventLog
from stream.codec import BadEvent, decode_record
from stream.event_json import to_json
from stream.open_log import open_log

_ROW_BYTES = 16
"""Bytes in a row of a dump."""


@contextmanager
def letters_log(settings: Settings) -> Iterator[EventLog]:
    """Open the log of the settings; looking makes no log.

    Raises:
        ConfigError: it is a recorded log.
        LogError: there is none yet, or it cannot be opened.
    """
    url = settings.data.log_url
    if url.startswith("file:"):
        raise ConfigError(f"data.log: a recorded log has no dead letters, got {url}")
    if not settings.data.log and not settings.data.embedded_log.exists():
        raise LogError(f"{settings.data.embedded_log}: there is no event log yet")
    log = open_log(url, kafka=settings.kafka)
    try:
        yield log
    finally:
        log.close()


def print_list(settings: Settings, wanted: LetterFilter, *, as_json: bool) -> None:
    """Print the letters that are wanted, oldest first, and how many there are in all."""
    with letters_log(settings) as log:
        letters = log.dead_letters()
    chosen = wanted.choose(letters)
    if as_json:
        facts = {"total": len(letters), "letters": [_facts(letter) for letter in chosen]}
        print(json.dumps(facts, ensure_ascii=False))
        return
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if chosen:
        Console(highlight=False).print(_table(chosen))
    redriven = sum(letter.redriven_ms is not None for letter in letters)
    console.print(
        f"{len(chosen):,} shown of {len(letters):,} dead letters, {redriven:,} of them redriven."
    )


def print_letter(settings: Settings, where: str) -> None:
    """Print everything about one letter.

    Raises:
        LogError: there is none at that place.
    """
    with letters_log(settings) as log:
        letter = find(log.dead_letters(), [where])[0]
    console = Console(highlight=False, markup=False, soft_wrap=True)
    redriven = "never" if letter.redriven_ms is None else f"{time_text(letter.redriven_ms)} UTC"
    console.print(f"where      {letter.where}")
    console.print(f"set aside  {time_text(letter.time_ms)} UTC")
    console.print(f"reason     {letter.reason}")
    console.print(f"key        {letter.key!r}")
    console.print(f"redriven   {redriven}")
    console.print(f"\n{_decoded(letter.value)}")
    console.print(f"\nThe original {len(letter.value):,} bytes:")
    console.print(readable(letter.value))


def find(letters: Sequence[DeadLetter], places: Sequence[str]) -> list[DeadLetter]:
    """Return the letters at these places.

    Raises:
        LogError: there is none at one of them.
    """
    by_place = {letter.where: letter for letter in letters}
    for place in places:
        if place not in by_place:
            raise LogError(f"no dead letter at {place}; `headrace dead-letters list` names them")
    return [by_place[place] for place in places]


def problem_of(value: bytes) -> str:
    """Return why bytes cannot be read as events now, "" when they can."""
    bad = [found for found in decode_record(value) if isinstance(found, BadEvent)]
    return bad[0].reason if bad else ""


def readable(value: bytes) -> str:
    """Return bytes as their text, or as a dump when they are none.

    >>> readable(b'{"a": 1}')
    '{"a": 1}'
    >>> print(readable(bytes(range(250, 256)) + b"abc"))
    00000000  fa fb fc fd fe ff 61 62 63                       ......abc
    """
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return _dump(value)
    # Control characters would reach the terminal, and steer it.
    if all(letter.isprintable() or letter in "\n\t" for letter in text):
        return text
    return _dump(value)


def _dump(value: bytes) -> str:
    rows = []
    for start in range(0, len(value), _ROW_BYTES):
        part = value[start : start + _ROW_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        rows.append(f"{start:08x}  {part.hex(' '):<{3 * _ROW_BYTES - 1}}  {text}")
    return "\n".join(rows)


def _decoded(value: bytes) -> str:
    problem = problem_of(value)
    if problem:
        return f"It cannot be decoded now: {problem}"
    events = [found for found in decode_record(value) if not isinstance(found, BadEvent)]
    texts = [json.dumps(to_json(event), indent=2, ensure_ascii=False) for event in events]
    return "\n".join(["It can be decoded now:", *texts])


def _table(letters: Sequence[DeadLetter]) -> Table:
    # A place that is cut is of no use: reasons are folded instead.
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("where", no_wrap=True)
    table.add_column("set aside\n(UTC)", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("redriven", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for letter in letters:
        redriven = "" if letter.redriven_ms is None else time_text(letter.redriven_ms)[5:16]
        table.add_row(
            Text(letter.where),
            time_text(letter.time_ms)[:16],
            f"{len(letter.value):,} B",
            redriven,
            Text(letter.reason),
        )
    return table


def _facts(letter: DeadLetter) -> dict[str, Any]:
    return {
        "where": letter.where,
        "partition": letter.partition,
        "offset": letter.offset,
        "index": letter.index,
        "time_ms": letter.time_ms,
        "reason": letter.reason,
        "key": letter.key,
        "redriven_ms": letter.redriven_ms,
        "value_base64": base64.b64encode(letter.value).decode(),
    }
