"""A process that has loaded everything and forks a real trainer for each life.

Loading torch costs four seconds of a core, which a campaign of hundreds of lives would pay each
time. What is forked is a process of its own, with its own files, sockets and threads, and dies by
SIGKILL as any other. Nothing that a trainer makes exists before the fork: no log, no socket, no
model, no thread.

Talked to by lines of JSON: a request comes in on standard input, its answer goes out on standard
output.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from tests.faults.launcher import plan_from_json

# The allocator of Arrow has a thread to give memory back, and looks after it across a fork.
_HARMLESS_THREADS = {"jemalloc_bg_thd"}


def main() -> int:
    """Fork when asked to, until standard input ends."""
    # torch loads its compiler when the first optimiser is made: most of the start of a trainer.
    modules = ("app.trainer_process", "app.journal_replay", "stream.kafka_log", "torch._dynamo")
    for module in modules:
        importlib.import_module(module)
    _answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if "plan" in request:
            _answer({"pid": _fork(request["plan"], Path(request["output"]))})
        else:
            _answer({"status": _ended(request["pid"])})
    return 0


def _fork(plan: str, output: Path) -> int:
    _reject_threads()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 70  # whatever goes wrong, the child must not fall back into the loop above
    try:
        _settle_in(output)
        plan_from_json(plan).run()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _settle_in(output: Path) -> None:
    """Take the files of a process of its own: nothing to read, and a log file to write."""
    source = os.open(os.devnull, os.O_RDONLY)
    sink = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(source, 0)
    os.dup2(sink, 1)
    os.dup2(sink, 2)


def _reject_threads() -> None:
    """Check that nothing runs here that a fork would leave behind half-way."""
    names = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
    mine = Path("/proc/self/comm").read_text().strip()
    others = names - {mine} - _HARMLESS_THREADS
    if others:
        raise RuntimeError(f"expected one thread before a fork, found {', '.join(sorted(others))}")


def _ended(pid: int) -> int | None:
    """Return how a child ended (-9 for SIGKILL), None while it lives."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
