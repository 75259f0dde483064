"""headrace.v1.Recommender over gRPC."""

from __future__ import annotations

import grpc

from protos.headrace.v1 import recommender_pb2, recommender_pb2_grpc
from serving import convert
from serving.interceptors import remaining_s
from serving.recommend import Recommender


class RecommenderServicer(recommender_pb2_grpc.RecommenderServicer):
    """Retrieval, ranking and impression logging in one call."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    def Recommend(  # noqa: N802 - the name is the service's
        self, request: recommender_pb2.RecommendRequest, context: grpc.ServicerContext
    ) -> recommender_pb2.RecommendResponse:
        """Return the best items for a user, logged as shown."""
        answer = self._recommender.recommend(
            request.user_id,
            request.limit,
            convert.features_from_message("context", request.context),
            remaining_s(context),
        )
        return convert.recommend_response(answer)
