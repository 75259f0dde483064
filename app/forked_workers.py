"""Workers forked from one process that has loaded libraries and models, so that they share both.

What was loaded before a fork is in memory once; a page that a worker writes to becomes its own. A
fork copies one thread only, so nothing here may start another: no gRPC, no Kafka, no metrics page.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event as StopSignal
from typing import IO, NoReturn

from app.errors import run_to_exit_code
from app.processes import STOP_WITH_PARENT, Child, raise_if_ended
from app.settings import Settings
from domain.clock import Clock, SystemClock
from domain.errors import HeadraceError, ProcessError

_logger = logging.getLogger(__name__)

_LOOK_S = 0.05
_READY_WITHIN_S = 180.0


class ForkedProcess:
    """A child made by a fork; implements `app.processes.Process`."""

    def __init__(self, pid: int, clock: Clock) -> None:
        self.pid = pid
        self.stdin: IO[bytes] | None = None
        self._clock = clock
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs; of one that signal N has ended, -N."""
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        started_s = self._clock.stopwatch_s()
        while (status := self.poll()) is None:
            if timeout is not None and self._clock.stopwatch_s() - started_s > timeout:
                raise subprocess.TimeoutExpired([f"process {self.pid}"], timeout)
            self._clock.sleep(_LOOK_S)
        return status

    def terminate(self) -> None:
        """Ask it to end."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        os.kill(self.pid, signal.SIGKILL)


class WorkerMould:
    """Loads what workers have in common, and forks them from it.

    Args:
        settings: of all workers; those of one may differ in where it listens.

    When there is no snapshot, or it cannot be loaded, workers share the libraries and wait for one,
    each for itself. One that is started again later takes what is newest then.
    """

    def __init__(self, settings: Settings) -> None:
        # Imported here because nothing else of the command line needs torch.
        from app import server_process, server_wiring
        from serving.stages import warm_up
        from snapshot.local_store import LocalSnapshotStore

        self._run_server = server_process.run_server
        self._clock = SystemClock()
        store = LocalSnapshotStore(settings.data.snapshots, settings.snapshot)
        source = server_wiring.StoredModels(store, settings)
        self._models = None
        try:
            if (snapshot_id := source.current_id()) is not None:
                models = source.load_models(snapshot_id)
                # Once, so that what is made when first used is shared too.
                warm_up(models, ("",), models.event_time_ms, settings.watcher.warm_up_candidates)
                self._models = models
        except (HeadraceError, OSError) as error:
            _logger.warning("nothing to share but libraries", extra={"error": str(error)})
        self._lives = os.pipe()  # its reading ends break when this process is gone
        self._serving = os.pipe()
        os.set_blocking(self._serving[1], False)
        gc.collect()
        gc.freeze()

    def why_not(self) -> str:
        """Return why this process must not fork, "" when it may."""
        threads = len(list(Path("/proc/self/task").iterdir()))
        return "" if threads == 1 else f"{threads} threads run already"

    def begin(self, settings: Settings, log_file: Path) -> ForkedProcess:
        """Fork a worker."""
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return ForkedProcess(pid, self._clock)
        try:
            self._be_worker(settings, log_file)
        finally:
            os._exit(1)

    def wait_until_serving(self, running: Sequence[Child], stop: StopSignal) -> None:
        """Return when the first worker serves, or `stop` is set.

        Raises:
            ProcessError: a worker ended, or none serves within three minutes.
        """
        started_s = self._clock.stopwatch_s()
        while not (stop.is_set() or select.select([self._serving[0]], [], [], 0.2)[0]):
            raise_if_ended(running)
            if self._clock.stopwatch_s() - started_s > _READY_WITHIN_S:
                raise ProcessError(f"no worker served within {_READY_WITHIN_S:.0f} s")

    def _be_worker(self, settings: Settings, log_file: Path) -> NoReturn:
        """Be a process of one's own in all but memory, and never come back."""
        os.setsid()  # Ctrl-C reaches the parent alone, which ends workers in order
        os.environ[STOP_WITH_PARENT] = "1"
        os.dup2(self._lives[0], 0)
        os.close(self._lives[1])
        output = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = run_to_exit_code(
            lambda: self._run_server(settings, preloaded=self._models, on_serving=self._say_serving)
        )
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _say_serving(self) -> None:
        with suppress(BlockingIOError):  # it was said often enough
            os.write(self._serving[1], b"1")


def can_fork() -> bool:
    """Return whether this system's libraries bear a fork."""
    return sys.platform == "linux"
