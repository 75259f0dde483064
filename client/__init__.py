"""Headrace from Python: recommendations, events, drift signals and snapshots over gRPC.

    with Client("127.0.0.1:50051") as headrace:
        answer = headrace.recommend("ann", limit=10)
        headrace.publish([Feedback(user_id="ann", item_id=answer.item_ids[0], kind="click",
                                   impression_id=answer.impression_id)])

`AsyncClient` is the same for asyncio. It needs nothing of Headrace but the generated protos.
"""

from __future__ import annotations

from client.aio_client import AsyncClient
from client.channel import Tls
from client.errors import CallError, InvalidRequestError
from client.events import Event, Feedback, Impression, ItemUpdate, Shown, UserUpdate
from client.retry import Retry
from client.sync_client import Client
from client.types import (
    Acknowledgement,
    Answer,
    Condition,
    DriftSignal,
    Filters,
    RankQuery,
    RecommendQuery,
    RetrieveQuery,
    Snapshot,
    Switched,
)

__all__ = [
    "Acknowledgement",
    "Answer",
    "AsyncClient",
    "CallError",
    "Client",
    "Condition",
    "DriftSignal",
    "Event",
    "Feedback",
    "Filters",
    "Impression",
    "InvalidRequestError",
    "ItemUpdate",
    "RankQuery",
    "RecommendQuery",
    "RetrieveQuery",
    "Retry",
    "Shown",
    "Snapshot",
    "Switched",
    "Tls",
    "UserUpdate",
]
