"""Why a call failed, in words and in names that never change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from protos.headrace.v1 import failure_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_CODE_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


class CallError(Exception):
    """A call failed; all retries that were allowed are over.

    Attributes:
        code: name of the gRPC status, e.g. "UNAVAILABLE".
        reason: stable name of what went wrong, e.g. "LOG_UNAVAILABLE" (docs/api.md lists them); ""
            when the error is not the server's own, e.g. nobody listens.
        message: for people.
        field: the malformed field of the request, "" when it was not one.
        retry_after_s: how long the server asks to wait before trying again; 0.0: it is no help.
        request_id: under which the server's log has the call.
    """

    def __init__(self, code: str, message: str, *, reason: str = "", field: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.field = field
        self.retry_after_s = 0.0
        self.request_id = ""


class InvalidRequestError(CallError):
    """The request is malformed; `field` names what to mend."""


def error_of_call(error: grpc.RpcError, request_id: str) -> CallError:
    """Return what a failed call, of either kind of channel, says about itself."""
    status = _status_in(error.trailing_metadata() or ())
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for kind in (info, bad, retry):
            detail.Unpack(kind)
    field = bad.field_violations[0].field if bad.field_violations else ""
    made = _error(error.code().name, error.details() or "", info.reason, field)
    made.retry_after_s = retry.retry_delay.ToMilliseconds() / 1_000
    made.request_id = request_id
    return made


def error_of_failure(failure: failure_pb2.Failure, request_id: str) -> CallError:
    """Return why one of several requests failed."""
    code = _CODE_NAMES.get(failure.code, str(failure.code))
    made = _error(code, failure.message, failure.reason, failure.field)
    made.retry_after_s = failure.retry_after_ms / 1_000
    made.request_id = request_id
    return made


def _error(code: str, message: str, reason: str, field: str) -> CallError:
    kind = InvalidRequestError if code == "INVALID_ARGUMENT" else CallError
    return kind(code, message, reason=reason, field=field)


def _status_in(metadata: Iterable[tuple[str, Any]]) -> Any:
    """Return the google.rpc.Status that travels beside a status; empty when none does."""
    status = status_pb2.Status()
    for key, value in metadata:
        if key == _DETAILS_KEY:
            try:
                status.ParseFromString(value)
            except DecodeError:  # a proxy's own
                return status_pb2.Status()
    return status
