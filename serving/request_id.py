"""The id under which one call is found again in logs and error messages."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

METADATA_KEY = "x-request-id"
"""Metadata key under which a caller may send its own id, and under which ours is sent back."""

_ACCEPTED = re.compile(r"[A-Za-z0-9._:\-]{1,64}")
_current: ContextVar[str] = ContextVar("request_id", default="-")


def current() -> str:
    """Return the id of the call this thread is answering, "-" outside a call."""
    return _current.get()


def begin(given: str = "") -> str:
    """Start a call: keep the caller's id when it is safe to write into a log, else make one."""
    request_id = given if _ACCEPTED.fullmatch(given) else uuid.uuid4().hex
    _current.set(request_id)
    return request_id
