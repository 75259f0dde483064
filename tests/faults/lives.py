"""Processes under test, each forked by a zygote or started in full, and how they ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.launcher import Plan
from tests.process_helpers import ROOT

KILLED = -signal.SIGKILL


@dataclass(eq=False, slots=True)
class Life:
    """A running process.

    Attributes:
        pid: of a process that is surely ours as long as `status` is None.
        output: file that everything it says goes to.
        look: how it ended, None while it lives.
    """

    pid: int
    output: Path
    look: Callable[[], int | None]
    status: int | None = None

    def poll(self) -> int | None:
        """Return how it ended, None while it lives."""
        if self.status is None:
            self.status = self.look()
        return self.status

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> int | None:
        """Return how it ended, None when it still lives after that time."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.status

    def wait_for_a_word(self, seconds: float) -> None:
        """Wait until it has said something, or has ended."""
        deadline = time.monotonic() + seconds
        while not self.said and self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)

    @property
    def said(self) -> str:
        """Return everything that went to its output."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""


class Zygote:
    """The process that forks; see `tests.faults.zygote`. Safe to share by threads."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._ready = False

    def start(self, plan: Plan, output: Path) -> Life:
        """Fork a process that follows a plan."""
        output.parent.mkdir(parents=True, exist_ok=True)
        pid = self._ask(plan=plan.to_json(), output=str(output))["pid"]
        return Life(pid, output, lambda: self._ask(pid=pid)["status"])

    def _ask(self, **request: Any) -> dict[str, Any]:
        with self._lock:
            assert self._process.stdin is not None
            if not self._ready:
                self._ready = json.loads(self._line())["ready"]
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer: dict[str, Any] = json.loads(self._line())
            return answer

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the zygote ended with status {self._process.wait()}")
        return line


@contextmanager
def zygote() -> Iterator[Zygote]:
    """Run a zygote while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.faults.zygote"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    try:
        yield Zygote(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        # It holds nothing that is still wanted; on a busy machine an orderly end takes a while.
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()


def start_in_full(plan: Plan, output: Path) -> Life:
    """Start the command as a user would; through the launcher only when it is to kill itself."""
    output.parent.mkdir(parents=True, exist_ok=True)
    is_plain = not (plan.point or plan.mutation)
    what = ["app.cli", *plan.arguments] if is_plain else ["tests.faults.launcher", plan.to_json()]
    with output.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", *what],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=_environment(),
        )
    return Life(process.pid, output, process.poll)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return {**kept, "OMP_NUM_THREADS": "1"}
