"""What callers are told about an error: a status code, a stable reason, and when to try again.

The reasons are part of the interface: they are never renamed, and docs/api.md lists them.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from domain.errors import (
    CallCancelledError,
    DeadlineExceededError,
    DecodeError,
    InvalidRequestError,
    LogUnavailableError,
    NotReadyError,
    OverloadedError,
    PermissionDeniedError,
    RecordsError,
    SchemaError,
    SnapshotDamagedError,
    SnapshotError,
    SnapshotNotFoundError,
    StoppingError,
    UnauthenticatedError,
)
from serving.validate import named_field

_INTERNAL = "INTERNAL"

_MAX_TEXT_BYTES = 500
"""Statuses travel as HTTP/2 headers, of which clients take 8 KiB in all by default. A message may
quote what the caller sent; it goes out percent-encoded (up to three bytes for one), and once more
with field and reason in the details."""


@dataclass(frozen=True, slots=True)
class _Kind:
    code: grpc.StatusCode
    reason: str
    retry_after_s: float = 0.0


_KINDS: tuple[tuple[type[Exception], _Kind], ...] = (
    (InvalidRequestError, _Kind(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")),
    (DecodeError, _Kind(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")),
    (SchemaError, _Kind(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")),
    (UnauthenticatedError, _Kind(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")),
    (PermissionDeniedError, _Kind(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")),
    # A snapshot is loaded and warmed up within seconds; the log's clients look again after one.
    (NotReadyError, _Kind(grpc.StatusCode.UNAVAILABLE, "NO_SNAPSHOT_LIVE", 1.0)),
    # An answer takes some ten milliseconds, so a tenth of a second later many have gone.
    (OverloadedError, _Kind(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", 0.1)),
    (DeadlineExceededError, _Kind(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")),
    (CallCancelledError, _Kind(grpc.StatusCode.CANCELLED, "CANCELLED")),
    (LogUnavailableError, _Kind(grpc.StatusCode.UNAVAILABLE, "LOG_UNAVAILABLE", 1.0)),
    (StoppingError, _Kind(grpc.StatusCode.UNAVAILABLE, "STOPPING", 0.1)),
    (SnapshotNotFoundError, _Kind(grpc.StatusCode.NOT_FOUND, "SNAPSHOT_NOT_FOUND")),
    (SnapshotDamagedError, _Kind(grpc.StatusCode.FAILED_PRECONDITION, "SNAPSHOT_DAMAGED")),
    (SnapshotError, _Kind(grpc.StatusCode.UNAVAILABLE, "SNAPSHOT_STORE_FAILED", 1.0)),
    (RecordsError, _Kind(grpc.StatusCode.UNAVAILABLE, "RECORDS_UNREADABLE", 1.0)),
)
"""The first that fits; subclasses stand before their parents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """What a caller is told about an error.

    Attributes:
        reason: stable, for programs.
        message: for people.
        field: the malformed field, "" when it was not one.
        violation: what was wrong with the field.
        retry_after_s: how long to wait before the same request again; 0.0: repeating does not help.
    """

    code: grpc.StatusCode
    reason: str
    message: str
    field: str = ""
    violation: str = ""
    retry_after_s: float = 0.0

    @property
    def is_internal(self) -> bool:
        """Return whether only the server's log says what happened."""
        return bool(self.code == grpc.StatusCode.INTERNAL)


def reasons() -> dict[str, grpc.StatusCode]:
    """Return every reason there is, and the code it comes with."""
    return {kind.reason: kind.code for _, kind in _KINDS} | {_INTERNAL: grpc.StatusCode.INTERNAL}


def failed(error: Exception, call_id: str) -> Failed:
    """Return what a caller is told; what she can do nothing about is INTERNAL and nothing else."""
    for kind, known in _KINDS:
        if isinstance(error, kind):
            return _known(error, known)
    message = f"internal error; the server's log has it under request {call_id}"
    return Failed(code=grpc.StatusCode.INTERNAL, reason=_INTERNAL, message=message)


def _known(error: Exception, known: _Kind) -> Failed:
    field = violation = ""
    retry_after_s = known.retry_after_s
    if isinstance(error, DecodeError | SchemaError):
        error = named_field(str(error))
    if isinstance(error, InvalidRequestError):
        field, violation = _short(error.field), _short(error.reason)
    elif isinstance(error, OverloadedError) and error.retry_after_s is not None:
        retry_after_s = error.retry_after_s
    return Failed(
        code=known.code,
        reason=known.reason,
        message=_short(str(error)),
        field=field,
        violation=violation,
        retry_after_s=retry_after_s,
    )


def _short(text: str) -> str:
    """Cut a text to what a header may carry."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= _MAX_TEXT_BYTES:
        return text
    return encoded[: _MAX_TEXT_BYTES - 3].decode(errors="ignore") + "..."
