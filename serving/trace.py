"""Spans of the stages of the call that this thread answers; nothing where none are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import grpc

from monitoring.tracing import Tracing
from serving import request_id
from serving.failures import failed

_tracing: ContextVar[Tracing | None] = ContextVar("tracing", default=None)
_NOTHING: AbstractContextManager[Any] = nullcontext()


def stage(name: str) -> AbstractContextManager[Any]:
    """Trace a stage while the block runs."""
    tracing = _tracing.get()
    return _NOTHING if tracing is None else tracing.stage(name)


@contextmanager
def call(tracing: Tracing | None, method: str, context: grpc.ServicerContext) -> Iterator[None]:
    """Trace a call, whose request id is known already, while the block runs."""
    if tracing is None:
        yield
        return
    metadata = context.invocation_metadata() or ()
    token = _tracing.set(tracing)
    try:
        with tracing.call(method, request_id.current(), metadata) as span:
            try:
                yield
            except Exception as error:
                span.ended_with(failed(error, "").code.name)
                raise
            span.ended_with("OK")
    finally:
        _tracing.reset(token)
