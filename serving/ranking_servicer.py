"""headrace.v1.Ranking over gRPC."""

from __future__ import annotations

import grpc

from protos.headrace.v1 import ranking_pb2, ranking_pb2_grpc
from serving import convert
from serving.interceptors import remaining_s
from serving.recommend import Recommender


class RankingServicer(ranking_pb2_grpc.RankingServicer):
    """Given items to ordered scores."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender

    def Rank(  # noqa: N802 - the name is the service's
        self, request: ranking_pb2.RankRequest, context: grpc.ServicerContext
    ) -> ranking_pb2.RankResponse:
        """Return the given items, best first."""
        answer = self._recommender.rank(
            request.user_id,
            tuple(request.item_ids),
            convert.features_from_message("context", request.context),
            remaining_s(context),
        )
        return convert.rank_response(answer)
