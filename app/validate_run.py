"""A log read from end to end through the stream's own parts, without learning."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from app.settings import Settings
from domain.errors import DecodeError, SchemaError
from domain.event_log import Record, advance
from domain.events import Event
from stream.codec import decode
from stream.deduplicator import Deduplicator
from stream.feature_store import FeatureStore
from stream.joiner import Joiner
from stream.open_log import open_log
from stream.watermark import Watermark

_READ = 5_000
_SHOWN_PROBLEMS = 20


@dataclass(slots=True)
class LogFindings:
    """What was found in a log.

    Attributes:
        problems: "position: reason" of the first records that would become dead letters.
    """

    records: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    late: int = 0
    undecodable: int = 0
    contradictory: int = 0
    against_schema: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def dead_letters(self) -> int:
        """Return how many records would be set aside."""
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

    def observe(self, record: Record) -> None:
        """Check one record."""
        found = self.findings
        found.records += 1
        try:
            event = decode(record.value)
        except DecodeError as error:
            found.undecodable += 1
            self._note(record, error.reason)
            return
        try:
            self._lead(event)
        except SchemaError as error:
            found.against_schema += 1
            self._note(record, str(error))
        except DecodeError as error:
            found.contradictory += 1
            self._note(record, error.reason)

    def _lead(self, event: Event) -> None:
        found = self.findings
        self._store.check(event)
        self.joiner.items_to_score(event)
        if self._deduplicator.seen(event.event_id, event.time_ms):
            found.duplicates += 1
            return
        kind = type(event).__name__
        found.kinds[kind] = found.kinds.get(kind, 0) + 1
        found.late += self._watermark.observe(event.time_ms)
        self.joiner.observe(event)
        self.joiner.advance(self._watermark.time_ms)
        self.joiner.take_finished()

    def _note(self, record: Record, reason: str) -> None:
        if len(self.findings.problems) < _SHOWN_PROBLEMS:
            self.findings.problems.append(f"{record.where}: {reason}")


def validate_log(settings: Settings) -> bool:
    """Print what is found; returns whether no record would become a dead letter."""
    log = open_log(settings.data.log_url, kafka=settings.kafka)
    validator = LogValidator(settings)
    positions = log.beginning_positions()
    with Console(stderr=True).status("reading"):
        while records := log.read(positions, max_records=_READ, timeout_s=0.0):
            for record in records:
                validator.observe(record)
            positions = advance(positions, records)
    log.close()
    _print(validator, Console())
    return validator.findings.dead_letters == 0


def _print(validator: LogValidator, console: Console) -> None:
    found, counts = validator.findings, validator.joiner.counts
    table = Table("what", "count", title=f"{found.records:,} records")
    rows = {
        **{f"{kind} events": count for kind, count in sorted(found.kinds.items())},
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
    for problem in found.problems:
        console.print(problem, highlight=False, markup=False)
    if found.dead_letters > len(found.problems):
        console.print(f"... and {found.dead_letters - len(found.problems):,} more")
