"""headrace.v1.Retrieval over gRPC."""

from __future__ import annotations

import grpc

from domain.filters import ItemFilters
from protos.headrace.v1 import retrieval_pb2, retrieval_pb2_grpc
from serving import convert
from serving.interceptors import remaining_s
from serving.recommend import Recommender


class RetrievalServicer(retrieval_pb2_grpc.RetrievalServicer):
    """Catalog to candidates."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    def Retrieve(  # noqa: N802 - the name is the service's
        self, request: retrieval_pb2.RetrieveRequest, context: grpc.ServicerContext
    ) -> retrieval_pb2.RetrieveResponse:
        """Return candidates for a user."""
        answer = self._recommender.retrieve(
            request.user_id,
            request.limit,
            filters=ItemFilters(exclude_seen=request.exclude_seen),
            deadline_s=remaining_s(context),
        )
        return convert.retrieve_response(answer)
