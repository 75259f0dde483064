"""Dead letters as records of a Kafka topic.

A letter is a record whose value is the original bytes and whose headers say where they came from
and why they were set aside. That a letter was redriven is one more record with the same key, whose
headers say when: nothing in the topic is ever changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from domain.errors import LogError
from domain.event_log import DeadLetter


def letter_headers(letter: DeadLetter) -> dict[str, str]:
    """Return all of a letter but its bytes, as texts by name."""
    marked = {} if letter.redriven_ms is None else {"redriven_ms": str(letter.redriven_ms)}
    return {
        **_place(letter),
        "key": letter.key,
        "reason": letter.reason,
        "time_ms": str(letter.time_ms),
        **marked,
    }


def mark_headers(letter: DeadLetter, time_ms: int) -> dict[str, str]:
    """Return what a mark says: which letter was redriven, and when."""
    return {**_place(letter), "redriven_ms": str(time_ms)}


def fold_letters(entries: Iterable[Any]) -> list[DeadLetter]:
    """Return the letters of a topic's entries, oldest first, each with its latest mark.

    Of a place that was set aside more than once the first letter counts. A mark without its letter
    says nothing.

    Raises:
        LogError: an entry is neither; names it.
    """
    letters: dict[str, DeadLetter] = {}
    marks: dict[str, int] = {}
    for entry in entries:
        try:
            texts = {name: raw.decode() for name, raw in entry.headers}
            if "reason" not in texts:
                marks[_where(texts)] = int(texts["redriven_ms"])
                continue
            letter = _letter(texts, entry.value or b"")
        except (KeyError, ValueError) as error:
            raise LogError(f"{entry.topic}@{entry.offset}: is not a dead letter of ours") from error
        letters.setdefault(letter.where, letter)
    return [
        replace(one, redriven_ms=marks.get(where, one.redriven_ms))
        for where, one in letters.items()
    ]


def _place(letter: DeadLetter) -> dict[str, str]:
    return {
        "partition": letter.partition,
        "offset": str(letter.offset),
        "index": str(letter.index),
    }


def _letter(texts: Mapping[str, str], value: bytes) -> DeadLetter:
    redriven = texts.get("redriven_ms")
    return DeadLetter(
        partition=texts["partition"],
        offset=int(texts["offset"]),
        key=texts["key"],
        value=value,
        reason=texts["reason"],
        time_ms=int(texts["time_ms"]),
        # Letters of earlier versions have none.
        index=int(texts.get("index", "0")),
        redriven_ms=None if redriven is None else int(redriven),
    )


def _where(texts: Mapping[str, str]) -> str:
    index = int(texts.get("index", "0"))
    place = DeadLetter(
        partition=texts["partition"],
        offset=int(texts["offset"]),
        key="",
        value=b"",
        reason="",
        time_ms=0,
        index=index,
    )
    return place.where
