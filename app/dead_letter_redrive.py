"""What `headrace dead-letters redrive` does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import typer
from rich.console import Console

from app.dead_letter_care import find, letters_log, problem_of
from app.dead_letter_filter import LetterFilter
from app.settings import Settings
from domain.clock import Clock, SystemClock
from domain.errors import ConfigError
from domain.event_log import DeadLetter, EventLog

_BATCH = 500
"""Letters appended before they are marked: what a crash in between sends a second time."""

_SHOWN_REFUSALS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveChoice:
    """Which letters to append again, and how.

    Attributes:
        places: these alone, as `list` prints them; empty for all that match.
        wanted: what a letter must be.
        again: take those too that were redriven before.
        force: send those too that cannot be decoded.
        dry_run: say what would be done, and do nothing.
        yes: do not ask.
    """

    places: Sequence[str] = ()
    wanted: LetterFilter
    again: bool = False
    force: bool = False
    dry_run: bool = False
    yes: bool = False


def redrive(settings: Settings, choice: RedriveChoice, clock: Clock | None = None) -> int:
    """Append the bytes of letters again, and mark them; returns the exit code.

    It is 1 when a letter was left because it still cannot be decoded.

    Raises:
        ConfigError: there is no terminal to ask at.
        LogError: there is no such letter, or the log refuses.
    """
    say = Console(highlight=False, markup=False, soft_wrap=True).print
    with letters_log(settings) as log:
        chosen = _chosen(log.dead_letters(), choice)
        sound, refused = sort_out(chosen, force=choice.force)
        for letter, reason in refused[:_SHOWN_REFUSALS]:
            say(f"{letter.where}: left, it still cannot be decoded: {reason}")
        if len(refused) > _SHOWN_REFUSALS:
            say(f"... and {len(refused) - _SHOWN_REFUSALS:,} more")
        left = f"; {len(refused):,} left, --force sends them anyway" if refused else ""
        if choice.dry_run or not sound:
            would = "would be redriven" if choice.dry_run else "redriven"
            say(f"{len(sound):,} dead letters {would}{left}.")
        elif choice.yes or _agreed(len(sound), settings.data.log_url):
            append_and_mark(log, sound, clock or SystemClock())
            say(f"{len(sound):,} dead letters redriven{left}.")
        else:
            say("Nothing was redriven.")
            return 1
    return 1 if refused else 0


def sort_out(
    letters: Sequence[DeadLetter], *, force: bool
) -> tuple[list[DeadLetter], list[tuple[DeadLetter, str]]]:
    """Return the letters that may be sent, and the others with what is wrong with them."""
    sound: list[DeadLetter] = []
    refused: list[tuple[DeadLetter, str]] = []
    for letter in letters:
        problem = "" if force else problem_of(letter.value)
        if problem:
            refused.append((letter, problem))
        else:
            sound.append(letter)
    return sound, refused


def append_and_mark(log: EventLog, letters: Sequence[DeadLetter], clock: Clock) -> None:
    """Append letters again, oldest first, and remember that, batch by batch.

    1. Append the original bytes.
    2. Mark the letters as redriven.

    A crash between 1 and 2 leaves a batch appended and not marked; whoever redrives once more
    appends it a second time, which has no effect: the ids of its events are known. Marking first
    could lose events.
    """
    for start in range(0, len(letters), _BATCH):
        batch = letters[start : start + _BATCH]
        log.append_again(batch)
        log.mark_redriven(batch, clock.now_ms())


def _chosen(letters: Sequence[DeadLetter], choice: RedriveChoice) -> list[DeadLetter]:
    found = find(letters, choice.places) if choice.places else letters
    wanted = choice.wanted if choice.again else replace(choice.wanted, redriven=False)
    return wanted.choose(found)


def _agreed(count: int, url: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigError("--yes: expected, as there is no terminal to ask at")
    return typer.confirm(f"Append {count:,} dead letters to {url} again?", err=True)
