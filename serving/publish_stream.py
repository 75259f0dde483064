"""One stream of published events: read ahead, stored in groups, acknowledged in order.

A thread of its own reads requests and hands their events to the log's writer, while the call's
thread waits for the oldest to be durable: so the events of many requests share one durable write.
The queue between the two is bounded. When it is full no further request is read, gRPC's own flow
control stops the sender, and nothing piles up here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import TypeAlias

from domain.errors import HeadraceError, StoppingError
from domain.events import Event
from serving.publish import Publisher

_LOOK_S = 0.1
"""How often both sides look whether the stream is over; an acknowledgement never waits for it."""

Ask: TypeAlias = tuple[int, Callable[[], Sequence[Event]]]
"""A request: its number, and what reads its events or raises."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The answer to one request: ids of the stored events, or why they are not known to be."""

    number: int
    event_ids: tuple[str, ...] = ()
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Begun:
    number: int
    event_ids: tuple[str, ...]
    stored: Future[None]


_Entry: TypeAlias = "_Begun | Acknowledged | None"
"""None ends the stream."""


class PublishStream:
    """One stream; `over` is set from outside when its caller has gone."""

    def __init__(
        self, publisher: Publisher, over: threading.Event, draining: threading.Event
    ) -> None:
        self._publisher = publisher
        self._over = over
        self._draining = draining
        self._queue: Queue[_Entry] = Queue(publisher.max_unacknowledged)
        self._broken: Exception | None = None

    def acknowledge(self, asks: Iterator[Ask]) -> Iterator[Acknowledged]:
        """Yield one acknowledgement per request, in their order, until the requests end.

        Raises:
            StoppingError: the server stops; what was not acknowledged is to be published again.
            Whatever reading the next request raises, after the ones before it are acknowledged.
        """
        reader = threading.Thread(
            target=self._read, args=(asks,), name="publish-stream", daemon=True
        )
        reader.start()
        try:
            while (entry := self._next()) is not None:
                yield self._settled(entry)
        finally:
            self._over.set()
        if self._broken is not None:
            raise self._broken

    def _next(self) -> _Entry:
        while True:
            try:
                return self._queue.get(timeout=_LOOK_S)
            except Empty:
                if self._over.is_set():
                    return None
                if self._draining.is_set():
                    raise StoppingError(
                        "the server is stopping; publish again what was not acknowledged"
                    ) from None

    def _settled(self, entry: _Begun | Acknowledged) -> Acknowledged:
        if isinstance(entry, Acknowledged):
            return entry
        try:
            self._publisher.wait(entry.stored, len(entry.event_ids))
        except HeadraceError as error:
            return Acknowledged(entry.number, error=error)
        return Acknowledged(entry.number, entry.event_ids)

    def _read(self, asks: Iterator[Ask]) -> None:
        """Hand requests to the log until they end; what ends them is told behind the last."""
        try:
            for number, events in asks:
                if not self._put(self._begun(number, events)):
                    return
        except Exception as error:  # noqa: BLE001 - raised again where the stream is answered
            self._broken = error
        self._put(None)

    def _begun(self, number: int, events: Callable[[], Sequence[Event]]) -> _Begun | Acknowledged:
        try:
            read = events()
            return _Begun(
                number, tuple(event.event_id for event in read), self._publisher.submit(read)
            )
        except Exception as error:  # noqa: BLE001 - told to the caller, and the stream goes on
            return Acknowledged(number, error=error)

    def _put(self, entry: _Entry) -> bool:
        """Queue an entry; return False when nobody will take it any more."""
        while not self._over.is_set():
            try:
                self._queue.put(entry, timeout=_LOOK_S)
            except Full:
                continue
            return True
        return False
