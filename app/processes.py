"""Child processes of `up`, `demo` and `serve`: started together, watched, ended together."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event as StopSignal
from threading import Thread
from typing import IO, Protocol

from domain.clock import Clock
from domain.errors import ProcessError

# A trainer needs this long to publish its last snapshot and a server to let running calls finish.
GRACE_S = 30.0
STOP_WITH_PARENT = "HEADRACE_STOP_WITH_PARENT"


class Process(Protocol):
    """A running child; `subprocess.Popen` is one."""

    pid: int
    stdin: IO[bytes] | None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once it has ended; raises subprocess.TimeoutExpired."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


Begin = Callable[[Path], Process]
"""Starts a child that writes to the given file."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running child process, its log file, the name it is spoken of by and how it is started."""

    name: str
    process: Process
    log_file: Path
    begin: Begin


@contextmanager
def children(commands: Iterable[tuple[str, Sequence[str]]], logs: Path) -> Iterator[list[Child]]:
    """Run `headrace ARGUMENTS` for each (name, arguments); end them all on leaving.

    Each writes to `logs/NAME.log`. They also end when this process dies without a word: their
    standard input is a pipe that breaks.
    """
    starts = [(name, command(arguments)) for name, arguments in commands]
    with together(starts, logs) as running:
        yield running


@contextmanager
def together(starts: Iterable[tuple[str, Begin]], logs: Path) -> Iterator[list[Child]]:
    """Start a child for each (name, begin), which writes to `logs/NAME.log`; end all on leaving."""
    logs.mkdir(parents=True, exist_ok=True)
    started: list[Child] = []
    try:
        for name, begin in starts:
            log_file = logs / f"{name}.log"
            started.append(Child(name, begin(log_file), log_file, begin))
        yield started
    finally:
        _end(started)


def raise_if_ended(running: Sequence[Child]) -> None:
    """Check that every child lives.

    Raises:
        ProcessError: naming the child, its exit status and the last line it wrote.
    """
    for child in running:
        status = child.process.poll()
        if status is not None:
            raise ProcessError(
                f"{child.name} ended with status {status}: {last_line(child.log_file)} "
                f"(its log: {child.log_file})"
            )


def wait_for_stop(running: Sequence[Child], stop: StopSignal, clock: Clock) -> None:
    """Return when `stop` is set.

    Raises:
        ProcessError: a child ended before.
    """
    while not stop.is_set():
        raise_if_ended(running)
        clock.sleep(0.2)


def start_again(running: list[Child], ended: Child) -> None:
    """Put a new process, started in the same way, in the place of one that ended."""
    if ended.process.stdin is not None:
        ended.process.stdin.close()
    again = replace(ended, process=ended.begin(ended.log_file))
    running[running.index(ended)] = again


def last_line(path: Path) -> str:
    """Return the last line of a log file that is not empty."""
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it wrote nothing")


def stop_with_parent(stop: StopSignal) -> None:
    """Set `stop` when the process that started this one is gone; a no-op when run by hand."""
    if os.environ.get(STOP_WITH_PARENT) != "1":
        return

    def wait() -> None:
        # Not through sys.stdin: a thread inside its buffer keeps the interpreter from ending.
        while os.read(sys.stdin.fileno(), 1):
            pass
        stop.set()

    Thread(target=wait, name="parent-watch", daemon=True).start()


def parent_is_gone() -> bool:
    """Return whether the process that started this one is gone; for those who may start no thread.

    False when run by hand.
    """
    if os.environ.get(STOP_WITH_PARENT) != "1":
        return False
    readable = select.select([0], [], [], 0.0)[0]
    return bool(readable) and not os.read(0, 1)


def command(arguments: Sequence[str]) -> Begin:
    """Return how to start `headrace ARGUMENTS`, which ends when this process is gone."""

    def begin(log_file: Path) -> Process:
        with log_file.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "app.cli", *arguments],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, STOP_WITH_PARENT: "1"},
                start_new_session=True,  # Ctrl-C reaches the parent alone, which ends them in order
            )

    return begin


def _end(running: Sequence[Child]) -> None:
    """Ask the last started first, so that servers stop publishing before the trainer stops."""
    for child in reversed(running):
        if child.process.poll() is None:
            child.process.terminate()
        try:
            child.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
        if child.process.stdin is not None:
            child.process.stdin.close()
