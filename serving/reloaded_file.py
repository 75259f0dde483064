"""Files that are read again when they change, such as certificates and tokens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from domain.clock import Clock
from domain.errors import ConfigError

_logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
"""Files are looked at when they are used, and not more often than this."""

_Content = TypeVar("_Content")
_Stamp = tuple[tuple[int, int, int], ...]


class ReloadedFiles(Generic[_Content]):
    """What some files hold together, as of the last time that it made sense.

    A file that is being replaced, or was replaced by a bad one, changes nothing: what was read last
    stays in use, and one line in the log says why.
    """

    def __init__(self, paths: tuple[Path, ...], read: Callable[[], _Content], clock: Clock) -> None:
        """Read the files for the first time.

        Args:
            paths: the files whose change matters; links are followed.
            read: reads and checks them all; raises `ConfigError` when they cannot be used.
            clock: says when it is time to look again.

        Raises:
            ConfigError: as `read`.
        """
        self._paths = paths
        self._read = read
        self._clock = clock
        self._stamp = self._look()
        self._content = read()
        self._looked_s = clock.stopwatch_s()
        self._lock = threading.Lock()

    def current(self) -> _Content:
        """Return what the files hold now; may be called from any thread."""
        now_s = self._clock.stopwatch_s()
        if now_s - self._looked_s >= _LOOK_EVERY_S and self._lock.acquire(blocking=False):
            try:
                self._looked_s = now_s
                self._reload()
            finally:
                self._lock.release()
        return self._content

    def _reload(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._content = self._read()
        except ConfigError as error:
            _logger.error("changed file not used", extra={"error": str(error)})
        else:
            names = ", ".join(str(path) for path in self._paths)
            _logger.info("changed file read", extra={"file": names})

    def _look(self) -> _Stamp:
        return tuple(_stamp_of(path) for path in self._paths)


def _stamp_of(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)  # `read` says in words that it is not there
    return (status.st_mtime_ns, status.st_size, status.st_ino)
