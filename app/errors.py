"""How a command ends: one clear line for a mistake, never a traceback for what was expected."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event as StopSignal
from types import FrameType

from domain.errors import ConfigError, DatasetError, HeadraceError, InvalidRequestError, SchemaError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_USAGE_ERRORS = (ConfigError, SchemaError, DatasetError, InvalidRequestError)


def run_to_exit_code(command: Callable[[], None]) -> int:
    """Run a command; print what went wrong as one line on stderr and return the exit code.

    0: done. 1: failed. 2: the caller's mistake (a setting, a dataset, a schema). 130: Ctrl-C.
    """
    try:
        command()
    except HeadraceError as error:
        print(f"headrace: {one_line(error)}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, _USAGE_ERRORS) else EXIT_FAILED
    except KeyboardInterrupt:
        print("headrace: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def one_line(error: BaseException) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split())


@contextmanager
def stop_on_signals() -> Iterator[StopSignal]:
    """Give a flag that SIGTERM and Ctrl-C set, instead of ending the process in mid-step."""
    stop = StopSignal()

    def set_stop(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {one: signal.signal(one, set_stop) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
