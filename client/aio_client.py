"""The client for asyncio; its calls are those of `client.sync_client`, awaited."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from client import wire
from client.channel import OPTIONS, Tls, check_token, metadata
from client.errors import CallError, error_of_call
from client.events import Event
from client.retry import Attempts, Budget, Retry
from client.types import (
    Acknowledgement,
    Answer,
    DriftSignal,
    Features,
    Filters,
    RankQuery,
    RecommendQuery,
    RetrieveQuery,
    Snapshot,
    Switched,
)
from protos.headrace.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    drift_pb2_grpc,
    events_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
    retrieval_pb2,
    retrieval_pb2_grpc,
)


class AsyncClient:
    """A connection to a server; made and used within one running event loop.

    Every call raises `CallError` when it fails for good, and `InvalidRequestError` when the request
    names something wrong. Calls that may be repeated are, as `Retry` says, within their timeout.
    `request_id` is how a call is found again in the server's log and in the ids of impressions;
    when it is not given, one is made.
    """

    def __init__(
        self,
        address: str,
        *,
        tls: Tls | None = None,
        token: str = "",
        retry: Retry | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """Prepare a connection; it is made at the first call.

        Args:
            address: "host:port".
            tls: certificates; None speaks in the open.
            token: who we are, where the server asks; sent only over TLS or within the machine.
            retry: when to try again.
            timeout_s: for a call and its retries, unless the call says other.

        Raises:
            ValueError: the token would travel unencrypted.
            OSError: a file of `tls` cannot be read.
        """
        check_token(address, tls, token)
        self._token = token
        self._retry = retry or Retry()
        self._timeout_s = timeout_s
        self._budget = Budget(self._retry)
        if tls is None:
            self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(address, tls.credentials(), options=OPTIONS)
        self._recommender = recommender_pb2_grpc.RecommenderStub(self._channel)
        self._retrieval = retrieval_pb2_grpc.RetrievalStub(self._channel)
        self._ranking = ranking_pb2_grpc.RankingStub(self._channel)
        self._events = events_pb2_grpc.EventsStub(self._channel)
        self._drift = drift_pb2_grpc.DriftStub(self._channel)
        self._admin = admin_pb2_grpc.AdminStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all calls and the connection; may be called twice."""
        await self._channel.close()

    async def recommend(
        self,
        user_id: str,
        limit: int = 0,
        *,
        context: Features | None = None,
        filters: Filters | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Answer:
        """Return the best items for a user; the server logs them as shown."""
        query = RecommendQuery(user_id=user_id, limit=limit, context=context or {}, filters=filters)
        request = wire.recommend_request(query)
        return wire.answer_of(
            await self._call(self._recommender.Recommend, request, timeout_s, request_id)
        )

    async def retrieve(
        self,
        user_id: str,
        limit: int = 0,
        *,
        context: Features | None = None,
        filters: Filters | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Answer:
        """Return candidates for a user; nothing is logged."""
        query = RetrieveQuery(user_id=user_id, limit=limit, context=context or {}, filters=filters)
        request = wire.retrieve_request(query)
        return wire.answer_of(
            await self._call(self._retrieval.Retrieve, request, timeout_s, request_id)
        )

    async def rank(
        self,
        user_id: str,
        item_ids: Sequence[str],
        *,
        context: Features | None = None,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> Answer:
        """Return all the given items, best first for a user; nothing is logged."""
        query = RankQuery(user_id=user_id, item_ids=item_ids, context=context or {})
        request = wire.rank_request(query)
        return wire.answer_of(await self._call(self._ranking.Rank, request, timeout_s, request_id))

    async def recommend_many(
        self,
        queries: Iterable[RecommendQuery],
        *,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> list[Answer | CallError]:
        """Return an answer per query, or why there is none; at most 100 queries."""
        request = recommender_pb2.BatchRecommendRequest(
            requests=[wire.recommend_request(query) for query in queries]
        )
        return await self._batch(self._recommender.BatchRecommend, request, timeout_s, request_id)

    async def retrieve_many(
        self,
        queries: Iterable[RetrieveQuery],
        *,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> list[Answer | CallError]:
        """Return candidates per query, or why there are none; at most 100 queries."""
        request = retrieval_pb2.BatchRetrieveRequest(
            requests=[wire.retrieve_request(query) for query in queries]
        )
        return await self._batch(self._retrieval.BatchRetrieve, request, timeout_s, request_id)

    async def rank_many(
        self,
        queries: Iterable[RankQuery],
        *,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> list[Answer | CallError]:
        """Return an order per query, or why there is none; at most 100 queries."""
        request = ranking_pb2.BatchRankRequest(
            requests=[wire.rank_request(query) for query in queries]
        )
        return await self._batch(self._ranking.BatchRank, request, timeout_s, request_id)

    async def publish(
        self, events: Iterable[Event], *, timeout_s: float | None = None, request_id: str = ""
    ) -> tuple[str, ...]:
        """Store events durably, all or none, and return their ids; at most 1,000.

        Trying again is safe: ids are made before the first attempt, and an id counts once.
        """
        request = wire.publish_request(events)
        response = await self._call(self._events.Publish, request, timeout_s, request_id)
        return tuple(response.event_ids)

    async def publish_stream(
        self,
        batches: Iterable[Iterable[Event]] | AsyncIterable[Iterable[Event]],
        *,
        timeout_s: float | None = None,
        request_id: str = "",
    ) -> AsyncIterator[Acknowledgement]:
        """Send batches of at most 1,000 events and yield the server's word on each, in order.

        Batches are read ahead of their acknowledgements. There are no
        retries: when it fails, publish again what was not acknowledged. Events whose ids the caller
        chose count once.
        """
        request_id = request_id or uuid.uuid4().hex
        requests = _numbered(batches)
        responses = self._stream(self._events.PublishStream, requests, timeout_s, request_id)
        async for response in responses:
            yield wire.acknowledgement_of(response, request_id)

    async def watch_signals(
        self,
        *,
        since_ms: int = 0,
        stream: str = "",
        kind: str = "",
        min_severity: str = "",
        live_only: bool = False,
    ) -> AsyncIterator[DriftSignal]:
        """Yield the drift signals that are there, then each new or changed one, for ever.

        Args:
            since_ms: only signals noticed at this event time or later.
            stream: only of this stream, or of all that begin with it when it ends in "/".
            kind: "covariate", "label", "concept", "model" or "stream"; "" is all.
            min_severity: "small", "medium" or "large"; "" is all.
            live_only: of those that are there, only such as have not ended.
        """
        request = wire.watch_request(since_ms, stream, kind, min_severity, live_only)
        async for signal in self._stream(self._drift.WatchSignals, request, None, uuid.uuid4().hex):
            yield wire.signal_of(signal)

    async def list_snapshots(self, *, timeout_s: float | None = None) -> list[Snapshot]:
        """Return the snapshots of the server's store, oldest first."""
        request = admin_pb2.ListSnapshotsRequest()
        response = await self._call(self._admin.ListSnapshots, request, timeout_s)
        return [wire.snapshot_of(one) for one in response.snapshots]

    async def promote(self, snapshot_id: str, *, timeout_s: float | None = None) -> Switched:
        """Make a snapshot the served one."""
        request = admin_pb2.PromoteRequest(snapshot_id=snapshot_id)
        return wire.switched_of(await self._call(self._admin.Promote, request, timeout_s))

    async def rollback(self, *, timeout_s: float | None = None) -> Switched:
        """Make the snapshot before the served one the served one.

        Never tried again by itself: twice is two steps back.
        """
        request = admin_pb2.RollbackRequest()
        return wire.switched_of(
            await self._call(self._admin.Rollback, request, timeout_s, may_repeat=False)
        )

    async def _batch(
        self,
        method: Callable[..., Any],
        request: Any,
        timeout_s: float | None,
        request_id: str,
    ) -> list[Answer | CallError]:
        request_id = request_id or uuid.uuid4().hex
        response = await self._call(method, request, timeout_s, request_id)
        return wire.outcomes_of(response.outcomes, request_id)

    async def _call(
        self,
        method: Callable[..., Any],
        request: Any,
        timeout_s: float | None,
        request_id: str = "",
        *,
        may_repeat: bool = True,
    ) -> Any:
        """Make a call, and again while that is allowed and may help."""
        request_id = request_id or uuid.uuid4().hex
        sent = metadata(self._token, request_id)
        attempts = Attempts(
            self._retry, self._budget, self._timeout_s if timeout_s is None else timeout_s
        )
        while True:
            try:
                return await method(request, timeout=attempts.remaining_s(), metadata=sent)
            except grpc.RpcError as error:
                failure = error_of_call(error, request_id)
                pause_s = attempts.pause_s(failure) if may_repeat else None
                if pause_s is None:
                    raise failure from error
            await asyncio.sleep(pause_s)

    async def _stream(
        self,
        method: Callable[..., Any],
        request: Any,
        timeout_s: float | None,
        request_id: str,
    ) -> AsyncIterator[Any]:
        """Yield the responses of a stream, and end the call when nobody wants more of them."""
        call = method(request, timeout=timeout_s, metadata=metadata(self._token, request_id))
        try:
            async for response in call:
                yield response
        except grpc.RpcError as error:
            raise error_of_call(error, request_id) from error
        finally:
            call.cancel()


async def _numbered(
    batches: Iterable[Iterable[Event]] | AsyncIterable[Iterable[Event]],
) -> AsyncIterator[Any]:
    """Yield the requests of a stream."""
    number = 0
    if isinstance(batches, AsyncIterable):
        async for batch in batches:
            yield wire.stream_request(number, batch)
            number += 1
        return
    for number, batch in enumerate(batches):
        yield wire.stream_request(number, batch)
