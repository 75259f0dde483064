"""Which dead letters a command is about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from domain.errors import ConfigError
from domain.event_log import DeadLetter

_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_AGE = re.compile(r"(\d{1,9})([smhd])")


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """What a letter must be to count; what is None does not matter.

    Attributes:
        since_ms: set aside at this time or later.
        until_ms: set aside before this time.
        reason: text that the reason holds, in capitals or not.
        partition: where the record stood, e.g. "events/0".
        redriven: whether it was appended again already.
        limit: so many of them, oldest first.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    reason: str | None = None
    partition: str | None = None
    redriven: bool | None = None
    limit: int | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether a letter is one of those meant; the limit apart."""
        return (
            (self.since_ms is None or letter.time_ms >= self.since_ms)
            and (self.until_ms is None or letter.time_ms < self.until_ms)
            and (self.reason is None or self.reason.casefold() in letter.reason.casefold())
            and (self.partition is None or letter.partition == self.partition)
            and (self.redriven is None or (letter.redriven_ms is not None) == self.redriven)
        )

    def choose(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Return the letters that match, as many as the limit lets through."""
        return [letter for letter in letters if self.matches(letter)][: self.limit]


def time_from(flag: str, text: str, now_ms: int) -> int:
    """Return the time that a flag's text stands for, in ms since 1970 UTC.

    It is an age, or a date with or without a time, in UTC unless it says otherwise.

    >>> time_from("--since", "2h", 10_000_000)
    2800000
    >>> time_from("--since", "1970-01-02", 0), time_from("--since", "1970-01-01T01:00+01:00", 0)
    (86400000, 0)

    Raises:
        ConfigError: it is neither.
    """
    age = _AGE.fullmatch(text)
    if age is not None:
        return now_ms - int(age[1]) * _UNIT_MS[age[2]]
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{flag}: expected an age such as 30m, 2h or 7d, or a time such as "
            f"2026-01-31T08:00, got {text!r}"
        ) from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return round(time.timestamp() * 1_000)


def time_text(time_ms: int) -> str:
    """Return a time as people read it, UTC, to the second.

    >>> time_text(1_700_000_000_000)
    '2023-11-14 22:13:20'
    """
    return f"{datetime.fromtimestamp(time_ms // 1_000, UTC):%Y-%m-%d %H:%M:%S}"
