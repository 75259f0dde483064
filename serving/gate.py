"""What every call passes before its message is read: who it is from, and whether it may."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from domain.errors import OverloadedError, UnauthenticatedError
from monitoring.metrics import ServingMetrics
from serving.access import Access, Caller, check_permission
from serving.quotas import Quotas

_STREAM_AGAIN_S = 1.0
"""When to try again after all places for streams were taken; they are held for long."""


class Gate:
    """Lets calls in: known callers, with a permission, within their quota."""

    def __init__(
        self, access: Access, quotas: Quotas, max_streams: int, metrics: ServingMetrics
    ) -> None:
        self._access = access
        self._quotas = quotas
        self._max_streams = max_streams
        self._streams = threading.BoundedSemaphore(max_streams)
        self._metrics = metrics

    def admit(self, method: str, context: grpc.ServicerContext) -> str:
        """Let a call of our services in; return the name under which its caller is counted.

        Raises:
            UnauthenticatedError: nobody knows the caller.
            PermissionDeniedError: it may not call this method.
            OverloadedError: it has used up its quota.
        """
        caller, client = self._known(context)
        check_permission(caller, method)
        self.count(client)
        return client

    def admit_reader_of_descriptions(self, context: grpc.ServicerContext) -> str:
        """Let a call to reflection in: any known caller, whatever it may do.

        Raises:
            UnauthenticatedError, OverloadedError: as `admit`.
        """
        _, client = self._known(context)
        self.count(client)
        return client

    def count(self, client: str, calls: int = 1) -> None:
        """Count a call, a message of a stream, or the further requests of a batch.

        Raises:
            OverloadedError: the client has used up its quota.
        """
        try:
            self._quotas.take(client, calls)
        except OverloadedError:
            self._metrics.over_quota.inc()
            raise

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Hold one of the places for streams, each of which keeps a thread.

        Raises:
            OverloadedError: all are taken.
        """
        if not self._streams.acquire(blocking=False):
            self._metrics.refused.inc()
            raise OverloadedError(
                f"{self._max_streams} streams are open, which is the most allowed",
                retry_after_s=_STREAM_AGAIN_S,
            )
        try:
            yield
        finally:
            self._streams.release()

    def _known(self, context: grpc.ServicerContext) -> tuple[Caller | None, str]:
        host = _host(context.peer())
        if self._access.open:
            return None, host
        metadata = {
            key: value
            for key, value in context.invocation_metadata() or ()
            if isinstance(value, str)
        }
        try:
            caller = self._access.caller(metadata, context.auth_context())
        except UnauthenticatedError:
            self.count(host)  # who guesses tokens has a quota too
            raise
        return caller, host if caller is None else f"client {caller.name}"


def _host(peer: str) -> str:
    """Return the part of a peer's name that stays the same over its connections.

    >>> _host("ipv4:10.1.2.3:50412"), _host("ipv6:%5B::1%5D:50412"), _host("unix:")
    ('ipv4:10.1.2.3', 'ipv6:%5B::1%5D', 'unix:')
    """
    return peer if peer.startswith("unix:") else peer.rpartition(":")[0]
