"""The id under which one call is found again in logs and error messages."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

METADATA_KEY = "x-request-id"
"""Metadata key under which a caller may send its own id, and under which ours is sent back."""

_ACCEPTED = re.compile(r"[A-Za-z0-9._:\-]{1,64}")
_NO_CALL = "-"
_current: ContextVar[str] = ContextVar("request_id", default=_NO_CALL)


def current() -> str:
    """Return the id of the call this thread is answering, "-" outside a call."""
    return _current.get()


def impression_id() -> str:
    """Return a new event id that begins with the id of the call, so that either leads to the other.

    A caller may send the same request id again, so the rest is random: 64 bits, which two lists of
    one request id share after billions of them.
    """
    call_id = _current.get()
    return uuid.uuid4().hex if call_id == _NO_CALL else f"{call_id}.{uuid.uuid4().hex[:16]}"


def begin(given: str = "") -> str:
    """Start a call: keep the caller's id when it is safe to write into a log, else make one."""
    request_id = given if _ACCEPTED.fullmatch(given) else uuid.uuid4().hex
    _current.set(request_id)
    return request_id
