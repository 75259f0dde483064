"""How a command ends: one clear line for a mistake, never a traceback for what was expected."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event as StopSignal
from types import FrameType

from typer import TyperException

from domain.errors import ConfigError, DatasetError, HeadraceError, InvalidRequestError, SchemaError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_USAGE_ERRORS = (ConfigError, SchemaError, DatasetError, InvalidRequestError)


def run_to_exit_code(command: Callable[[], object]) -> int:
    """Run a command; print what went wrong as one line on stderr and return the exit code.

    0: done. 1: failed. 2: the caller's mistake (a flag, a setting, a dataset, a schema).
    130: Ctrl-C. A command that returns a number ends with it.
    """
    try:
        code = command()
    except TyperException as error:
        if error.format_message():  # it is empty when the help was printed for want of a command
            _say(f"{error.format_message().removesuffix('.')}{_help_hint(error)}")
        return EXIT_USAGE
    except HeadraceError as error:
        _say(str(error))
        return EXIT_USAGE if isinstance(error, _USAGE_ERRORS) else EXIT_FAILED
    except OSError as error:
        if error.filename is None:
            raise
        _say(f"{error.filename}: {error.strerror}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:
        _say("interrupted")
    return code if isinstance(code, int) else 0


def _say(message: str) -> None:
    print(f"headrace: {' '.join(message.split())}", file=sys.stderr)


def _help_hint(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return "" if context is None else f" (see {context.command_path} --help)"


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
