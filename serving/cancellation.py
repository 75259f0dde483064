"""Whether the call this thread answers is still wanted: cancelled calls end between two stages."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from domain.errors import CallCancelledError


def _always() -> bool:
    return True


_is_wanted: ContextVar[Callable[[], bool]] = ContextVar("is_wanted", default=_always)


def begin(is_wanted: Callable[[], bool]) -> None:
    """Start a call; `is_wanted` is false once its caller has gone."""
    _is_wanted.set(is_wanted)


def wanted() -> bool:
    """Return whether somebody waits for the answer; outside a call somebody does."""
    return _is_wanted.get()()


def check(stage: str) -> None:
    """Go on only while somebody waits for the answer; outside a call somebody does.

    Raises:
        CallCancelledError: naming the stage that nobody waits for any more.
    """
    if not wanted():
        raise CallCancelledError(f"the caller had gone before {stage}")
