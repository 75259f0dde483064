"""A log read from end to end through the stream's own parts, without learning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console
from rich.table import Table

from app.settings import Settings
from domain.errors import DecodeError, LogError, SchemaError
from domain.event_log import Record, advance
from domain.events import Event, Feedback, Impression, ItemUpdate, UserUpdate
from stream.bulk_decode import decode_records
from stream.codec import BadEvent
from stream.deduplicator import Deduplicator
from stream.feature_store import FeatureStore
from stream.joiner import Joiner
from stream.open_log import open_log
from stream.watermark import Watermark

_READ = 5_000
_SHOWN_PROBLEMS = 20
_KINDS: dict[type[Event], str] = {
    Impression: "impressions",
    Feedback: "feedback",
    ItemUpdate: "item updates",
    UserUpdate: "user updates",
}


@dataclass(slots=True)
class Problem:
    """A reason for dead letters, and where it was met first."""

    first_at: str
    count: int = 1


@dataclass(slots=True)
class LogFindings:
    """What was found in a log.

    Attributes:
        kinds: events of each kind.
        problems: the first reasons for which events would become dead letters.
    """

    records: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    late: int = 0
    undecodable: int = 0
    contradictory: int = 0
    against_schema: int = 0
    problems: dict[str, Problem] = field(default_factory=dict)

    @property
    def dead_letters(self) -> int:
        """Return how many events would be set aside."""
        return self.undecodable + self.contradictory + self.against_schema


class LogValidator:
    """Leads records through the stream's parts in the loop's order, without models."""

    def __init__(self, settings: Settings) -> None:
        schema = settings.schema_declared
        self._deduplicator = Deduplicator(settings.deduplicator)
        self._watermark = Watermark(settings.watermark)
        self._store = FeatureStore(schema, settings.feature_store)
        self.joiner = Joiner(schema, settings.joiner, settings.seed)
        self.findings = LogFindings()

    def observe(self, record: Record, entries: Sequence[Event | BadEvent]) -> None:
        """Check one record, decoded."""
        found = self.findings
        found.records += 1
        for index, event in enumerate(entries):
            where = f"{record.where}#{index}" if index else record.where
            if isinstance(event, BadEvent):
                found.undecodable += 1
                self._note(where, event.reason)
                continue
            try:
                self._lead(event)
            except SchemaError as error:
                found.against_schema += 1
                self._note(where, str(error))
            except DecodeError as error:
                found.contradictory += 1
                self._note(where, error.reason)

    def _lead(self, event: Event) -> None:
        found = self.findings
        self._store.check(event)
        self.joiner.items_to_score(event)
        if self._deduplicator.seen(event.event_id, event.time_ms):
            found.duplicates += 1
            return
        found.kinds[_KINDS[type(event)]] += 1
        found.late += self._watermark.observe(event.time_ms)
        self.joiner.observe(event)
        self.joiner.advance(self._watermark.time_ms)
        self.joiner.take_finished()

    def _note(self, where: str, reason: str) -> None:
        problems = self.findings.problems
        if reason in problems:
            problems[reason].count += 1
        elif len(problems) < _SHOWN_PROBLEMS:
            problems[reason] = Problem(where)


def validate_log(settings: Settings) -> bool:
    """Print what is found; returns whether no event would become a dead letter.

    Raises:
        LogError: there is no log, or it cannot be read.
    """
    if not settings.data.log and not settings.data.embedded_log.exists():
        raise LogError(f"{settings.data.embedded_log}: there is no event log yet")
    log = open_log(settings.data.log_url, kafka=settings.kafka)
    validator = LogValidator(settings)
    positions = log.beginning_positions()
    with Console(stderr=True).status("reading"):
        while records := log.read(positions, max_records=_READ, timeout_s=0.0):
            entries = decode_records([record.value for record in records])
            for record, held in zip(records, entries, strict=True):
                validator.observe(record, held)
            positions = advance(positions, records)
    log.close()
    _print(validator, Console())
    return validator.findings.dead_letters == 0


def _print(validator: LogValidator, console: Console) -> None:
    found, counts = validator.findings, validator.joiner.counts
    table = Table("what", "count", title=f"{found.records:,} records")
    rows = {
        **{kind: found.kinds[kind] for kind in _KINDS.values()},
        "repeated event ids": found.duplicates,
        "late events": found.late,
        "feedback too late for its impression": counts.feedback_late,
        "feedback without a known impression": counts.feedback_organic + counts.feedback_orphaned,
        "feedback of kinds no label head uses": counts.feedback_unlabelled,
        "undecodable": found.undecodable,
        "contradictory": found.contradictory,
        "against the schema": found.against_schema,
    }
    table.columns[1].justify = "right"
    for name, count in rows.items():
        table.add_row(name, f"{count:,}")
    console.print(table)
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    for reason, problem in found.problems.items():
        times = f" (and {problem.count - 1:,} more)" if problem.count > 1 else ""
        say(f"{problem.first_at}: {reason}{times}")
    others = found.dead_letters - sum(problem.count for problem in found.problems.values())
    if others:
        say(f"... and {others:,} events with other problems")
