"""A lock that many readers share and one writer holds alone.

The tail writes a few events at a time into models that many requests read at once. A waiting
writer goes before new readers, so that a steady stream of requests cannot keep a user's own action
out of her history.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class ReadWriteLock:
    """Many readers, or one writer. Not reentrant: a holder must not ask for it again."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._readers = 0
        self._writing = False
        self._writers_waiting = 0

    @contextmanager
    def read(self) -> Iterator[None]:
        """Hold the lock together with other readers."""
        with self._changed:
            while self._writing or self._writers_waiting:
                self._changed.wait()
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if self._readers == 0:
                    self._changed.notify_all()

    @contextmanager
    def write(self, patience_s: float = 0.0) -> Iterator[None]:
        """Hold the lock alone.

        Args:
            patience_s: how long to look for a moment without readers before new readers have to
                wait behind this writer. Readers that take long (a whole ranking) would otherwise
                be waited for by all who come after them.
        """
        with self._changed:
            if patience_s > 0.0:
                self._changed.wait_for(
                    lambda: not (self._writing or self._readers), timeout=patience_s
                )
            self._writers_waiting += 1
            try:
                while self._writing or self._readers:
                    self._changed.wait()
            finally:
                self._writers_waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
