"""Calls whose message does not come: each holds a thread, so after some seconds they are ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from domain.clock import Clock
from domain.errors import CallCancelledError

_logger = logging.getLogger(__name__)

_LOOKS = 4
"""How often within the timeout the open calls are looked at."""


class SlowSenders:
    """Ends calls that have begun and do not go on."""

    def __init__(self, timeout_s: float, clock: Clock) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        # In the order of their beginning, as all have the same time.
        self._begun: dict[grpc.ServicerContext, float] = {}
        self._ended: set[grpc.ServicerContext] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow-senders", daemon=True)

    def start(self) -> None:
        """Begin to look after calls."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; may be called before `start`."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def waiting_for(self, context: grpc.ServicerContext) -> Iterator[None]:
        """End the call when the block takes longer than the timeout.

        Raises:
            CallCancelledError: it did. gRPC lets the block go on as if the caller had sent nothing,
                sometimes a moment before it says that the call is over.
        """
        with self._lock:
            self._begun[context] = self._clock.stopwatch_s()
        try:
            yield
        finally:
            with self._lock:
                del self._begun[context]
                was_ended = context in self._ended
                self._ended.discard(context)
        if was_ended:
            raise CallCancelledError(f"its message did not come within {self._timeout_s} s")

    def _run(self) -> None:
        while not self._stop.wait(self._timeout_s / _LOOKS):
            self._end_overdue()

    def _end_overdue(self) -> None:
        oldest_s = self._clock.stopwatch_s() - self._timeout_s
        with self._lock:
            overdue = [
                context
                for context, begun_s in self._begun.items()
                if begun_s < oldest_s and context not in self._ended
            ]
            self._ended.update(overdue)
        for context in overdue:
            _logger.info("call ended, its message did not come", extra={"peer": context.peer()})
            context.cancel()
