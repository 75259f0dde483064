"""Events to a live feature store and catalog, a few at a time between requests."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from domain.errors import DecodeError, SchemaError
from domain.event_log import Record
from domain.events import Event, ItemUpdate
from serving.live_models import LiveModels
from stream.codec import BadEvent, decode_record

_logger = logging.getLogger(__name__)

_REMEMBERED_USERS = 8
"""Users of the last records, for warming up: enough to meet a history of every length."""

_EVENTS_AT_ONCE = 32
"""Events taken in between two moments in which requests may read: about half a millisecond. One at
a time would let every event wait for every running search."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event, and where in the log it stands.

    Attributes:
        partition: None when it is stored but was not read back, so that its place is not known.
    """

    event: Event
    partition: str | None = None
    offset: int = 0

    @property
    def where(self) -> str:
        """Return "partition@offset", or the event's id when its place is not known."""
        if self.partition is None:
            return f"event {self.event.event_id}"
        return f"{self.partition}@{self.offset}"


@dataclass(slots=True)
class Applied:
    """What applying records did.

    Attributes:
        skipped: events that changed nothing because they cannot be read or do not fit the schema;
            the trainer sets the same ones aside.
        newest_ms: newest event time applied, 0 when none was.
        times_ms: event time of each event that was not known before.
        event_ids: of every event met.
        last_users: a few of the users seen, in the order they were first seen.
    """

    records: int = 0
    skipped: int = 0
    newest_ms: int = 0
    times_ms: list[int] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)
    last_users: tuple[str, ...] = ()


def apply_records(models: LiveModels, records: Sequence[Record]) -> Applied:
    """Bring the feature store and the catalog of a bundle up to the end of `records`."""
    applied = Applied(records=len(records))
    return apply_arrivals(models, _arrivals(records, applied), applied)


def apply_arrivals(
    models: LiveModels, arrivals: Iterable[Arrival], applied: Applied | None = None
) -> Applied:
    """Take events in as the train loop does before it learns; count into `applied`, if given.

    Requests wait for a few events, never for all of them.
    """
    applied = applied or Applied()
    users: dict[str, None] = {}
    coming = iter(arrivals)
    while some := list(islice(coming, _EVENTS_AT_ONCE)):
        with models.lock.write():
            for arrival in some:
                _take_in(models, arrival, applied, users)
    applied.last_users = tuple(users)[-_REMEMBERED_USERS:]
    return applied


def _arrivals(records: Iterable[Record], applied: Applied) -> Iterator[Arrival]:
    for record in records:
        for entry in decode_record(record.value):
            if isinstance(entry, BadEvent):
                _logger.debug(
                    "record skipped", extra={"where": record.where, "reason": entry.reason}
                )
                applied.skipped += 1
            else:
                yield Arrival(entry, record.partition, record.offset)


def _take_in(
    models: LiveModels, arrival: Arrival, applied: Applied, users: dict[str, None]
) -> None:
    event = arrival.event
    try:
        is_new = _apply(models, arrival)
    except (DecodeError, SchemaError) as error:
        _logger.debug("record skipped", extra={"where": arrival.where, "reason": str(error)})
        applied.skipped += 1
        return
    except Exception:
        # A record that breaks the feature store must not end the tail: every user's
        # freshness hangs on it.
        _logger.exception("record failed", extra={"where": arrival.where})
        applied.skipped += 1
        return
    applied.event_ids.append(event.event_id)
    applied.newest_ms = max(applied.newest_ms, event.time_ms)
    if is_new:
        applied.times_ms.append(event.time_ms)
    if not isinstance(event, ItemUpdate):
        users[event.user_id] = None


def _apply(models: LiveModels, arrival: Arrival) -> bool:
    """Take one event in; return whether it was not known before."""
    event = arrival.event
    models.feature_store.check(event)
    if models.deduplicator.seen(event.event_id, event.time_ms):
        if isinstance(event, ItemUpdate) and arrival.partition is not None:
            models.ahead.place(event, arrival.partition, arrival.offset)
        return False
    models.feature_store.observe(event)
    if isinstance(event, ItemUpdate):
        if models.point is not None:
            models.ahead.note(event, arrival.partition, arrival.offset)
        models.unsettled.set()
        models.retriever.observe_item(event)
    return True
